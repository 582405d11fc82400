import os

import pytest

from dicom_fixtures import double_or_fail
from mammofed_shared.dicom.pool import Loss, Lost, map_isolated
from mammofed_shared.errors import DataError


def test_a_worker_that_dies_or_raises_costs_its_item_only() -> None:
    items: list[int | str] = [1, "die", 2, "raise", 3, "die", 4]
    results = list(map_isolated(double_or_fail, items, workers=2, timeout_s=60))
    assert sorted(str(item) for item, _ in results) == sorted(map(str, items))
    good = {item: result for item, result in results if isinstance(item, int)}
    assert good == {1: 2, 2: 4, 3: 6, 4: 8}
    lost = [result for _, result in results if isinstance(result, Lost)]
    assert sorted(result.loss.value for result in lost) == ["died", "died", "raised"]


def test_a_lost_item_is_told_without_its_words() -> None:
    ((_, result),) = map_isolated(double_or_fail, ["raise"], workers=1, timeout_s=60)
    assert isinstance(result, Lost)
    assert "RuntimeError" in result.detail
    assert "Secret" not in result.detail


def test_a_worker_that_hangs_is_stopped() -> None:
    results = dict(map_isolated(double_or_fail, ["hang", 5], workers=1, timeout_s=0.5))
    assert results[5] == 10
    assert isinstance(results["hang"], Lost)
    assert results["hang"].loss is Loss.HUNG


def test_no_items_start_no_process() -> None:
    assert list(map_isolated(double_or_fail, [], workers=2, timeout_s=1)) == []


def test_workers_that_cannot_start_end_the_run() -> None:
    with pytest.raises(DataError, match="could not start"):
        list(map_isolated(_Unloadable(), [1], workers=1, timeout_s=1))


class _Unloadable:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (3,)

    def __call__(self, item: int) -> int:
        return item
