"""One real optimizer step of the preset `paper` at full resolution, on this CPU: seconds, peak memory, gradients.

    .venv/bin/python tests/benchmarks/paper_step.py [--precision bf16]

tf_efficientnet_b5 and ModernBERT-base with random weights (the configuration is written here, nothing is downloaded),
images of 1520 × 912, batch 2, activation checkpointing. Ends with exit code 1 if a trainable tensor has no gradient,
the parameters are not 178.8 million, or the peak is 20 GB or more.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.report.tokenize import Tokens
from mammofed_shared.training.optim import make_adamw, set_learning_rate
from mammofed_shared.training.pretrain import PretrainBatch, PretrainTask, build_model
from mammofed_shared.training.state import tensor_specs
from mammofed_shared.training.step import LoopSettings, training_step

BATCH_SIZE = 2
IMAGE_SIZE = (1520, 912)
NUM_TOKENS = 128
"""Of each text; the paper's reports have 74 on average."""
MODERNBERT_BASE = {
    "model_type": "modernbert",
    "vocab_size": 50368,
    "hidden_size": 768,
    "intermediate_size": 1152,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "max_position_embeddings": 8192,
    "global_attn_every_n_layers": 3,
    "pad_token_id": 50283,
    "bos_token_id": 50281,
    "cls_token_id": 50281,
    "eos_token_id": 50282,
    "sep_token_id": 50282,
}
"""Shape of answerdotai/ModernBERT-base."""


class _OneBatch(PretrainTask):
    """The task without a site's data: the benchmark brings its batch."""

    def __init__(self, settings: PretrainSettings, model: torch.nn.Module) -> None:
        self.settings = settings
        self.model = model
        self._device = torch.device("cpu")


def paper_settings(precision: str) -> PretrainSettings:
    """The paper's settings with random weights in place of ImageNet's and ModernBERT's.

    The preset's bf16 autocast is for GPUs: on a CPU without units for it, one step did not end in 4 minutes.
    """
    defaults = PretrainSettings()
    image = defaults.image_encoder.model_copy(update={"weights": "none"})
    text = defaults.text_encoder.model_copy(update={"weights": "none"})
    changes = {"image_encoder": image, "text_encoder": text, "batch_size": BATCH_SIZE, "precision": precision}
    return defaults.model_copy(update=changes)


def random_batch() -> PretrainBatch:
    """Random images and texts of full size."""
    random = np.random.default_rng(0)
    greys, views = random.integers(0, 256, (2, BATCH_SIZE, *IMAGE_SIZE), dtype=np.uint8)
    ids = random.integers(0, 50280, (2 * BATCH_SIZE, NUM_TOKENS))
    return PretrainBatch(greys, views, Tokens(ids, np.ones_like(ids), 0))


def main() -> int:
    """Run the step and print what it took."""
    parser = argparse.ArgumentParser(description="One real optimizer step of the preset `paper` on this CPU.")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    settings = paper_settings(parser.parse_args().precision)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODERNBERT_BASE))
        model = build_model(settings, Path(folder), False)
    specs = tensor_specs(model).values()
    num_values = sum(int(np.prod(spec.shape, dtype=np.int64)) for spec in specs)
    num_parameters = sum(int(np.prod(spec.shape, dtype=np.int64)) for spec in specs if spec.kind == "parameter")
    optimizer = make_adamw(model, settings.optimizer.weight_decay)
    set_learning_rate(optimizer, settings.optimizer.learning_rate)
    task = _OneBatch(settings, model)
    model.train()
    loop = LoopSettings(settings.optimizer.clip_norm, settings.precision, torch.device("cpu"))
    started = time.monotonic()
    found = training_step(task, optimizer, random_batch(), loop)
    seconds = time.monotonic() - started
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"exchanged values      {num_values / 1e6:.1f} M, of them {num_parameters / 1e6:.1f} M parameters")
    print(f"loss                  {found['loss']:.3f}   ({settings.precision})")
    print(f"one optimizer step    {seconds:.1f} s on {torch.get_num_threads()} threads")
    print(f"peak memory           {peak_gb:.1f} GB")
    print(f"without a gradient    {len(without)} of {len(list(model.parameters()))} trainable tensors {without[:5]}")
    return int(bool(without) or peak_gb >= 20 or round(num_parameters / 1e6, 1) != 178.8)


if __name__ == "__main__":
    sys.exit(main())
