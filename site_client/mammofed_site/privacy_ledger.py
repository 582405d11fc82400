"""What this site has spent of its privacy: one JSON line for each release, safe on disk before anything leaves.

<site folder>/privacy-ledger.jsonl

Nothing ever takes a line back, whatever became of its release. A last line in whose midst the machine went down is of
a release that did not happen, and is cut off. A file with any other damage makes the site refuse until a person has
mended it. Keep it with your backups: without it the site would begin to count from 0.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from mammofed_shared.config.base import Digest, Settings
from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.files import fsync_folder, write_all

LEDGER_FILE = "privacy-ledger.jsonl"


class Spending(Settings):
    """One release and what it cost."""

    release: Digest
    """Names what was released; the same one is paid once."""
    task: str
    mechanism: Literal["update_noise", "dp_sgd"]
    noise_multiplier: float = Field(gt=0)
    sample_rate: float = Field(1.0, gt=0, le=1)
    """Of patients in a step (`dp_sgd`)."""
    steps: int = Field(1, ge=1)
    epsilon: float = Field(ge=0)
    """Of all releases up to this one, at ``delta``."""
    delta: float
    time: str


def read_spendings(folder: Path) -> tuple[Spending, ...]:
    """All that the site whose folder this is has spent.

    Raises:
        Refused: PRIVACY_BUDGET, the file is damaged, so that nobody knows what was spent.
    """
    path = folder / LEDGER_FILE
    if not path.exists():
        return ()
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    try:
        return tuple(Spending.model_validate_json(line) for line in whole.split(b"\n") if line)
    except ValidationError as error:
        raise Refused(
            RefusalCode.PRIVACY_BUDGET,
            f"{LEDGER_FILE} is damaged, so what was spent is not known: bring it back from a backup",
        ) from error


def spend(folder: Path, spending: Spending) -> None:
    """Enter a release; returns when the line is safe on disk."""
    path = folder / LEDGER_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        whole, newline, _ = file.readall().rpartition(b"\n")
        end = len(whole) + len(newline)
        file.truncate(end)  # what is behind the last whole line was never released
        file.seek(end)
        write_all(file, spending.model_dump_json().encode() + b"\n")
        os.fsync(file.fileno())
    if is_new:
        fsync_folder(path.parent)


def is_paid(spendings: Sequence[Spending], release: str) -> bool:
    """Whether a release was entered before."""
    return any(spending.release == release for spending in spendings)
