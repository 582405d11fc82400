"""Reads a ledger that may have been changed, and says where: by line, by field and, where the entry can be derived from
elsewhere, by byte."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from mammofed_shared.canonical import canonical
from mammofed_shared.json_place import field_at
from mammofed_shared.ledger import Line, line_digest, raw_lines

Severity = Literal["tampered", "incomplete", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be: where, and what."""

    severity: Severity
    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What is known of a broken line from around it."""

    number: int
    previous: str | None
    """Digest of the line before."""
    digest: str | None
    """What the line after it says that its digest is."""
    entry: dict[str, Any] | None
    """The broken line's own, if it can be read."""


Derive = Callable[[Neighbours], dict[str, Any] | None]
"""Gives the entry that a broken line should have."""


def nothing_to_derive(around: Neighbours) -> None:
    """For a ledger whose entries stand nowhere else."""


def read_chain(path: Path, derive: Derive = nothing_to_derive) -> tuple[list[Line], list[Finding]]:
    """The intact lines of a ledger, and a finding for each place where the chain does not hold. Signatures are not
    looked at."""
    raws = [raw for _, raw in raw_lines(path)]
    findings: list[Finding] = []
    if raws and not _ends_with_line(path):
        raws.pop()
        findings.append(
            Finding(
                "incomplete",
                f"{path.name}, line {len(raws) + 1}",
                "it is cut, as a kill leaves it; the next start of whoever keeps it mends it",
            )
        )
    lines = [_parse(raw) for raw in raws]
    intact: list[Line] = []
    head: str | None = None
    is_known = True  # whether the line before could be read
    for index, (raw, line) in enumerate(zip(raws, lines, strict=True)):
        following = lines[index + 1] if index + 1 < len(lines) else None
        number = intact[-1].number + 1 if intact and is_known else index + 1
        if line is not None and line.text == raw and line.digest == line.computed:
            if is_known and (line.number, line.previous) != (number, head):
                findings.append(Finding("tampered", _where(path, index), _does_not_follow(line, number, head)))
            intact.append(line)
            head, is_known = line.digest, True
            continue
        around = Neighbours(
            number=number,
            previous=head if is_known or line is None else line.previous,
            digest=following.previous if following is not None else None,
            entry=line.entry if line is not None else None,
        )
        findings.append(Finding("tampered", _where(path, index), _place(raw, line, around, derive(around))))
        head, is_known = None, False
    return intact, findings


def _where(path: Path, index: int) -> str:
    return f"{path.name}, line {index + 1}"


def _ends_with_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _parse(raw: bytes) -> Line | None:
    try:
        return Line.model_validate_json(raw)
    except ValidationError:
        return None


def _does_not_follow(line: Line, number: int, head: str | None) -> str:
    if line.number != number:
        return f"field number: expected {number}, found {line.number}; lines are missing, doubled or in another order"
    return f"field previous: it names {line.previous}, the line before is {head}; that one was replaced"


def _place(raw: bytes, line: Line | None, around: Neighbours, derived: dict[str, Any] | None) -> str:
    """Where a broken line differs from what it should be."""
    if derived is not None:
        digest = around.digest or line_digest(around.number, around.previous, derived)
        whole = Line(number=around.number, previous=around.previous, entry=derived, digest=digest)
        wanted = whole.text.removesuffix(b"null}")  # the signature, which cannot be derived, comes last
        for offset, expected in enumerate(wanted):
            found = raw[offset] if offset < len(raw) else None
            if found != expected:
                shown = "nothing" if found is None else f"0x{found:02x}"
                field = field_at(raw, offset)
                return f"byte {offset + 1} of the line, field {field}: expected 0x{expected:02x}, found {shown}"
        return "field signature: it cannot be read, or is written otherwise than it was"
    if line is None:
        return _unreadable(raw)
    if line.text != raw:
        return "it is written otherwise than it was"
    if around.digest is not None and around.digest == line.computed:
        return "field digest: it is not that of the line"
    return "field number, previous or entry: the digest is of other words than these"


def _unreadable(raw: bytes) -> str:
    try:
        json.loads(raw)
    except UnicodeDecodeError as error:
        return f"byte {error.start + 1} of the line, field {field_at(raw, error.start)}: it is no letter"
    except json.JSONDecodeError as error:
        offset = len(error.doc[: error.pos].encode())
        return f"byte {offset + 1} of the line, field {field_at(raw, max(offset - 1, 0))}: from there on it is no JSON"
    except RecursionError:
        return "it is no JSON"
    return "it is JSON, but no line of a ledger"


def differences(expected: Any, found: Any, path: str = "") -> list[str]:
    """The fields in which two pieces of JSON data differ, each as ``path``."""
    if isinstance(expected, dict) and isinstance(found, dict):
        names = sorted({*expected, *found})
        parts = [(name, expected.get(name), found.get(name)) for name in names]
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        parts = [(str(index), *pair) for index, pair in enumerate(zip(expected, found, strict=True))]
    else:
        return [] if canonical(expected) == canonical(found) else [path]
    return [item for name, one, other in parts for item in differences(one, other, f"{path}.{name}".lstrip("."))]
