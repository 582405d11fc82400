"""One round of each attack of ``make fuzz-service``, by a fixed seed, while another site works."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fuzz_service
from attacks import AS_IT_IS, READ, Attack
from fuzz_service import BEGIN, DOCUMENT, END, Finding, HonestSite, Target, table, write_between


@pytest.fixture(scope="module")
def reader() -> Iterator[Target]:
    """A coordinator whose limit of calls a second is lifted."""
    with fuzz_service.target("any-rate") as running:
        yield running


@pytest.fixture(scope="module")
def guarded() -> Iterator[Target]:
    """A coordinator as it is."""
    with fuzz_service.target() as running:
        yield running


@pytest.mark.parametrize("act", READ, ids=lambda act: act.__name__)
def test_what_a_hostile_site_says_harms_nobody(reader: Target, act: Attack) -> None:
    assert fuzz_service.attack(reader, HonestSite(reader), act, seed=1, rounds=2, seconds=0).wrong == []


@pytest.mark.parametrize("act", AS_IT_IS, ids=lambda act: act.__name__)
def test_how_much_a_hostile_site_says_harms_nobody(guarded: Target, act: Attack) -> None:
    assert fuzz_service.attack(guarded, HonestSite(guarded), act, seed=1, rounds=1, seconds=0).wrong == []


def test_the_table_in_the_documents_has_a_row_of_each_attack() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    generated = text[text.index(BEGIN) : text.index(END)]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in generated.splitlines() if line.startswith("| ")][1:]
    assert rows == [(act.__doc__ or "").strip().rstrip(".") for act in (*READ, *AS_IT_IS)]
    assert generated.count("| yes |") == len(rows)


def test_a_harm_that_was_done_is_seen(tmp_path: Path) -> None:
    finding = Finding("act", "Words", duration_s=1.0, wrong=["the spool holds something"])
    document = tmp_path / "security.md"
    document.write_text(f"before\n{BEGIN}\nold news\n{END}\nafter\n")
    write_between(document, BEGIN, END, table([finding], 0.1))
    written = document.read_text()
    assert "| the spool holds something |" in written and "old news" not in written
    assert written.startswith("before\n") and written.endswith("\nafter\n")
