"""The quality page itself: counts, charts and sheets laid into one HTML file that needs no network and no script."""

from collections.abc import Mapping
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup

from mammofed_shared.dicom.reasons import Kind, Reason
from mammofed_shared.files import write_whole
from mammofed_site.quality.charts import Bar, bars, histogram, in_bins, most_frequent
from mammofed_site.quality.counts import NUM_GREY_BINS, UNKNOWN, Counts, count
from mammofed_site.quality.sample import sample_by_reason
from mammofed_site.quality.sheets import NUM_PER_REASON, accepted_tiles, flagged_sheets, refused_sheets

_TEMPLATE = "page.html.j2"
_BIN_WORDS, _NUM_WORD_BINS = 20, 20
"""Width and number of the bins of report lengths."""
_COUNTED = {
    "vendor": ("Vendor", "images"),
    "view": ("View", "images"),
    "laterality": ("Side", "images"),
    "intent": ("Intent by the header", "images"),
    "window": ("Window that was applied", "images"),
    "density": ("Density", "exams"),
    "birads": ("BI-RADS category", "exams"),
    "kind": ("Kind", "exams"),
    "split": ("Part of the cohort", "exams"),
}
"""Column → its heading, and of what the counts are."""


def sample_refused(prepared: Path, per_reason: int = NUM_PER_REASON) -> list[int]:
    """Numbers of refused files that are worth a picture: some of every reason, equal for equal tables."""
    sample = sample_by_reason(prepared, per_reason)
    return sorted(number for reason in sample.groups() for number in sample.of(reason))


def write_quality_page(
    out: Path, *, site: str, dataset: str, prepared: Path, refused_files: Mapping[int, Path], workers: int
) -> None:
    """Write the page of one prepared data set; equal tables and files give equal bytes.

    Args:
        out: the HTML file; its folder is made.
        site, dataset: their names.
        prepared: folder of the prepared data set.
        refused_files: the DICOM files of ``sample_refused``, by number.
        workers: processes that decode them.

    Raises:
        DataError: a table is missing, or was written by another version.
    """
    counts = count(prepared)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": "{:,}".format, "share": _share}
    page = environment.get_template(_TEMPLATE).render(
        site=site,
        dataset=dataset,
        counts=counts,
        errors=_reasons(counts, Kind.ERROR),
        skips=_reasons(counts, Kind.SKIP),
        flags=_reasons(counts, Kind.FLAG),
        tables=_tables(counts),
        vendors=_vendors(counts),
        report_lengths=_report_lengths(counts),
        median_words=_median(counts),
        text_origins=_in_order(counts, "text_origin"),
        accepted=accepted_tiles(prepared),
        suspicious=flagged_sheets(prepared, counts),
        refused=refused_sheets(prepared, counts, refused_files, workers),
    )
    write_whole(out, page)


def _reasons(counts: Counts, kind: Kind) -> list[tuple[Reason, int]]:
    """Reasons of one kind that occur, the most frequent first."""
    numbers = counts.flagged if kind is Kind.FLAG else counts.refused
    found = [(reason, numbers[reason]) for reason in Reason if reason.kind is kind and numbers[reason]]
    return sorted(found, key=lambda item: (-item[1], item[0].value))


def _tables(counts: Counts) -> list[tuple[str, str, Markup]]:
    """Heading, unit and bars of every column that is counted."""
    return [
        (heading, unit, bars(f"{heading}, {unit}", _in_order(counts, column)))
        for column, (heading, unit) in _COUNTED.items()
    ]


def _in_order(counts: Counts, column: str) -> list[Bar]:
    """Words of a column with their counts: in alphabetical order, the unknown last."""
    return sorted(counts.words[column].items(), key=lambda item: (item[0] == UNKNOWN, item[0]))


def _vendors(counts: Counts) -> list[tuple[str, int, Markup, Markup]]:
    """Of each vendor: name, number of images, histogram of grey values, sizes."""
    ticks = [(index, str(index * 256 // NUM_GREY_BINS)) for index in range(0, NUM_GREY_BINS + 1, 4)]
    return [
        (
            vendor,
            number,
            histogram(
                f"Grey values of the breast, {vendor}", counts.grey[vendor].tolist(), ticks, "grey value of the breast"
            ),
            bars(f"Stored sizes, {vendor}", most_frequent(counts.sizes[vendor])),
        )
        for vendor, number in _in_order(counts, "vendor")
    ]


def _report_lengths(counts: Counts) -> Markup:
    ticks = [(index, str(index * _BIN_WORDS)) for index in range(0, _NUM_WORD_BINS, 5)]
    ticks.append((_NUM_WORD_BINS - 1, f"{(_NUM_WORD_BINS - 1) * _BIN_WORDS}+"))
    values = in_bins(counts.report_lengths, _BIN_WORDS, _NUM_WORD_BINS)
    return histogram("Lengths of the texts in words", values, ticks, "words of findings and impression")


def _median(counts: Counts) -> int:
    """The middle length of the texts in words."""
    return int(np.searchsorted(np.cumsum(counts.report_lengths), (counts.num_texts + 1) // 2))


def _share(number: int, total: int) -> str:
    """A share in percent; what is there at all is never 0."""
    share = 100 * number / total if total else 0.0
    return "< 0.1 %" if 0 < share < 0.1 else f"{share:.1f} %"
