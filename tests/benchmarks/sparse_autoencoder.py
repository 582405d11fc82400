"""Steps of the task `sae` beside the bare matrix products that no such step can do without; the last line is the ratio.

    .venv/bin/python tests/benchmarks/sparse_autoencoder.py [--batch 2048] [--pairs 5] [--all-levels]

**Ours** is a step of a visit as the loop does it: forward pass with all nested codes, loss, gradients, their norm,
AdamW over 67 M parameters, the count of silent neurons. **Bare** are five products of whole matrices in the same
shapes, into memory that is there already: features by encoder, code by decoder, and the gradients of code, decoder and
encoder. They
are what an autoencoder with a single dense code needs: nested codes, choosing the largest numbers, normalising, losses
and the optimizer all count against ours. Both take turns in one process; the first pair is not counted. The ratio is
that of the best times, for others may use this machine too; the middle of the pairs is printed beside it.

Needs 4 GB. Ends with exit code 1 if the ratio is below 0.6.
"""

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from mammofed_shared.losses.sparsity import sparsity_loss
from mammofed_shared.models.nested_codes import EVERY_LEVEL, turns_of
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder
from mammofed_shared.training.engine import WholeModelEngine
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware

NUM_FEATURES, NUM_NEURONS = 2048, 16_384
LEVELS = (64, 256, 1024, 4096, 16_384)
LEAST_RATIO = 0.6


def products(features_BF: Tensor, code_BN: Tensor) -> Callable[[], None]:
    """The five products, as a function; all memory is taken before it is called."""
    weights_NF = torch.randn(NUM_NEURONS, NUM_FEATURES)
    given_BF, wanted_BN, gradient_NF = torch.empty_like(features_BF), torch.empty_like(code_BN), weights_NF.clone()

    def multiply() -> None:
        torch.mm(features_BF, weights_NF.T, out=wanted_BN)  # encode
        torch.mm(code_BN, weights_NF, out=given_BF)  # decode
        torch.mm(given_BF, weights_NF.T, out=wanted_BN)  # the code's gradient
        torch.mm(code_BN.T, features_BF, out=gradient_NF)  # the decoder's
        torch.mm(wanted_BN.T, features_BF, out=gradient_NF)  # the encoder's

    return multiply


def training(model: SparseAutoencoder, features_BF: Tensor, *, in_turn: bool) -> Callable[[], None]:
    """One step of a visit, as a function."""
    count = len(features_BF)
    turn_B, weight_B = map(torch.from_numpy, turns_of(count, len(model.wide_levels)))
    if not in_turn:
        turn_B, weight_B = torch.full((count,), EVERY_LEVEL), torch.ones(count)
    engine = WholeModelEngine(model, WorkerGroup(Hardware()), weight_decay=0.0, clip_norm=1.0, is_fp16=False)

    def step() -> None:
        error_B, sum_B, power_B = engine.forward((features_BF, turn_B, weight_B))[0].unbind(1)
        loss = sparsity_loss(error_B, sum_B, power_B, variant="paper", l1_weight=0.01).mean()
        with engine.chunk(is_last=True):
            engine.backward(loss)
        engine.step(1e-4)
        model.note_fired(model.fired)

    return step


def main() -> int:
    """Time both in turns and print what they took."""
    parser = argparse.ArgumentParser(description="Steps of the sparse autoencoder beside bare matrix products.")
    parser.add_argument("--batch", type=int, default=2048, help="patches of a step")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--all-levels", action="store_true", help="train wide levels on the whole batch each")
    arguments = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.manual_seed(0)
    features_BF = torch.randn(arguments.batch, NUM_FEATURES)
    model = SparseAutoencoder(NUM_FEATURES, NUM_NEURONS, LEVELS).train()
    step = training(model, features_BF, in_turn=not arguments.all_levels)
    multiply = products(features_BF, model.encode(features_BF))
    seconds = []
    for pair in range(arguments.pairs + 1):
        began_s = time.perf_counter()
        multiply()
        turned_s = time.perf_counter()
        step()
        if pair:
            seconds.append((turned_s - began_s, time.perf_counter() - turned_s))
    bare_s, ours_s = (min(column) for column in zip(*seconds, strict=True))
    middle = statistics.median(bare / ours for bare, ours in seconds)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"parameters    {num_parameters / 1e6:.1f} M, levels {', '.join(map(str, LEVELS))}")
    print(f"one step      {bare_s:.2f} s bare, {ours_s:.2f} s ours, on {torch.get_num_threads()} threads")
    print(f"patches/s     {arguments.batch / ours_s:.0f}")
    print(f"peak memory   {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9:.1f} GB of both")
    print(f"ratio {bare_s / ours_s:.2f} (middle of {len(seconds)} pairs {middle:.2f}; at least {LEAST_RATIO})")
    return int(bare_s / ours_s < LEAST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
