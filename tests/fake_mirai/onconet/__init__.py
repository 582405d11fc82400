"""What a snapshot of MIRAI unpickles to, as far as the converter touches it: our own short model of the published one.

The real `onconet` is not here. Names of modules, arguments and results are those of the published code; how they are
computed is written anew, apart from `mammofed_shared`, so that the two check each other.
"""

import pickle
import warnings
from argparse import Namespace

import numpy as np
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock


class CustomResnet(nn.Module):
    def __init__(self, settings):
        super().__init__()
        self._model = ResNet(settings)

    def forward(self, x, risk_factors=None, batch=None):
        return self._model(x)


class ResNet(nn.Module):
    def __init__(self, settings):
        super().__init__()
        self.args = settings
        self.downsampler = nn.Sequential()
        self.downsampler.add_module("conv1", nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False))
        self.downsampler.add_module("bn1", nn.BatchNorm2d(64))
        self.downsampler.add_module("relu", nn.ReLU())
        self.downsampler.add_module("maxpool", nn.MaxPool2d(3, stride=2, padding=1))
        width = 64
        self.blocks = []
        for layer in range(1, 5):
            for block in range(2):
                out, stride = 64 << (layer - 1), 2 if layer > 1 and block == 0 else 1
                shrink = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))
                name = f"layer{layer}_{block}"
                self.add_module(name, BasicBlock(width, out, stride, shrink if stride == 2 else None))
                self.blocks.append(name)
                width = out
        self.pool = Pool(settings, 512)
        self.prob_of_failure_layer = Hazard(512 + self.pool.size)

    def forward(self, x):
        assert not self.args.cuda
        x = self.downsampler(x)
        for name in self.blocks:
            x = self._modules[name](x)
        hidden = torch.relu(self.pool(x))
        return self.prob_of_failure_layer(hidden), hidden, {"activ": x}


class Pool(nn.Module):
    """Pool, then risk factors where the model has them; attributes are laid out as in the published classes."""

    def __init__(self, settings, width):
        super().__init__()
        self.args = settings
        self.size = 0
        inner = nn.Module()
        if settings.pool_name == "Simple_AttentionPool":
            inner.attention_fc = nn.Linear(width, 1)
        if settings.use_risk_factors:
            self.internal_pool = inner
            for key in settings.risk_factor_keys:
                self.add_module(f"{key}_fc", nn.Linear(width, settings.sizes[key]))
                self.size += settings.sizes[key]
        else:
            self._modules.update(inner._modules)

    def forward(self, x):
        flat = x.flatten(2)  # B, width, N
        inner = self.internal_pool if self.args.use_risk_factors else self
        if self.args.pool_name == "GlobalMaxPool":
            pooled = flat.max(dim=2).values
        elif self.args.pool_name == "GlobalAvgPool":
            pooled = flat.sum(dim=2) / flat.shape[2]
        else:
            share = inner.attention_fc(flat.transpose(1, 2)).squeeze(2)
            share = share.exp() / share.exp().sum(dim=1, keepdim=True)
            pooled = torch.einsum("bdn,bn->bd", flat, share)
        if not self.args.use_risk_factors:
            return pooled
        assert self.args.use_pred_risk_factors_at_test
        factors = []
        for key in self.args.risk_factor_keys:
            logit = self._modules[f"{key}_fc"](pooled)
            factors.append(logit.sigmoid() if logit.shape[1] == 1 else logit.softmax(dim=1))
        return torch.cat([pooled, *factors], dim=1)


class Hazard(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.hazard_fc = nn.Linear(width, 5)
        self.base_hazard_fc = nn.Linear(width, 1)
        self.upper_triagular_mask = nn.Parameter(torch.ones(5, 5).triu(), requires_grad=False)

    def forward(self, x):
        return self.hazard_fc(x).clamp(min=0) @ self.upper_triagular_mask + self.base_hazard_fc(x)


class AllImageTransformer(nn.Module):
    def __init__(self, settings):
        super().__init__()
        self.args = settings
        width = settings.hidden_dim
        self.projection_layer = nn.Linear(512, width)
        self.mask_embedding = nn.Embedding(2, 512, padding_idx=1)
        self.kept_images_vec = nn.Parameter(torch.ones(1, 4, 1), requires_grad=False)
        self.transformer = nn.Module()
        for name, rows in (("time", 11), ("view", 3), ("side", 3)):
            self.transformer.add_module(f"{name}_embed", nn.Embedding(rows, 32, padding_idx=-1))
        self.transformer.embed_add_fc = nn.Linear(96, width)
        self.transformer.embed_scale_fc = nn.Linear(96, width)
        for number in range(settings.num_layers):
            self.transformer.add_module(f"transformer_layer_{number}", Layer(settings))
        self.pred_masked_img_fc = nn.Linear(width, 512)
        self.fc = nn.Linear(width, 2)
        self.pool = Pool(settings, width)
        self.prob_of_failure_layer = Hazard(width + self.pool.size)

    def forward(self, x, risk_factors=None, batch=None):
        inner = self.transformer
        places = [inner.view_embed(batch["view_seq"]), inner.time_embed(batch["time_seq"])]
        place = torch.cat([*places, inner.side_embed(batch["side_seq"])], dim=2)
        x = self.projection_layer(x + self.mask_embedding(torch.ones_like(batch["view_seq"])))
        x = inner.embed_scale_fc(place) * x + inner.embed_add_fc(place)
        for number in range(self.args.num_layers):
            x = inner._modules[f"transformer_layer_{number}"](x)
        pooled = torch.relu(self.pool(x.transpose(1, 2).unsqueeze(-1)))
        return self.prob_of_failure_layer(pooled), x, {}


class Layer(nn.Module):
    def __init__(self, settings):
        super().__init__()
        width = settings.hidden_dim
        self.args = settings
        self.multihead_attention = nn.Module()
        for name in ("query", "value", "key", "aggregate_fc"):
            self.multihead_attention.add_module(name, nn.Linear(width, width))
        self.layernorm_attn, self.layernorm_fc = nn.LayerNorm(width), nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        attention, heads = self.multihead_attention, self.args.num_heads
        size = x.shape[2] // heads
        found = []
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            query, key, value = (getattr(attention, name)(x)[..., part] for name in ("query", "key", "value"))
            found.append((query @ key.transpose(1, 2) / size**0.5).softmax(dim=2) @ value)
        x = self.layernorm_attn(x + attention.aggregate_fc(torch.cat(found, dim=2)))
        return self.layernorm_fc(x + self.fc2(self.fc1(x).clamp(min=0)))


class MiraiCalibrator:
    def __init__(self, year, bend=1.0):
        self.bend = bend
        self.base_estimator_slope, self.base_estimator_offset = 2.0 + year, np.array([-1.0])
        self.calibrator_slope, self.calibrator_offset = -1.5, 0.25

    def predict_proba(self, x):
        inner = self.base_estimator_slope * x**self.bend + self.base_estimator_offset
        risk = 1 / (1 + np.exp(self.calibrator_slope * inner + self.calibrator_offset))
        return np.array([1 - risk, risk])


def write_calibrators(path, bend=1.0):
    """One a year; those that bend are no Platt scaling."""
    calibrators = {year: MiraiCalibrator(year, bend) for year in range(5)}
    path.write_bytes(pickle.dumps(calibrators))
    return calibrators


def write_snapshots(folder, seed, pool, num_heads, sizes):
    """`encoder.p`, `transformer.p` and `calibrators.p`, and what the whole model gives for `exam.pt`."""
    torch.manual_seed(seed)
    settings = {"use_risk_factors": bool(sizes), "pred_risk_factors": bool(sizes), "sizes": sizes, "cuda": True}
    settings |= {"risk_factor_keys": list(sizes), "survival_analysis_setup": True}
    encoder = CustomResnet(Namespace(**settings, pool_name="GlobalMaxPool"))
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    transformer = AllImageTransformer(
        Namespace(**settings, pool_name=pool, num_layers=1, num_heads=num_heads, hidden_dim=32)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(nn.DataParallel(encoder), folder / "encoder.p")
    torch.save({"model": transformer}, folder / "transformer.p")
    calibrators = write_calibrators(folder / "calibrators.p")
    for model in (encoder, transformer):
        model.eval()
    encoder._model.args.cuda = False
    for inner in (encoder._model, transformer):
        inner.args.use_pred_risk_factors_at_test = True
    exam = torch.randn(4, 96, 64)
    with torch.no_grad():
        hidden = encoder(exam.unsqueeze(1).expand(-1, 3, -1, -1))[1][None, :, :512]
        places = {"time_seq": torch.zeros(1, 4, dtype=torch.long), "view_seq": torch.tensor([[0, 1, 0, 1]])}
        logit = transformer(hidden, None, places | {"side_seq": torch.tensor([[0, 0, 1, 1]])})[0]
    bare = logit.sigmoid()[0].double().numpy()
    risks = [calibrators[year].predict_proba(bare[year].reshape(-1, 1)).flatten()[1] for year in range(5)]
    torch.save({"exam": exam, "logit": logit, "risks": torch.tensor(np.array(risks))[None]}, folder / "exam.pt")
