"""Which exam of this site is meant by a pseudonym, an accession number or a study UID."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mammofed_shared.data.prepared import read_preprocessing
from mammofed_shared.errors import DataError
from mammofed_shared.pseudonyms import Pseudonyms
from mammofed_site.intake_journal import exams_of_accession


@dataclass(frozen=True, slots=True)
class FoundExam:
    """An exam: its data set, and its pseudonym."""

    dataset: str
    exam: str


def find_exam(prepared: Mapping[str, Path], names: Pseudonyms, given: str) -> FoundExam:
    """The exam that somebody at the site asks for.

    Args:
        prepared: name of a data set → its prepared folder.
        given: pseudonym, accession number or study UID.

    Raises:
        DataError: no data set has it, or several exams are meant; the message does not repeat it.
    """
    found: list[FoundExam] = []
    for name, folder in prepared.items():
        read_preprocessing(folder)  # a data set that is not prepared is said, not skipped
        wanted = {given, names.of("study", given), *exams_of_accession(folder, names.of("accession", given))}
        found += [FoundExam(name, exam) for exam in _exams_in(folder, wanted)]
    if not found:
        raise DataError(
            "no data set of this site has this exam: --exam takes an accession number, a study UID, or the pseudonym "
            "in exams.parquet; only exams with an accepted image are there"
        )
    if len(found) > 1:
        raise DataError(f"--exam stands for {len(found)} exams here: name one by its study UID or its pseudonym")
    return found[0]


def _exams_in(prepared: Path, wanted: Collection[str]) -> list[str]:
    try:
        rows = pq.read_table(prepared / "exams.parquet", columns=["exam"], filters=[("exam", "in", sorted(wanted))])
    except (OSError, pa.ArrowException) as error:
        raise DataError("a table of a data set cannot be read: run `site-client preprocess` again") from error
    return [str(exam) for exam in rows["exam"].to_pylist()]
