"""What brightness alone scores, and what the demo says of hospitals."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mammofed_shared.data.manifest import read_exams
from mammofed_shared.errors import DataError
from mammofed_shared.exam import Split
from mammofed_simulation.demo.baselines import baseline_scores, blurred_maximum, high_pass_maximum
from prepared import prepare_dataset


def tissue() -> NDArray[np.uint8]:
    return np.full((256, 160), 80, np.uint8)


def with_mass() -> NDArray[np.uint8]:
    return np.asarray(cv2.circle(tissue(), (80, 128), 20, 140, -1), np.uint8)


def with_specks() -> NDArray[np.uint8]:
    image = tissue()
    image[120:140:6, 70:90:6] = 200
    return image


def test_blurred_maximum_sees_the_mass_and_hardly_the_specks() -> None:
    assert blurred_maximum(tissue()) == pytest.approx(80)
    assert blurred_maximum(with_mass()) > 130
    assert blurred_maximum(with_specks()) < 90


def test_high_pass_maximum_sees_the_specks_and_hardly_the_mass() -> None:
    assert high_pass_maximum(tissue()) == pytest.approx(0, abs=1e-3)
    assert high_pass_maximum(with_specks()) > 90
    assert high_pass_maximum(with_mass()) < 45


def test_blur_grows_with_the_image() -> None:
    double = cv2.resize(with_mass(), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    assert blurred_maximum(np.asarray(double, np.uint8)) == pytest.approx(blurred_maximum(with_mass()), abs=1)


def test_baseline_scores_held_out_exams_of_known_labels_only(tmp_path: Path) -> None:
    prepare_dataset(tmp_path, seed=3, num_training=2, num_test=3)
    exams = read_exams([("screening", tmp_path)])
    assert [exam.split for exam in exams].count(Split.TEST) == 3
    exams[-1].labels.pop("calcification")
    scores = baseline_scores(exams)
    assert [score.finding for score in scores].count("mass") == 3
    assert [score.finding for score in scores].count("calcification") == 2


def test_exam_scores_its_brightest_image(tmp_path: Path) -> None:
    prepare_dataset(tmp_path, seed=3, num_training=0, num_test=1)
    (exam,) = read_exams([("screening", tmp_path)])
    before = {score.finding: score.score for score in baseline_scores([exam])}
    cv2.imwrite(str(exam.images[-1].path), np.full((64, 40), 250, np.uint8))
    after = {score.finding: score.score for score in baseline_scores([exam])}
    assert before["mass"] < 240
    assert after["mass"] == pytest.approx(250)


def test_image_that_cannot_be_read_is_an_error_without_its_name(tmp_path: Path) -> None:
    prepare_dataset(tmp_path, seed=3, num_training=0, num_test=1)
    (exam,) = read_exams([("screening", tmp_path)])
    exam.images[0].path.unlink()
    with pytest.raises(DataError) as caught:
        baseline_scores([exam])
    assert exam.exam not in str(caught.value)
