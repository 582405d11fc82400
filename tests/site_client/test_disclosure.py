"""What of a site's counts may be told: who knows the method and all totals cannot tell that a hidden cell is small."""

from collections.abc import Callable, Iterator, Mapping
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammofed_shared.protocol.quality import STEP, TABLES, TOTALS, check_counts
from mammofed_site.disclosure import Cell, Counts, hidden_words, protect

PATIENTS = st.one_of(st.integers(0, 30), st.integers(0, 5000))


@st.composite
def counts(draw: st.DrawFn) -> Counts:
    """Counts of any site: each cell with some patients, and one to nine images (or exams) of each."""
    tables = {
        table.by: {
            word: Cell(num=num * draw(st.integers(1, 9)), num_patients=num)
            for word in table.words
            for num in [draw(PATIENTS)]
        }
        for table in TABLES
    }
    num_patients = max(cell.num_patients for cells in tables.values() for cell in cells.values())
    return Counts(num_images=4 * num_patients, num_exams=num_patients, num_patients=num_patients, tables=tables)


def _vendors(**num_patients: int) -> Counts:
    """A site whose vendors have so many patients, with four images each."""
    tables = {table.by: dict.fromkeys(table.words, Cell()) for table in TABLES}
    tables["vendor"] |= {word: Cell(num=4 * num, num_patients=num) for word, num in num_patients.items()}
    total = sum(num_patients.values())
    return Counts(num_images=4 * total, num_exams=total, num_patients=total, tables=tables)


def _told(counts: Counts, by: str = "vendor", least_cell: int = 10) -> dict[str, float]:
    """The cells of a table that are told and are not 0."""
    numbers = protect(counts, least_cell)
    return {name.split("/")[1]: value for name, value in numbers.items() if f"_by_{by}/" in name and value}


# ── the rules ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_cells_of_enough_patients_are_told_to_the_nearest_five() -> None:
    numbers = protect(_vendors(ge=13, hologic=102), 10)
    assert _told(_vendors(ge=13, hologic=102)) == {"ge": 50, "hologic": 410}
    assert (numbers["num_images"], numbers["num_exams"], numbers["num_patients"]) == (460, 115, 115)
    assert numbers["num_suppressed_by_vendor"] == 0 and numbers["num_images_by_vendor/agfa"] == 0


def test_a_small_cell_goes_together_with_the_smallest_other_one() -> None:
    site = _vendors(ge=9, siemens=40, hologic=500)
    assert _told(site) == {"hologic": 2000}
    assert protect(site, 10)["num_suppressed_by_vendor"] == 2
    assert _told(_vendors(ge=10, siemens=40, hologic=500)) == {"ge": 40, "siemens": 160, "hologic": 2000}


def test_two_small_cells_go_together_with_a_third() -> None:
    """With these two alone hidden, the sum of the others would tell each of them: 1 image."""
    assert _told(_vendors(ge=1, agfa=1, siemens=98, fujifilm=98)) == {}
    assert _told(_vendors(ge=1, agfa=1, siemens=98, fujifilm=99)) == {"fujifilm": 395}


def test_equal_cells_go_together_because_a_choice_between_them_would_tell_something() -> None:
    assert _told(_vendors(other=3, ge=40, siemens=40, hologic=500)) == {"hologic": 2000}


def test_a_cell_counts_patients_and_not_images() -> None:
    site = _vendors(hologic=500, siemens=40)
    tables = {**site.tables, "vendor": {**site.tables["vendor"], "ge": Cell(num=12, num_patients=1)}}
    assert _told(site.model_copy(update={"tables": tables})) == {"hologic": 2000}


def test_a_table_without_an_image_left_to_tell_goes_altogether() -> None:
    for site in (_vendors(ge=9, hologic=500), _vendors(ge=9, hologic=9), _vendors(hologic=5, ge=40, agfa=40)):
        numbers = protect(site, 10)
        assert numbers["num_suppressed_by_vendor"] == 12
        assert not any(name.startswith("num_images_by_vendor/") for name in numbers)
        assert "num_images" in numbers


def test_too_few_patients_in_all_leave_nothing_but_the_numbers_of_hidden_cells() -> None:
    assert protect(_vendors(hologic=9), 10) == {table.suppressed: len(table.words) for table in TABLES}
    assert protect(_vendors(hologic=10), 10)["num_patients"] == 10


def test_exams_whose_density_nobody_knows_have_a_cell_of_their_own() -> None:
    """Else the total would tell it: 3 exams without a density, although 3 are never told."""
    cells = {"a": Cell(num=50, num_patients=50), "b": Cell(num=40, num_patients=40)}
    tables = dict(_vendors(hologic=93).tables)
    tables["density"] = dict.fromkeys(tables["density"], Cell()) | cells | {"unknown": Cell(num=3, num_patients=3)}
    site = Counts(num_images=372, num_exams=93, num_patients=93, tables=tables)
    assert _told(site, "density") == {"a": 50}


# ── what the rules guarantee ────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=300, derandomize=True, deadline=None)
@given(counts(), st.integers(2, 50), st.data())
def test_hidden_cells_can_be_exchanged_and_one_of_them_is_large(site: Counts, least: int, data: st.DataObject) -> None:
    numbers = protect(site, least)
    for table in TABLES:
        cells = site.tables[table.by]
        hidden = [word for word in table.words if table.cell(word) not in numbers]
        for name in (table.cell(word) for word in table.words if 0 < cells[word].num_patients < least):
            assert name not in numbers
        exchanged = {**cells, **dict(zip(hidden, data.draw(st.permutations([cells[w] for w in hidden])), strict=True))}
        assert protect(site.model_copy(update={"tables": {**site.tables, table.by: exchanged}}), least) == numbers
        if 0 < len(hidden) < len(table.words):
            assert max(cells[word].num_patients for word in hidden) >= least


@settings(max_examples=300, derandomize=True, deadline=None)
@given(counts(), st.integers(2, 50))
def test_what_is_protected_passes_the_check_where_it_leaves(site: Counts, least: int) -> None:
    numbers = protect(site, least)
    check_counts(numbers)
    assert all(value % STEP == 0 for name, value in numbers.items() if name in TOTALS or "/" in name)


Table = tuple[int, ...]
Rule = Callable[[Mapping[str, int], int], frozenset[str]]


def _answers(rule: Rule, num_words: int, total: int, least: int) -> Mapping[tuple[int | None, ...], list[Table]]:
    """Every table of so many words that adds up to ``total``, one image a patient, by what leaves of it."""
    found: dict[tuple[int | None, ...], list[Table]] = {}
    for rest in product(range(total + 1), repeat=num_words - 1):
        table = (*rest, total - sum(rest))
        if table[-1] < 0:
            continue
        patients = {str(word): num for word, num in enumerate(table)}
        hidden = rule(patients, least)
        leaves = tuple(None if word in hidden else (num + 2) // 5 * 5 for word, num in patients.items())
        found.setdefault(leaves, []).append(table)
    return found


def _hidden(rule: Rule, num_words: int, least: int, totals: range) -> Iterator[tuple[int, bool, set[int]]]:
    """Total, whether the whole table is hidden, and the possible values of each hidden cell of each answer."""
    for total in totals:
        for leaves, tables in _answers(rule, num_words, total, least).items():
            is_whole = all(value is None for value in leaves)
            for word, value in enumerate(leaves):
                if value is None:
                    yield total, is_whole, {table[word] for table in tables}


@pytest.mark.parametrize(
    ("num_words", "least", "largest"), [(2, 10, 60), (3, 2, 30), (3, 5, 35), (3, 10, 45), (4, 3, 18)]
)
def test_no_hidden_cell_can_be_told_to_be_small_by_who_knows_all_totals(
    num_words: int, least: int, largest: int
) -> None:
    """By enumeration: of all tables with the same exact total and the same answer, some have a large cell there."""
    seen = 0
    for total, is_whole, possible in _hidden(hidden_words, num_words, least, range(least, largest)):
        seen += 1
        if is_whole:
            assert possible >= {*range(1, least), total - 1}, "any small number, or all but one"
            assert num_words == 2 or 0 in possible
        else:
            assert max(possible) >= least
            assert len(possible) >= 2
    assert seen > 50


def test_the_enumeration_sees_what_a_weaker_rule_would_tell() -> None:
    """Hiding the small cells alone, where there are two, tells some of them exactly."""

    def weaker(patients: Mapping[str, int], least: int) -> frozenset[str]:
        small = frozenset(word for word, num in patients.items() if 0 < num < least)
        return small if len(small) > 1 else hidden_words(patients, least)

    assert any(len(possible) == 1 for *_, possible in _hidden(weaker, 3, 10, range(10, 45)))
    assert not any(len(possible) == 1 for *_, possible in _hidden(hidden_words, 3, 10, range(10, 45)))


def test_every_order_of_the_words_gives_the_same_cells() -> None:
    for order in permutations([("a", 3), ("b", 12), ("c", 12), ("d", 500), ("e", 0)]):
        assert hidden_words(dict(order), 10) == {"a", "b", "c"}
