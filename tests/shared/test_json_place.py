"""A byte of a JSON text is told by the field that it stands in, whatever stands behind it."""

import json

import pytest

from mammofed_shared.json_place import field_at, line_at

TEXT = json.dumps({"a": 1, "list": [{"x": "{,"}, {'y\\"': [True, "z"]}], "last": None}, indent=1).encode()


@pytest.mark.parametrize(
    ("word", "field"),
    [
        (b"1", "a"),
        (b'"{,"', "list.0.x"),
        (b"true", 'list.1.y\\\\\\".0'),
        (b'"z"', 'list.1.y\\\\\\".1'),
        (b"null", "last"),
    ],
)
@pytest.mark.parametrize("rest", [b"", b"]]}}"], ids=["damaged at once", "damaged behind"])
def test_the_field_of_a_byte(word: bytes, field: str, rest: bytes) -> None:
    offset = TEXT.index(word)
    text = TEXT[: offset + 1] + rest
    assert field_at(text, offset) == field


def test_outside_of_all_fields_there_is_none() -> None:
    assert field_at(TEXT, 0) == field_at(b"", 0) == field_at(b"}{", 1) == ""


def test_letters_that_cannot_be_shown_are_not_shown() -> None:
    assert field_at(b'{"a\x1b\xff": 1}', 8) == "a?\N{REPLACEMENT CHARACTER}"


def test_lines_are_counted_from_one() -> None:
    assert [line_at(b"a\nb\n", offset) for offset in (0, 1, 2, 3)] == [1, 1, 2, 2]
