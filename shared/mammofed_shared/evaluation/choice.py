"""Which exams stand for a large split: always the same ones, whoever asks."""

import hashlib
from collections.abc import Sequence

from mammofed_shared.exam import Exam


def fixed_choice(exams: Sequence[Exam], most: int) -> list[Exam]:
    """At most so many exams, in the order in which they came.

    They are those of the lowest hash of data set and pseudonym: an exam that is added moves at most one out.
    """
    if len(exams) <= most:
        return list(exams)
    chosen = set(sorted(range(len(exams)), key=lambda index: _hash(exams[index]))[:most])
    return [exam for index, exam in enumerate(exams) if index in chosen]


def _hash(exam: Exam) -> bytes:
    return hashlib.sha256(f"{exam.dataset}/{exam.exam}".encode()).digest()
