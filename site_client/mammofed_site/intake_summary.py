"""What a run of the intake says of a data set: counts only, and the table that the terminal shows."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.table import Table

from mammofed_shared.dicom.reasons import BY_WORD
from mammofed_shared.exam import Split
from mammofed_site.prepared_rows import DecidedExam, flags_of

_ALWAYS = ("patients", "exams", "exams with text", "images")
"""Lines that are shown even where they are 0."""


@dataclass(slots=True)
class Summary:
    """What a data set holds after a run.

    ``refused``, ``flagged`` and ``scrubbed`` map words to files or reports; ``splits`` and ``cohort`` map parts to
    exams; ``num_of_another`` exams have another patient in the tables than in the images; ``tables`` says what was
    read of the hospital's own tables, in the words of docs/reports.md; ``num_decoded`` of the ``num_files`` were new
    or changed.
    """

    dataset: str
    is_dry: bool = False
    num_files: int = 0
    num_decoded: int = 0
    num_images: int = 0
    num_exams: int = 0
    num_patients: int = 0
    num_of_another: int = 0
    texts_by_split: Counter[Split] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    cohort: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    flagged: Counter[str] = field(default_factory=Counter)
    scrubbed: Counter[str] = field(default_factory=Counter)
    tables: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    duration_s: float = 0.0

    def count(self, exam: DecidedExam) -> None:
        """Count an exam and its images; refusals are counted by reason in ``refused``."""
        self.num_of_another += exam.is_of_another
        for image in exam.images:
            self.num_images += 1
            self.flagged.update(flags_of(image))
        if exam.row is not None:
            self.num_exams += 1
            if exam.row["text_origin"] is not None:
                self.texts_by_split[Split(exam.row["split"])] += 1
            self.splits[exam.row["split"]] += 1
            self.scrubbed.update(word for word in exam.row["scrubbed"].split(";") if word)
            if exam.row["cohort"] is not None:
                self.cohort[exam.row["cohort"]] += 1


def summary_table(site: str, summary: Summary) -> Table:
    """The counts of a run by reason, for the terminal."""
    verb = "would be decoded" if summary.is_dry else "of them new"
    title = f"{site} · {summary.dataset}: {summary.num_files:,} files, {summary.num_decoded:,} {verb}"
    table = Table("answer", "count", "meaning", title=title, title_justify="left")
    lines = [
        ("patients", summary.num_patients, ""),
        ("exams", summary.num_exams, ""),
        *((f"exams for {split}", count, "") for split, count in sorted(summary.splits.items())),
        *((f"{part} exams", count, "by the case definition") for part, count in sorted(summary.cohort.items())),
        ("exams of another patient", summary.num_of_another, "by the tables, of which nothing is taken for them"),
        ("exams with text", summary.texts_by_split.total(), ""),
        *(
            (f"reports with a {kind}", count, "identifiers in the text")
            for kind, count in sorted(summary.scrubbed.items())
        ),
        ("images", summary.num_images, ""),
        *((f"flagged: {word}", count, BY_WORD[word].sentence) for word, count in summary.flagged.most_common()),
        *((f"refused: {word}", count, BY_WORD[word].sentence) for word, count in summary.refused.most_common()),
        *(
            (f"{table}: {word}", count, "")
            for table, counts in summary.tables.items()
            for word, count in counts.items()
        ),
    ]
    for name, count, meaning in lines:
        if count or name in _ALWAYS:
            table.add_row(name, f"{count:,}", meaning)
    return table
