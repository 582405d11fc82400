"""A text as its sentences."""

import re

_BETWEEN = re.compile(r"(?<=[.!?])\s+")


def sentences_in(text: str) -> list[str]:
    """The sentences of a text, in order; white space after a full stop, question or exclamation mark divides them."""
    return _BETWEEN.split(text.strip())
