"""Which field of a JSON text a byte belongs to, read from what stands before it: the rest may be damaged."""

import re

_TOKEN = re.compile(rb'"(?:\\.|[^"\\])*"?|[{}\[\],]', re.DOTALL)
_LONGEST_NAME = 60


def field_at(text: bytes, offset: int) -> str:
    """The path of the field at a byte, such as ``contributions.0.metrics.loss``; empty outside of every field."""
    path: list[str | int] = []
    for match in _TOKEN.finditer(text):
        if match.start() > offset:
            break
        token = match.group()
        if token in (b"{", b"["):
            path.append("" if token == b"{" else 0)
        elif not path:
            continue
        elif token in (b"}", b"]"):
            path.pop()
        elif token == b",":
            inner = path[-1]
            path[-1] = inner + 1 if isinstance(inner, int) else ""
        elif path[-1] == "":
            path[-1] = _name(token)
    return ".".join(str(part) for part in path if part != "")


def line_at(text: bytes, offset: int) -> int:
    """The number, from 1, of the line that a byte stands in."""
    return text.count(b"\n", 0, offset) + 1


def _name(token: bytes) -> str:
    text = token[1:].removesuffix(b'"')[:_LONGEST_NAME].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)
