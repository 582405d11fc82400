"""One release for equal data: the counts that a site has told once are told again, whoever asks.

    <site folder>/released-counts/<digest of the exact counts>.json    what was told, and under which least cell

Otherwise a second question under another ``policy.least_cell`` would uncover by comparison what the first one hid.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from mammofed_shared.config.base import Digest, Settings
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.files import write_whole
from mammofed_site.disclosure import Counts, protect


class Release(Settings):
    """What was told of data with these exact counts."""

    data: Digest
    """Of the exact counts."""
    least_cell: int
    """Of the site's policy when it was told first."""
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Told:
    """A release, and whether it is an old one."""

    release: Release
    is_repeated: bool


def tell_once(folder: Path, counts: Counts, least_cell: int) -> Told:
    """What a site may tell of its counts: what it told before, or else a release that is safe on disk now.

    Args:
        folder: of the site.

    Raises:
        Refused: POLICY, what was told before cannot be read, so it cannot be told again.
    """
    path = folder / "released-counts" / f"{counts.digest}.json"
    if path.exists():
        return Told(_read(path), is_repeated=True)
    release = Release(data=counts.digest, least_cell=least_cell, numbers=protect(counts, least_cell))
    write_whole(path, release.model_dump_json(indent=1), mode=0o600)
    return Told(release, is_repeated=False)


def _read(path: Path) -> Release:
    try:
        return Release.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise Refused(
            RefusalCode.POLICY,
            "what was told of these data before cannot be read: bring `released-counts` back from a backup, or remove "
            "the damaged file, so that it is told anew",
        ) from error
