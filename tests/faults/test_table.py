"""The matrix can be told in a table."""

import importlib
import inspect
from operator import attrgetter

from faults.matrix import CASES, PARTS, QUICK
from faults.table import BEGIN, DOCUMENT, END, table


def test_names_of_cases_are_unique_and_each_part_has_some() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
    assert {case.part for case in CASES} == set(PARTS)
    assert {case.id for case in CASES} >= QUICK


def test_the_document_lists_exactly_the_matrix() -> None:
    shown = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    assert shown.strip() == table(CASES, {case.id: sum(case.restarts.values()) for case in CASES}).strip()


def test_every_point_of_the_matrix_is_there() -> None:
    points = {fault.at for case in CASES for faults in case.faults.values() for fault in faults if fault.at}
    missing = []
    for point in points:
        place, _, when = point.partition("@")
        module, _, name = place.partition(":")
        try:
            found = attrgetter(name)(importlib.import_module(module))
        except AttributeError:
            missing.append(point)
            continue
        if when.startswith("item") and not inspect.isgeneratorfunction(found):
            missing.append(point)

    assert missing == []
