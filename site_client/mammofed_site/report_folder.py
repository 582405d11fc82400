"""A folder of reports, one file an exam: text files named by accession number or study UID, and DICOM SR objects.

Any other file is passed over. What is counted, and under which words, is in docs/reports.md.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from mammofed_shared.dicom.structured_report import NoReport, StructuredReport, read_structured_report
from mammofed_shared.errors import DataError
from mammofed_shared.exam import Report
from mammofed_shared.pseudonyms import Pseudonyms
from mammofed_shared.report.birads import most_severe
from mammofed_shared.report.exam_facts import ExamFacts
from mammofed_shared.report.rows import Counts, decoded, is_identifier
from mammofed_shared.report.sections import split_report, without_boilerplate
from mammofed_shared.report.tables import Said

_MOST_BYTES = 1 << 20
_DICOM_MARK = 132


def read_report_folder(folder: Path, names: Pseudonyms, counts: Counts) -> Iterator[Said]:
    """What each report in a folder and its sub-folders says, in the order of paths; hidden files are not looked at.

    Raises:
        DataError: the folder cannot be read.
    """
    for path in sorted(_files(folder)):
        counts["files"] += 1
        if path.suffix.lower() == ".txt":
            said = _text_file(path, names, counts)
        elif _is_dicom(path):
            said = _dicom_file(path, names, counts)
        else:
            counts["passed_over"] += 1
            continue
        if said is not None:
            yield said


def _files(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"the folder `reports` cannot be read: {type(error).__name__}") from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent) / name for name in files if not name.startswith("."))


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(_DICOM_MARK)[128:] == b"DICM"
    except OSError:
        return False


def _text_file(path: Path, names: Pseudonyms, counts: Counts) -> Said | None:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError:
        counts["unreadable"] += 1
        return None
    if len(raw) > _MOST_BYTES:
        counts["too_large"] += 1
        return None
    if not is_identifier(path.stem):
        counts["no_identifier"] += 1
        return None
    text, is_utf8 = decoded(raw.removeprefix(b"\xef\xbb\xbf"))
    counts["not_utf8"] += not is_utf8
    report = split_report(text)
    if not (report.findings or report.impression):
        counts["no_text"] += 1
        return None
    counts["by_name"] += 1
    # Nobody knows which of the two the name is; the pseudonyms of the two kinds never meet.
    return (names.of("study", path.stem), names.of("accession", path.stem)), ExamFacts(report=report)


def _dicom_file(path: Path, names: Pseudonyms, counts: Counts) -> Said | None:
    found = read_structured_report(path)
    if isinstance(found, NoReport):
        counts[found.value] += 1
        return None
    keys = [
        names.of(kind, value)
        for kind, value in (("study", found.study), ("accession", found.accession))
        if is_identifier(value)
    ]
    if not keys:
        counts["no_identifier"] += 1
        return None
    counts["by_both" if len(keys) == 2 else "by_study" if is_identifier(found.study) else "by_accession"] += 1
    patient = names.of("patient", found.patient) if is_identifier(found.patient) else None
    report = _sections(found)
    facts = ExamFacts(
        report=report if report.findings or report.impression else None,
        birads=most_severe(found.birads),
        patient=patient,
        shifted_day=names.shifted_day(patient, found.study_date) if patient else None,
    )
    return tuple(keys), facts


def _sections(found: StructuredReport) -> Report:
    """The sections that codes name; where there are none, the text as its own headings divide it."""
    if found.findings or found.impression:
        return Report(without_boilerplate(found.findings), without_boilerplate(found.impression))
    return split_report(found.text)
