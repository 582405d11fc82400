"""Contact sheets: some accepted images, suspicious ones by flag, refused files by reason, each with its number."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from mammofed_shared.dicom.pool import Lost, map_isolated
from mammofed_shared.dicom.reasons import Kind, Reason
from mammofed_site.quality.counts import Counts
from mammofed_site.quality.refused_picture import of_dicom
from mammofed_site.quality.sample import image_rows, sample_accepted, sample_by_reason, sample_flagged
from mammofed_site.quality.thumbnails import of_png

NUM_ACCEPTED, NUM_PER_FLAG, NUM_PER_REASON = 24, 12, 6
_TIMEOUT_S = 60.0
"""A picture is not worth longer; a full-size JPEG 2000 image takes a second."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a sheet as a data URI, or None where there is none; ``label`` is side and view, or empty."""

    number: int
    label: str
    vendor: str
    picture: str | None


@dataclass(frozen=True, slots=True)
class Sheet:
    """Some of the ``num_files`` files to which one reason applies."""

    reason: Reason
    num_files: int
    tiles: list[Tile]


def accepted_tiles(prepared: Path) -> list[Tile]:
    """Images of every vendor and view in turn, in the order of vendor, view and number."""
    numbers = sample_accepted(prepared, NUM_ACCEPTED).in_turn(NUM_ACCEPTED)
    tiles = _image_tiles(prepared, set(numbers)).values()
    return sorted(tiles, key=lambda tile: (tile.vendor, tile.label[2:], tile.number))


def flagged_sheets(prepared: Path, counts: Counts) -> list[Sheet]:
    """A sheet for each flag that some image has, in the order of ``reasons``."""
    sample = sample_flagged(prepared, NUM_PER_FLAG)
    tiles = _image_tiles(prepared, {number for flag in sample.groups() for number in sample.of(flag)})
    return [
        Sheet(reason, counts.flagged[reason], [tiles[number] for number in sorted(sample.of(reason))])
        for reason in Reason
        if reason.kind is Kind.FLAG and counts.flagged[reason]
    ]


def refused_sheets(prepared: Path, counts: Counts, files: Mapping[int, Path], workers: int) -> list[Sheet]:
    """A sheet for each reason that some file was refused for, in the order of ``reasons``.

    Args:
        files: the DICOM files to show, by number; one that is missing or cannot be decoded has no picture.
        workers: processes that decode.
    """
    sample = sample_by_reason(prepared, NUM_PER_REASON)
    pictures = _pictures(files, workers)
    return [
        Sheet(
            reason,
            counts.refused[reason],
            [Tile(number, "", "", pictures.get(number)) for number in sorted(sample.of(reason))],
        )
        for reason in Reason
        if counts.refused[reason]
    ]


def _image_tiles(prepared: Path, numbers: set[int]) -> dict[int, Tile]:
    return {
        number: Tile(
            number, f"{row['laterality']} {row['view']}", row["vendor"], _data_uri(of_png(prepared / row["path"]))
        )
        for number, row in image_rows(prepared, numbers).items()
    }


def _pictures(files: Mapping[int, Path], workers: int) -> dict[int, str | None]:
    """Pictures of DICOM files, decoded where a damaged one can kill nothing but its own process."""
    results = map_isolated(
        of_dicom, sorted(files.items()), workers=workers, timeout_s=_TIMEOUT_S, argument=itemgetter(1)
    )
    return {number: _data_uri(None if isinstance(result, Lost) else result) for (number, _), result in results}


def _data_uri(picture: bytes | None) -> str | None:
    return None if picture is None else f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
