"""One step is the same step on any number of processes and in chunks of any size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.share import chunk_rows
from worker_groups import gradients, in_group

ONE = Hardware(threads=1)
TWO = Hardware(threads=1, distribution="ddp", num_processes=2)


def in_chunks(count: int, micro_batch: int | None, batch_norm: str = "frozen", **options: Any) -> dict[str, Any]:
    return gradients(Hardware(threads=1, micro_batch=micro_batch), count, batch_norm, options)


def largest_difference(found: dict[str, Any], expected: dict[str, Any]) -> float:
    """Largest difference of a gradient, relative to the largest gradient of its tensor."""
    assert found.keys() == expected.keys()
    return max(
        float(np.abs(found[name] - expected[name]).max() / (np.abs(expected[name]).max() + 1e-12))
        for name in expected
        if np.abs(expected[name]).max() > 1e-6
    )


@pytest.mark.parametrize("batch_norm", ["frozen", "sync"])
def test_two_processes_of_four_are_one_of_eight(tmp_path: Path, batch_norm: str) -> None:
    together = in_group(TWO, tmp_path, "gradients", 8, batch_norm, {})
    alone = in_chunks(8, None, batch_norm)

    for found in together:
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-5)
        assert largest_difference(found["grads"], alone["grads"]) < 1e-4
        for name, buffer in alone["buffers"].items():
            np.testing.assert_allclose(found["buffers"][name], buffer, rtol=1e-5, atol=1e-6)


def test_local_statistics_are_not_those_of_the_whole_batch(tmp_path: Path) -> None:
    together = in_group(TWO, tmp_path, "gradients", 8, "local", {})

    assert together[0]["losses"] != pytest.approx(in_chunks(8, None, "local")["losses"], rel=1e-5)


def test_processes_with_unequal_shares_and_chunks_are_one_process(tmp_path: Path) -> None:
    hardware = Hardware(threads=1, distribution="ddp", num_processes=2, micro_batch=2)

    together = in_group(hardware, tmp_path, "gradients", 7, "frozen", {})

    assert largest_difference(together[0]["grads"], in_chunks(7, None)["grads"]) < 1e-4


def test_a_batch_of_64_in_chunks_of_4_is_the_batch_of_64() -> None:
    whole, chunked = in_chunks(64, None), in_chunks(64, 4)

    assert chunked["losses"] == pytest.approx(whole["losses"], rel=1e-5)
    assert largest_difference(chunked["grads"], whole["grads"]) < 1e-5


@pytest.mark.parametrize("checkpointing", [False, True])
def test_both_passes_of_a_chunk_drop_the_same(checkpointing: bool) -> None:
    options = {"dropout": 0.5, "checkpointing": checkpointing}
    found = in_chunks(8, 2, **options)
    square = sum(float((grad.astype(np.float64) ** 2).sum()) for grad in found["grads"].values())
    step = 1e-2 / square
    moved_by = {name: -step * grad for name, grad in found["grads"].items()}

    # The gradient is the loss's own, that of the masks of the first pass: a step along it lowers the loss as it says.
    after = in_chunks(8, 2, moved_by=moved_by, **options)["losses"]["loss"]
    assert found["losses"]["loss"] - after == pytest.approx(1e-2, rel=0.05)
    assert in_chunks(8, 4, **options)["losses"]["loss"] != pytest.approx(found["losses"]["loss"], rel=1e-4)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_each_chunk_moves_the_running_statistics_once(checkpointing: bool) -> None:
    chunked = in_chunks(8, 4, "local", checkpointing=checkpointing)["buffers"]

    counted = {int(value) for name, value in chunked.items() if name.endswith("num_batches_tracked")}
    assert counted == {2}
    # The two chunks one after the other, as two ordinary passes would.
    plain = in_chunks(8, None, "local")["buffers"]
    means = [name for name in plain if name.endswith("running_mean")]
    first = means[0]
    np.testing.assert_allclose(chunked[first], plain[first] * (1 - 0.9**2) / 0.1, rtol=0.2, atol=0.02)


def test_every_process_has_as_many_chunks() -> None:
    for sizes in ((5, 4), (4, 4), (3, 2, 2), (1, 1), (9,)):
        for micro_batch in (None, 1, 2, 3, 8):
            chunks = [chunk_rows(sizes, rank, micro_batch) for rank in range(len(sizes))]

            assert len({len(rows) for rows in chunks}) == 1
            for rows, size in zip(chunks, sizes, strict=True):
                assert [index for part in rows for index in range(part.start, part.stop)] == list(range(size))
                assert all(part.stop > part.start for part in rows)
                assert max(part.stop - part.start for part in rows) <= (micro_batch or size) + 1
