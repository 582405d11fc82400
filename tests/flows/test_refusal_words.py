"""The table of refusals in docs/security.md holds the very words that are said."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from refusal_words import BEGIN, DOCUMENT, END, SITUATIONS, table


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return table(tmp_path_factory.mktemp("words")).splitlines()


def test_the_documents_hold_the_very_words_of_each_refusal(said: list[str]) -> None:
    """`python tests/flows/refusal_words.py` writes them anew."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert said == text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip().splitlines()


@pytest.mark.parametrize("kind", ["missing", "expired", "foreign", "revoked", "wrong site", "clock skew"])
def test_the_table_tells_each_kind_of_refusal(kind: str) -> None:
    assert any(item.happened.startswith(kind) for item in SITUATIONS)


def test_each_refusal_has_words_of_its_own(said: list[str]) -> None:
    words = [line.split(" | ")[-1] for line in said[2:]]
    assert len(words) == len(SITUATIONS) and len(set(words)) == len(words)
