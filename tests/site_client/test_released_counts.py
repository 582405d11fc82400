"""One release for equal data: whoever asks, and whatever the least cell is by now."""

from pathlib import Path

import pytest

from mammofed_shared.errors import RefusalCode, Refused
from mammofed_site.disclosure import protect
from mammofed_site.released_counts import tell_once
from small_counts import COUNTS, TOLD


def test_what_is_told_first_is_protected_and_safe_on_disk(tmp_path: Path) -> None:
    told = tell_once(tmp_path, COUNTS, 10)
    assert (told.release.numbers, told.release.least_cell, told.is_repeated) == (TOLD, 10, False)
    (kept,) = (tmp_path / "released-counts").iterdir()
    assert kept.name == f"{COUNTS.digest}.json" and kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("least_cell", [2, 10, 1000])
def test_equal_data_are_told_as_before_under_any_least_cell(tmp_path: Path, least_cell: int) -> None:
    first = tell_once(tmp_path, COUNTS, 10)
    assert least_cell == 10 or protect(COUNTS, least_cell) != TOLD, "another answer would uncover by comparison"
    again = tell_once(tmp_path, COUNTS, least_cell)
    assert (again.release, again.is_repeated) == (first.release, True)


def test_other_data_are_told_anew_and_the_old_ones_as_before(tmp_path: Path) -> None:
    other = COUNTS.model_copy(update={"num_exams": 70})
    first = tell_once(tmp_path, COUNTS, 10)
    assert tell_once(tmp_path, other, 10).release.numbers["num_exams"] == 70
    assert tell_once(tmp_path, COUNTS, 10).release == first.release


def test_a_damaged_record_is_not_told_anew_without_a_person(tmp_path: Path) -> None:
    tell_once(tmp_path, COUNTS, 10)
    (kept,) = (tmp_path / "released-counts").iterdir()
    kept.write_text("{}")
    with pytest.raises(Refused, match="released-counts") as caught:
        tell_once(tmp_path, COUNTS, 10)
    assert caught.value.code is RefusalCode.POLICY
