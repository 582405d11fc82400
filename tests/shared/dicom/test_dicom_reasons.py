from pathlib import Path

from mammofed_shared.dicom.reasons import BY_WORD, Reason

DOCS = Path(__file__).parents[3] / "docs/data.md"


def test_every_reason_word_is_in_the_users_documentation() -> None:
    text = DOCS.read_text()
    assert [reason for reason in Reason if f"| `{reason}` | {reason.sentence} |" not in text] == []


def test_a_word_finds_its_reason() -> None:
    assert BY_WORD["for_processing"] is Reason.FOR_PROCESSING
    assert f"{Reason.FOR_PROCESSING}" == "for_processing"
