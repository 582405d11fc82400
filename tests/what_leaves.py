"""Writes the table of docs/security.md that says what a site may say: `python tests/what_leaves.py`.

It is made from the gate's own rules, so it says what is enforced; tests/site_client/test_gate.py compares the two.
"""

from collections.abc import Iterator
from pathlib import Path

from mammofed_shared.protocol.wire import CALLS
from mammofed_site.wire_rules import rules_of

DOCUMENT = Path(__file__).parents[1] / "docs/security.md"
BEGIN, END = "<!-- what leaves: made by tests/what_leaves.py -->", "<!-- what leaves: end -->"


def table() -> str:
    """One row a field, in the order of the calls; a type that others hold stands after the first of them."""
    rules = rules_of("mayo")
    rows = ["| Call | Field | What it holds | Bound |", "|---|---|---|---|"]
    for call, types in CALLS.items():
        for message in _with_parts(types.request.DESCRIPTOR.name):
            for field, rule in rules[message].items():
                rows.append(f"| {call} | `{message}.{field}` | {rule.says} | {rule.bound} |")
    return "\n".join(rows)


def _with_parts(message: str) -> Iterator[str]:
    yield message
    for rule in rules_of("mayo")[message].values():
        if rule.message:
            yield from _with_parts(rule.message)


def with_table(text: str) -> str:
    """A document's text with the table as it is now."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
