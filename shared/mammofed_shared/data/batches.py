"""Batches of an epoch: which samples stand together, and loading them ahead of the step that needs them."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np

from mammofed_shared.exam import Exam

T = TypeVar("T")


class Sample(Protocol):
    """A breast, a report: whatever belongs to one exam."""

    @property
    def exam(self) -> Exam:
        """The exam."""


def num_batches(samples: Sequence[Sample], batch_size: int) -> int:
    """Number of batches of an epoch: as few as ``batch_size`` and one breast of an exam a batch allow."""
    if not samples:
        return 0
    per_exam = Counter(_exam_of(sample) for sample in samples)
    return max(-(-len(samples) // batch_size), max(per_exam.values()))


def epoch_batches(samples: Sequence[Sample], batch_size: int, random: np.random.Generator) -> list[list[int]]:
    """Indices of the samples of each batch of one epoch.

    Every breast stands in exactly one batch; two breasts of an exam never stand in the same one, because with one
    text for both they would be false negatives of each other; sizes differ by at most one.
    """
    breasts: dict[tuple[str, str], list[int]] = {}
    for index, sample in enumerate(samples):
        breasts.setdefault(_exam_of(sample), []).append(index)
    exams = list(breasts.values())
    in_line = [
        exams[exam][breast]
        for exam in random.permutation(len(exams))
        for breast in random.permutation(len(exams[exam]))
    ]
    # Dealt like cards: neighbours in line, so the breasts of an exam, go to different batches.
    count = num_batches(samples, batch_size)
    batches = [in_line[start::count] for start in range(count)]
    return [batches[index] for index in random.permutation(count)]


def loaded_ahead(tasks: Sequence[Callable[[], T]], num_loaders: int) -> Iterator[T]:
    """Results of the tasks in their order, each computed by threads while earlier ones are used.

    Order and results do not depend on the number of threads. An error of a task is raised in its turn.
    """
    waiting = deque(tasks)
    running: deque[Future[T]] = deque()
    with ThreadPoolExecutor(num_loaders, thread_name_prefix="loader") as pool:
        try:
            while waiting or running:
                while waiting and len(running) <= num_loaders:
                    running.append(pool.submit(waiting.popleft()))
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _exam_of(sample: Sample) -> tuple[str, str]:
    return sample.exam.dataset, sample.exam.exam
