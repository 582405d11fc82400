"""A ledger grows line by line; what was written cannot be changed, moved or taken out unseen."""

import errno
import json
from io import FileIO
from pathlib import Path

import pytest

from mammofed_shared import ledger as ledger_module
from mammofed_shared.errors import StateError
from mammofed_shared.ledger import Ledger, LineSignature, line_digest
from mammofed_shared.ledger_check import Finding, Neighbours, differences, read_chain


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for number in range(4):
        ledger.append({"kind": "counted", "count": number})
    return tmp_path / "ledger.jsonl"


def _told(path: Path) -> list[tuple[str, str]]:
    return [(item.where, item.what) for item in read_chain(path)[1]]


def test_lines_are_read_as_they_were_written_and_go_on(path: Path) -> None:
    ledger = Ledger(path)
    assert [line.entry["count"] for line in ledger.lines] == [0, 1, 2, 3]
    line = ledger.append({"kind": "counted", "count": 4})
    assert (line.number, line.previous) == (5, ledger.lines[3].digest)
    lines, findings = read_chain(path)
    assert lines == ledger.lines and findings == []


def test_a_digest_does_not_depend_on_the_signature_which_is_another_each_time(tmp_path: Path) -> None:
    signature = LineSignature(by="a" * 64, at="2026-01-01T00:00:00Z", value="AA==")
    signed = Ledger(tmp_path / "signed", lambda digest: signature).append({"kind": "x"})
    unsigned = Ledger(tmp_path / "unsigned").append({"kind": "x"})
    assert signed.digest == unsigned.digest == line_digest(1, None, {"kind": "x"})
    assert signed.signature == signature


def test_half_a_line_that_a_full_disk_took_is_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, ledger = path.read_bytes(), Ledger(path)

    def fill_up(file: FileIO, data: bytes) -> None:
        file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as full:
        full.setattr(ledger_module, "write_all", fill_up)
        with pytest.raises(OSError, match="full"):
            ledger.append({"kind": "counted", "count": 4})
    assert path.read_bytes() == before
    ledger.append({"kind": "counted", "count": 4})
    assert read_chain(path) == (Ledger(path).lines, []) and len(ledger.lines) == 5


@pytest.mark.parametrize("cut", [1, 30])
def test_a_line_that_a_kill_has_cut_is_written_anew(path: Path, cut: int) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert read_chain(path)[1] == [
        Finding("incomplete", "ledger.jsonl, line 4", "it is cut, as a kill leaves it; the next start of whoever "
                "keeps it mends it")
    ]  # fmt: skip
    ledger = Ledger(path)
    assert len(ledger.lines) == 3
    ledger.append({"kind": "counted", "count": 3})
    assert path.read_bytes() == whole


def test_nothing_goes_on_from_a_ledger_that_was_changed(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"count":2', b'"count":7'))
    with pytest.raises(StateError, match=r"ledger\.jsonl, line 3: it is not what was written"):
        Ledger(path)


def test_each_changed_byte_is_told_by_its_line(path: Path) -> None:
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[place] ^= 0x11
        path.write_bytes(changed)
        line = whole.count(b"\n", 0, place) + 1
        assert any(where == f"ledger.jsonl, line {line}" for where, _ in _told(path)), place


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (b'"count":1', b'"count":8', "field number, previous or entry"),
        (b'"number":2', b'"number":6', "field number, previous or entry"),
        (b'"count":1', b'"count": 1', "written otherwise"),
        (b'"count":1', b'"count"x1', "field entry.count: from there on it is no JSON"),
        (b'"count":1', b'"count":\xff', "field entry.count: it is no letter"),
    ],
)
def test_a_broken_line_is_told_as_far_as_it_alone_tells(path: Path, old: bytes, new: bytes, what: str) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(old, new)
    path.write_bytes(b"\n".join(lines))
    ((where, told),) = _told(path)
    assert where == "ledger.jsonl, line 2" and what in told


def test_a_line_whose_digest_alone_was_changed_is_told_by_the_next_one(path: Path) -> None:
    lines = path.read_bytes().split(b"\n")
    digest = json.loads(lines[1])["digest"]
    lines[1] = lines[1].replace(digest.encode(), b"0" * 64)
    path.write_bytes(b"\n".join(lines))
    assert _told(path) == [("ledger.jsonl, line 2", "field digest: it is not that of the line")]


def test_where_the_entry_can_be_derived_the_byte_is_told(path: Path) -> None:
    lines = path.read_bytes().split(b"\n")
    place = lines[2].index(b'"count":2') + len(b'"count":')
    lines[2] = lines[2].replace(b'"count":2', b'"count":5')
    path.write_bytes(b"\n".join(lines))

    def derive(around: Neighbours) -> dict[str, object]:
        assert around.number == 3 and around.entry == {"kind": "counted", "count": 5}
        return {"kind": "counted", "count": 2}

    (finding,) = read_chain(path, derive)[1]
    assert finding.what == f"byte {place + 1} of the line, field entry.count: expected 0x32, found 0x35"


@pytest.mark.parametrize(
    ("order", "what"),
    [
        ([0, 2, 3], "expected 2, found 3"),
        ([1, 2, 3], "expected 1, found 2"),
        ([0, 1, 1, 2, 3], "expected 3, found 2"),
        ([0, 2, 1, 3], "expected 2, found 3"),
    ],
    ids=["one is taken out", "the first is taken out", "one is doubled", "two change places"],
)
def test_lines_stand_in_their_order(path: Path, order: list[int], what: str) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[index] for index in order))
    assert what in _told(path)[0][1]


def test_a_line_that_somebody_made_fit_by_itself_does_not_fit_the_next(path: Path, tmp_path: Path) -> None:
    forged = Ledger(tmp_path / "forged")
    for number in (0, 1, 7):
        forged.append({"kind": "counted", "count": number})
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = (tmp_path / "forged").read_bytes().splitlines(keepends=True)[2]
    path.write_bytes(b"".join(lines))
    ((where, what),) = _told(path)
    assert where == "ledger.jsonl, line 4" and "that one was replaced" in what


def test_a_ledger_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert read_chain(tmp_path / "none") == ([], [])
    assert Ledger(tmp_path / "none").head is None


def test_differences_are_told_by_their_fields() -> None:
    one = {"a": 1, "b": [{"c": 1}, 2], "d": {"e": 1.0}}
    other = {"a": 1, "b": [{"c": 3}, 2], "d": {"f": 1.0}}
    assert differences(one, one) == []
    assert differences(one, other) == ["b.0.c", "d.e", "d.f"]
    assert differences([1], [1, 2]) == [""]
