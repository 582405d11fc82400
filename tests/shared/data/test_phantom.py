"""Phantom exams: repeatable, findings where the boxes say, hospitals that differ."""

import time
from dataclasses import replace

import numpy as np
import pytest

from mammofed_shared.data.phantom import PhantomExam, Population, phantom_exam
from mammofed_shared.exam import Laterality, View
from mammofed_shared.report.grammar import FINDINGS, StructuredFinding

ALL = Population(mass_prevalence=1.0, calcification_prevalence=1.0)
NONE = Population(mass_prevalence=0.0, calcification_prevalence=0.0)


def test_equal_arguments_give_equal_exams_and_others_do_not() -> None:
    first, again, other = (phantom_exam(1, patient, ALL) for patient in (3, 3, 4))

    assert first.findings == again.findings
    for key, image in first.images.items():
        assert np.array_equal(image, again.images[key])
        assert not np.array_equal(image, other.images[key])


def test_four_views_lie_with_the_chest_wall_on_their_own_side() -> None:
    exam = phantom_exam(1, 0, NONE)

    assert set(exam.images) == {(side, view) for side in Laterality for view in View}
    for (side, _), image in exam.images.items():
        assert image.shape == (760, 456) and image.dtype == np.float32
        assert image.min() == 0.0 and image.max() <= 1.0
        left, right = (image > 0.1).sum(axis=0)[[5, -6]]
        assert bool(left > right) is (side is Laterality.L)


def test_only_mlo_shows_the_pectoral_muscle() -> None:
    exam = phantom_exam(1, 0, NONE)

    assert exam.images[Laterality.L, View.MLO][10, 5:60].mean() > 0.4
    assert exam.images[Laterality.L, View.CC][10, 5:60].mean() < 0.05


@pytest.mark.parametrize("kind", ["mass", "calcification"])
def test_a_finding_is_bright_within_its_box_in_both_views_of_its_breast(kind: str) -> None:
    population = Population(float(kind == "mass"), float(kind == "calcification"), density=(1, 0, 0, 0))
    for patient in range(8):
        exam = phantom_exam(5, patient, population)
        (finding,) = exam.findings
        assert finding.kind == kind
        assert set(finding.boxes) == set(View)
        for view, (top, left, height, width) in finding.boxes.items():
            image = exam.images[finding.laterality, view]
            box = image[top : top + height, left : left + width]
            other = exam.images[Laterality.R if finding.laterality is Laterality.L else Laterality.L, view]
            mirrored = other[:, ::-1][top : top + height, left : left + width]
            assert np.percentile(box, 97) > np.percentile(mirrored, 97) + 0.1
            assert 60 <= height <= 162


def test_an_asymmetry_is_density_of_one_breast_and_moves_nothing_else() -> None:
    without = Population(0.5, 0.5, density=(1, 0, 0, 0))
    with_it = replace(without, asymmetry_prevalence=1.0)
    for patient in range(6):
        before, exam = (phantom_exam(5, patient, population) for population in (without, with_it))
        (found,) = [finding for finding in exam.findings if finding.kind == "asymmetry"]
        assert [finding for finding in exam.findings if finding is not found] == list(before.findings)
        for (side, view), image in exam.images.items():
            added = image - before.images[side, view]
            if side is not found.laterality:
                assert not added.any()
                continue
            top, left, height, width = found.boxes[view]
            box = added[top : top + height, left : left + width]
            assert box.mean() > 0.03
            assert box.sum() > 0.8 * added.sum(), "nearly all of it lies in the box"


def test_asymmetries_are_told_only_where_they_are_looked_for() -> None:
    rare = replace(NONE, asymmetry_prevalence=1e-9)
    assert phantom_exam(1, 0, rare, shape=(76, 46)).structured()[2:] == [StructuredFinding("asymmetry", False)]
    found = phantom_exam(1, 0, replace(NONE, asymmetry_prevalence=1.0), shape=(76, 46))
    told = found.structured()[2]
    assert (told.present, told.laterality) == (True, str(found.findings[0].laterality))
    assert told.subtype in FINDINGS["asymmetry"].subtypes
    assert found.birads == 0


def test_position_tells_upper_from_lower_in_mlo() -> None:
    for patient in range(10):
        for finding in phantom_exam(2, patient, ALL).findings:
            top, _, height, _ = finding.boxes[View.MLO]
            assert (top + height / 2 < 0.55 * 760) is (finding.position == "upper")


def test_findings_do_not_depend_on_each_other() -> None:
    masses_only = Population(1.0, 0.0)
    for patient in range(5):
        both = [found for found in phantom_exam(7, patient, ALL).findings if found.kind == "mass"]
        alone = list(phantom_exam(7, patient, masses_only).findings)
        assert [(f.laterality, f.subtype, f.depth) for f in both] == [(f.laterality, f.subtype, f.depth) for f in alone]


def test_findings_and_density_stay_with_the_patient_over_her_exams() -> None:
    first, second = (phantom_exam(1, 2, ALL, number=number) for number in (0, 1))

    def said(exam: PhantomExam) -> list[StructuredFinding]:
        return exam.structured()

    assert said(first) == said(second)
    assert (first.density, first.age + 1) == (second.density, second.age)
    assert not np.array_equal(first.images[Laterality.L, View.CC], second.images[Laterality.L, View.CC])


def test_prevalence_gamma_and_noise_are_the_hospitals_own() -> None:
    rare = Population(0.1, 0.6)
    exams = [phantom_exam(1, patient, rare, shape=(76, 46)) for patient in range(200)]
    assert sum(exam.has("mass") for exam in exams) / 200 == pytest.approx(0.1, abs=0.06)
    assert sum(exam.has("calcification") for exam in exams) / 200 == pytest.approx(0.6, abs=0.1)

    dark = phantom_exam(1, 0, Population(0, 0, contrast_gamma=1.5, noise=0.0)).images[Laterality.L, View.CC]
    light = phantom_exam(1, 0, Population(0, 0, contrast_gamma=0.7, noise=0.0)).images[Laterality.L, View.CC]
    grainy = phantom_exam(1, 0, Population(0, 0, contrast_gamma=0.7, noise=0.05)).images[Laterality.L, View.CC]
    breast = light > 0.2
    assert dark[breast].mean() < light[breast].mean() - 0.1
    assert np.std(grainy - light) == pytest.approx(0.05 * np.sqrt(breast.mean()), rel=0.2)


def test_absent_findings_are_recorded_as_absent() -> None:
    exam = phantom_exam(1, 0, NONE)

    assert exam.structured() == [StructuredFinding("mass", False), StructuredFinding("calcification", False)]
    assert exam.birads == 1


def test_an_exam_is_made_in_a_fraction_of_a_second() -> None:
    phantom_exam(1, 0, ALL)
    started = time.process_time()
    phantom_exam(1, 1, ALL)

    assert time.process_time() - started < 1.0
