"""Which breasts stand in a batch together, and loading ahead."""

import time
from pathlib import Path

import numpy as np
import pytest

from mammofed_shared.data.batches import epoch_batches, loaded_ahead, num_batches
from mammofed_shared.exam import BreastSample, Exam, Image, Laterality, Report, Split, View


def sample(exam: str, laterality: Laterality) -> BreastSample:
    image = Image(f"{exam}{laterality}", laterality, View.CC, Path("none.png"), "other", "")
    record = Exam(exam, exam, "one", Split.TRAIN, Report("text", ""), (image,))
    return BreastSample(record, laterality, {View.CC: image})


def breasts(num_pairs: int, num_singles: int) -> list[BreastSample]:
    pairs = [sample(f"p{n}", side) for n in range(num_pairs) for side in Laterality]
    return pairs + [sample(f"s{n}", Laterality.L) for n in range(num_singles)]


@pytest.mark.parametrize(
    ("pairs", "singles", "batch_size"), [(120, 0, 16), (7, 3, 4), (1, 5, 16), (2, 0, 16), (0, 9, 4), (5, 0, 3)]
)
def test_an_epoch_covers_every_breast_once_and_no_batch_holds_two_of_an_exam(
    pairs: int, singles: int, batch_size: int
) -> None:
    samples = breasts(pairs, singles)
    for seed in range(20):
        batches = epoch_batches(samples, batch_size, np.random.default_rng(seed))

        assert sorted(index for batch in batches for index in batch) == list(range(len(samples)))
        assert len(batches) == num_batches(samples, batch_size)
        for batch in batches:
            assert len({samples[index].exam.exam for index in batch}) == len(batch) <= batch_size
        sizes = [len(batch) for batch in batches]
        assert max(sizes) - min(sizes) <= 1


def test_orders_differ_by_seed_and_repeat_for_one() -> None:
    samples = breasts(20, 0)

    first, again, other = (epoch_batches(samples, 8, np.random.default_rng(seed)) for seed in (1, 1, 2))

    assert first == again != other


def test_an_empty_set_has_no_batches() -> None:
    assert num_batches([], 16) == 0


def test_results_come_in_order_although_the_first_is_slowest() -> None:
    def work(number: int) -> int:
        time.sleep(0.02 if number == 0 else 0)
        return number

    tasks = [lambda number=number: work(number) for number in range(12)]

    assert list(loaded_ahead(tasks, 3)) == list(range(12))


def test_an_error_of_a_loader_is_raised_in_its_turn() -> None:
    def fail() -> int:
        raise RuntimeError("unreadable")

    loaded = loaded_ahead([lambda: 1, fail, lambda: 3], 2)

    assert next(loaded) == 1
    with pytest.raises(RuntimeError, match="unreadable"):
        next(loaded)
