"""Our training step beside a bare PyTorch loop of the same model, batch and precision; the last line is their ratio.

    .venv/bin/python tests/benchmarks/train_step.py [--preset demo] [--pairs 40]
    .venv/bin/python tests/benchmarks/train_step.py --preset paper --pairs 5

**Ours** is the loop of a visit (``training/loop.py``) with all that it does around a step: seeds, statistics noted in
case the step must be skipped, the graph cut at the embeddings, losses by data set, progress. **Bare** is what one would
write by hand: embed, loss, backward, clip, AdamW. Both start from the same weights and see the same batch; they take
turns, step by step, in one process, so that a machine that is busy at times is busy for both. The first pair is not
counted. A ratio is that of one pair's two times; their median is printed with the middle half.

Preset ``demo`` is the demo's model. Preset ``paper`` is EfficientNet-B5 and ModernBERT-base with random weights (the
configuration is written here, nothing is downloaded) at 1520 × 912, batch 2, with activation checkpointing; it needs
14 GB and about 1 minute a pair. Its parameters are counted, and each must have a gradient. On a CPU it is computed in
fp32: without units for bf16, one step of the preset's precision did not end in 4 minutes.

Ends with exit code 1 if the median ratio is above 1.03, or preset ``paper`` is not what it should be.
"""

import argparse
import json
import math
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from mammofed_shared.config.loading import load
from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.config.run import RunSettings
from mammofed_shared.losses.contrastive import mvs_loss
from mammofed_shared.training.engine_of import make_engine
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.loop import Clock, LoopSettings, Position, train_epochs
from mammofed_shared.training.optim import parameter_groups
from mammofed_shared.training.pretrain import PretrainTask, build_model
from mammofed_shared.training.share import Share

REPOSITORY = Path(__file__).parents[2]
MOST_OF_BARE = 1.03
PAPER_PARAMETERS_M = 178.8
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


def settings_of(preset: str) -> tuple[PretrainSettings, tuple[int, int], int]:
    """Settings of the preset's YAML with random weights, the images' (height, width), and the number of words."""
    run = load(REPOSITORY / f"configs/run/{preset}.yaml", RunSettings, [])
    task = run.task
    assert isinstance(task, PretrainSettings)
    changes = {
        "image_encoder": task.image_encoder.model_copy(update={"weights": "none"}),
        "text_encoder": task.text_encoder.model_copy(update={"weights": "none"}),
        "precision": "fp32",
    }
    if preset == "paper":
        changes["batch_size"] = 2
    num_words = MODERNBERT_BASE["vocab_size"] if preset == "paper" else 100
    return task.model_copy(update=changes), (run.preprocessing.height, run.preprocessing.width), int(str(num_words))


def make_model(preset: str, settings: PretrainSettings) -> nn.Module:
    """The preset's model, with the same random weights at every call."""
    torch.manual_seed(0)
    if preset == "demo":
        return build_model(settings, REPOSITORY / "configs/text_encoder/demo", False)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODERNBERT_BASE))
        return build_model(settings, Path(folder), False)


class Bare:
    """The loop that one would write by hand."""

    def __init__(self, model: nn.Module, settings: PretrainSettings, share: Share) -> None:
        self.model = model.train()
        self._settings = settings
        self._share = share
        optimizer = settings.optimizer
        self._optimizer = torch.optim.AdamW(
            parameter_groups(model, optimizer.weight_decay), lr=optimizer.learning_rate, fused=True
        )

    def step(self) -> float:
        """One step; gives its loss."""
        self._optimizer.zero_grad(set_to_none=True)
        images, texts, log_scale = self.model(*(torch.from_numpy(array) for array in self._share.inputs))
        loss = mvs_loss(images[:, 0], images[:, 1], texts[:, 0], texts[:, 1], log_scale[:1].exp()).total
        loss.backward()
        clip_grad_norm_(self.model.parameters(), self._settings.optimizer.clip_norm)
        self._optimizer.step()
        return float(loss.detach())


class InTurns(PretrainTask):
    """Our task on one batch; while the loop waits for it, the bare loop has its turn."""

    def __init__(self, settings: PretrainSettings, model: nn.Module, bare: Bare, share: Share, num_pairs: int) -> None:
        self.settings = settings
        self.model = model
        self.seconds: list[tuple[float, float]] = []
        self._bare = bare
        self._share = share
        self._num_pairs = num_pairs

    @property
    def num_steps(self) -> int:
        """One step a pair, and an uncounted one before."""
        return self._num_pairs + 1

    def shares(self, seed: int, epoch: int, start: int) -> Iterator[Share]:
        """The same batch again and again; notes the seconds of both."""
        for pair in range(self.num_steps):
            began_s = time.perf_counter()
            self._bare.step()
            turned_s = time.perf_counter()
            yield self._share
            ended_s = time.perf_counter()
            if pair:
                self.seconds.append((turned_s - began_s, ended_s - turned_s))


def random_share(settings: PretrainSettings, size: tuple[int, int], num_words: int) -> Share:
    """A batch of random images and texts."""
    random = np.random.default_rng(0)
    count = settings.batch_size
    num_tokens = min(NUM_TOKENS, settings.text_encoder.max_tokens)
    greys = random.integers(0, 256, (count, 2, *size), dtype=np.uint8)
    ids = random.integers(5, min(num_words, 50280) - 20, (count, 2, num_tokens))
    return Share((greys, ids, np.ones_like(ids)), (count,), np.zeros(count, np.int64))


def main() -> int:
    """Run both loops in turns and print what they took."""
    parser = argparse.ArgumentParser(description="Our training step beside a bare PyTorch loop.")
    parser.add_argument("--preset", choices=("demo", "paper"), default="demo")
    parser.add_argument("--pairs", type=int, default=40)
    arguments = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    settings, size, num_words = settings_of(arguments.preset)
    share = random_share(settings, size, num_words)
    group = WorkerGroup(Hardware(threads=torch.get_num_threads()))
    bare = Bare(make_model(arguments.preset, settings), settings, share)
    task = InTurns(settings, make_model(arguments.preset, settings), bare, share, arguments.pairs)
    engine = make_engine(task.model, group, settings.optimizer, settings.precision)
    position = Position()
    train_epochs(
        task,
        engine,
        group,
        LoopSettings(settings.precision, None, settings.optimizer.most_skipped),
        position,
        Clock(),
        learning_rate_at=lambda epochs: settings.optimizer.learning_rate,
        epochs=1,
        seed=0,
        report=lambda progress: None,
        save_if_due=lambda position: None,
    )
    is_right = all(math.isfinite(value) for value in position.means().values())
    num_parameters = sum(parameter.numel() for parameter in task.model.parameters())
    moved = sum(moments.second.any() for moments in engine.moments())
    without = len(list(task.model.parameters())) - int(moved)
    print(f"parameters            {num_parameters / 1e6:.1f} M, {without} tensors without a gradient")
    if arguments.preset == "paper":
        is_right &= not without and round(num_parameters / 1e6, 1) == PAPER_PARAMETERS_M
    bare_s, ours_s = (statistics.median(column) for column in zip(*task.seconds, strict=True))
    ratios = sorted(ours / own for own, ours in task.seconds)
    middle = statistics.quantiles(ratios, n=4)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"loss                  {position.means()['loss']:.3f} (mean), precision {settings.precision}")
    print(f"one step              {bare_s:.3f} s bare, {ours_s:.3f} s ours, on {torch.get_num_threads()} threads")
    print(f"peak memory of both   {peak_gb:.1f} GB")
    median = statistics.median(ratios)
    print(f"ratio {median:.3f} ({middle[0]:.3f}–{middle[2]:.3f}, {len(ratios)} pairs; at most {MOST_OF_BARE})")
    return int(not is_right or median > MOST_OF_BARE)


if __name__ == "__main__":
    sys.exit(main())
