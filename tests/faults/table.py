"""Writes the fault matrix into docs/reliability.md, from what pytest wrote with --junitxml.

Nothing is written unless every case of the matrix was played and ended as it should; so the table says what was seen,
and holds no date and no duration.
"""

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from faults.matrix import CASES, PARTS, Case

DOCUMENT = Path(__file__).parents[2] / "docs/reliability.md"
BEGIN, END = "<!-- fault matrix: written by `make faults` -->", "<!-- fault matrix: end -->"
_MOMENTS = {"before": "before", "after": "after", "half": "in", "item": "in"}


def passed(results: Path) -> dict[str, int]:
    """Cases that ended as they should, each with the number of restarts that were seen."""
    found = {}
    for element in ElementTree.parse(results).iter("testcase"):
        case = re.search(r"\[(.+)\]$", element.attrib["name"])
        restarts = element.find("properties/property[@name='restarts']")
        if case and restarts is not None and not element.findall("failure") and not element.findall("error"):
            found[case[1]] = int(restarts.attrib["value"])
    return found


def table(cases: Sequence[Case], restarts: Mapping[str, int]) -> str:
    """The matrix as Markdown: a part a heading, a row a thing that goes wrong."""
    lines = [f"{len(cases)} cases.", ""]
    for part, explanation in PARTS.items():
        own = [case for case in cases if case.part == part]
        lines += [f"### {part.capitalize()}", "", *explanation.splitlines(), ""]
        lines += ["| What goes wrong | At | Schedule | Ends in | Restarts |", "|---|---|---|---|---|"]
        names = list(dict.fromkeys(case.name for case in own))
        own.sort(key=lambda case: names.index(case.name))
        for _, same in groupby(own, key=lambda case: (case.name, restarts[case.id])):
            lines.append(_row(list(same), restarts))
        lines.append("")
    return "\n".join(lines)


def _row(cases: Sequence[Case], restarts: Mapping[str, int]) -> str:
    first = cases[0]
    schedules = ", ".join(case.schedule for case in cases)
    cells = (first.name, _at(first), schedules, first.result, str(restarts[first.id]))
    return f"| {' | '.join(cells)} |"


def _at(case: Case) -> str:
    """Where in the code, for somebody who looks for the place."""
    points = []
    for fault in (fault for faults in case.faults.values() for fault in faults if fault.at):
        place, _, when = fault.at.partition("@")
        module, _, name = place.partition(":")
        moment, _, number = when.partition("#")
        points.append(f"{_MOMENTS[moment]} `{module.rpartition('.')[2]}.{name}` {number}")
    return "; ".join(dict.fromkeys(points)) or "–"


def written(document: str, content: str) -> str:
    """The document with the table in its place."""
    head, _, rest = document.partition(BEGIN)
    _, found, tail = rest.partition(END)
    assert found, f"{DOCUMENT}: {BEGIN} and {END} must stand in it"
    return f"{head}{BEGIN}\n\n{content}\n{END}{tail}"


def write(results: Sequence[Path]) -> None:
    """Write the table, or end the program with the cases that are missing."""
    found = {case: restarts for path in results for case, restarts in passed(path).items()}
    missing = [case.id for case in CASES if case.id not in found]
    if missing:
        sys.exit("docs/reliability.md is left as it is; not played, or not passed:\n" + "\n".join(missing))
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8"), table(CASES, found)), encoding="utf-8")
    print(f"{len(CASES)} cases written into docs/reliability.md")
