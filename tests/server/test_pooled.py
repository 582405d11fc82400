"""The AUROC over all sites from their histograms: bounds that the true one never leaves."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mammofed_server.pooled import pooled_aurocs, without_histograms
from mammofed_shared.evaluation.discrimination import Labelled, discrimination_numbers
from mammofed_shared.evaluation.histogram import score_histograms
from mammofed_shared.evaluation.statistics import auroc

SCORES = st.one_of(st.floats(-1, 1), st.sampled_from([-0.5, 0.0, 0.1, 0.1004, 0.1006, 0.5]))
EXAMS = st.lists(st.tuples(st.booleans(), SCORES, st.integers(0, 15)), min_size=2, max_size=30)


def labelled(exams: list[tuple[bool, float, int]]) -> Labelled:
    found = Labelled()
    for label, score, patient in exams:
        found.add(label, score, str(patient))
    return found


def released(exams: Labelled, least_cell: int) -> dict[str, float]:
    """The numbers of the finding `mass`, as a site tells them."""
    told = discrimination_numbers(exams, least_cell)
    if not told:
        return {"suppressed/mass": 1.0}
    return {f"{word}/mass": value for word, value in told.items()} | score_histograms("mass", exams, least_cell)


def true_auroc(sites: list[Labelled]) -> float | None:
    labels = [label for site in sites for label in site.labels]
    return auroc(labels, [score for site in sites for score in site.scores])


@settings(deadline=None)
@given(st.lists(EXAMS, min_size=1, max_size=4), st.integers(1, 6))
def test_the_true_pooled_auroc_lies_within_the_bounds(
    drawn: list[list[tuple[bool, float, int]]], least_cell: int
) -> None:
    sites = [labelled(exams) for exams in drawn]
    told = {f"site-{number}": released(site, least_cell) for number, site in enumerate(sites)}
    telling = [name for name, numbers in told.items() if "suppressed/mass" not in numbers]

    found = pooled_aurocs(told)

    assert set(found) == ({"mass"} if telling else set())
    if telling:
        true = true_auroc([sites[int(name.rpartition("-")[2])] for name in telling])
        assert true is not None and found["mass"].sites == tuple(telling)
        assert found["mass"].low - 1e-12 <= true <= found["mass"].high + 1e-12
        without = {site: {name: value for name, value in numbers.items() if "auroc" not in name}
                   for site, numbers in told.items()}  # fmt: skip
        loose = pooled_aurocs(without)["mass"]
        assert loose.low - 1e-12 <= found["mass"].low <= found["mass"].high <= loose.high + 1e-12
        assert loose.low - 1e-12 <= true <= loose.high + 1e-12, "bounds from the histograms alone hold it as well"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=4, max_size=60), st.randoms())
def test_fine_bins_of_single_patients_give_the_true_auroc(exams: list[tuple[bool, int]], random: object) -> None:
    cells = random.sample(range(2000), len(exams))  # type: ignore[attr-defined]
    sites = [Labelled() for _ in range(3)]
    for number, ((label, site), cell) in enumerate(zip(exams, cells, strict=True)):
        sites[site].add(label, (cell + 0.5) / 1000 - 1, str(number))
    told = {f"site-{number}": released(site, 1) for number, site in enumerate(sites)}
    telling = [site for site, numbers in zip(sites, told.values(), strict=True) if "suppressed/mass" not in numbers]
    for name, pooled in pooled_aurocs(told).items():
        assert (name, pooled.low) == ("mass", pytest.approx(pooled.high, abs=1e-12))
        assert pooled.middle == pytest.approx(true_auroc(telling), abs=1e-12)


def told(
    positive: Mapping[int, int], negative: Mapping[int, int], area: float | None = None, finding: str = "mass"
) -> dict[str, float]:
    """Histograms by upper edge, as a site tells them."""
    numbers = {f"histogram_positive/{finding}/{edge}": float(num) for edge, num in positive.items()}
    numbers |= {f"histogram_negative/{finding}/{edge}": float(num) for edge, num in negative.items()}
    return numbers if area is None else numbers | {f"auroc/{finding}": area}


def test_bins_of_different_edges_are_compared_as_intervals() -> None:
    one = told({1000: 0, 1200: 10}, {1100: 20}, area=0.75)
    other = told({1100: 0, 1300: 5}, {1050: 10, 1150: 10}, area=1.0)
    (found,) = pooled_aurocs({"one": one, "other": other}).values()
    # 10 of 1000–1200 against 10 of 0–1050 and 10 of 1050–1150: all open. 5 of 1100–1300 against 20 of 0–1100: won.
    certain = 0.75 * 10 * 20 + 1.0 * 5 * 20 + 5 * 20
    assert (found.low, found.high) == (pytest.approx(certain / 600), pytest.approx((certain + 10 * 20) / 600))
    assert found.middle == pytest.approx((found.low + found.high) / 2)


def test_bins_that_touch_do_not_overlap() -> None:
    one, other = told({100: 0, 200: 7}, {300: 0, 400: 7}, area=0.0), told({250: 0, 300: 7}, {50: 0, 100: 7}, area=1.0)
    (found,) = pooled_aurocs({"one": one, "other": other}).values()
    assert found.low == found.high == 0.5, "all of `other` won, all of `one` lost, one of two between them won"


def test_findings_are_apart_and_sites_that_tell_nothing_are_not_in_them() -> None:
    mass, dots = told({10: 5}, {10: 5}, 0.5), told({20: 0, 30: 5}, {20: 5}, 1.0, "calcification")
    found = pooled_aurocs({"mayo": {**mass, "suppressed/calcification": 1.0}, "central": {**mass, **dots}, "emory": {}})
    assert found["mass"].sites == ("mayo", "central")
    assert (found["mass"].low, found["mass"].high) == (0.25, 0.75), "between the sites every pair is open"
    assert (found["calcification"].sites, found["calcification"].low) == (("central",), 1.0)


def test_what_a_person_reads_holds_no_bins() -> None:
    assert without_histograms({**told({10: 5}, {10: 5}, 0.5), "num_exams": 10.0}) == {
        "auroc/mass": 0.5,
        "num_exams": 10,
    }
