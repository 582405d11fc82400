"""`site-client teach`: MIRAI's risks of a site's exams, from its DICOM files to its exams, at the site."""

import csv
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from rich.console import Console

from dicom_fixtures import write_exam
from mammofed_shared.config.mirai_teacher import MiraiDescription, read_description
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.dicom.mirai_image import Grey, mirai_image
from mammofed_shared.errors import ConfigurationError, DataError, StateError
from mammofed_shared.exam import Laterality
from mammofed_shared.pseudonyms import Pseudonyms
from mammofed_shared.report.exam_facts import Teacher
from mammofed_site import teach as command
from mammofed_site.preprocess import preprocess
from mammofed_site.preprocess_command import locate_file
from mammofed_site.pseudonym_key import load_or_create_key
from mammofed_site.teach import VIEWS, teach, teach_dataset
from mammofed_site.teacher_scores import TeacherScores
from mirai_files import SIZE, random_mirai, write_mirai

SMALL = MiraiDescription(
    version=1, image_height=48, image_width=32, image_mean=0, image_std=1, num_heads=1, pool="GlobalAvgPool",
    risk_factors={},
)  # fmt: skip


class Scorer:
    """In place of the model: risks that tell the pictures apart; may be interrupted, or give no number."""

    def __init__(self, stop_after: int | None = None, gives_nothing: bool = False) -> None:
        self.num_calls = 0
        self._stop_after = stop_after
        self._gives_nothing = gives_nothing

    def __call__(self, images: Sequence[Grey]) -> Teacher:
        if self.num_calls == self._stop_after:
            raise KeyboardInterrupt
        self.num_calls += 1
        first = np.nan if self._gives_nothing else float(sum(image.mean() for image in images)) / 1e6
        return first, 0.5, 0.6, 0.7, 0.8


@pytest.fixture
def site(tmp_path: Path) -> SiteSettings:
    """Four prepared exams, one of which lacks a view."""
    for patient in ("P1", "P2", "P3", "P4"):
        write_exam(tmp_path / "pacs", patient)
    next((tmp_path / "pacs" / "P4").glob("*RMLO*")).unlink()
    settings = SiteSettings.model_validate(
        {
            "site": "mayo",
            "consortium": "test",
            "server": "localhost:1",
            "folder": tmp_path / "site",
            "identity": tmp_path / "identity",
            "text_encoder": tmp_path / "text",
            "datasets": [{"name": "screening", "dicom": tmp_path / "pacs"}],
            "preprocessing": {"height": 96, "width": 64},
            "worker": {"preprocess_workers": 1, "device": "cpu", "threads": 1},
        }
    )
    preprocess(settings, settings.datasets[0], load_or_create_key(settings.folder))
    return settings


def key_of(site: SiteSettings) -> bytes:
    return load_or_create_key(site.folder)


def run(site: SiteSettings, scorer: Scorer, digest: str = "1" * 64) -> command.Outcome:
    path = site.folder / "teacher" / "screening.csv"
    console = Console(file=io.StringIO())
    return teach_dataset(site, site.datasets[0], key_of(site), SMALL, digest, scorer, path, console)


def scores_of(site: SiteSettings) -> dict[str, list[float]]:
    with (site.folder / "teacher/screening.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {row["exam"]: [float(row[f"year{year}"]) for year in range(1, 6)] for row in rows}


def exam_of(site: SiteSettings, patient: str) -> str:
    """Pseudonym of the one exam of a patient."""
    return Pseudonyms(key_of(site)).of("study", f"1.2.{int(f'{patient}-20200110'.encode().hex(), 16)}")


def spoil(site: SiteSettings, tmp_path: Path, patient: str) -> int:
    """Cut one of a patient's files short, and give its local number."""
    path = next((tmp_path / "pacs" / patient).glob("*LCC*"))
    path.write_bytes(path.read_bytes()[:-500])
    for number in range(1, 17):
        try:
            found = locate_file(site, key_of(site), number, None)
        except DataError:
            continue
        if found[0][1] == path:
            return number
    raise AssertionError("each file has a number")


def test_risks_are_mirais_own_and_reach_the_exams_of_the_site(site: SiteSettings, tmp_path: Path) -> None:
    weights = write_mirai(tmp_path / "mirai.safetensors", seed=7)
    said = io.StringIO()
    teach(site, key_of(site), weights, Console(file=said, width=200))

    model, told = random_mirai(7), read_description(weights)
    expected = {}
    for patient in ("P1", "P2", "P3"):
        folder = tmp_path / "pacs" / patient
        files = [next(folder.glob(f"*{side}{view}.dcm")) for side, view in VIEWS]
        images = [torch.tensor(mirai_image(file, SIZE), dtype=torch.float32) for file in files]
        with torch.inference_mode():
            vectors = [model.features((image - told.image_mean) / told.image_std) for image in images]
            view, side = torch.tensor([[0, 1, 0, 1]]), torch.tensor([[0, 0, 1, 1]])
            logit = model.transformer(torch.stack(vectors)[None], torch.zeros_like(view), view, side)
            expected[exam_of(site, patient)] = model.risks(logit)[0].tolist()
    assert [side for side, _ in VIEWS[:2]] == [Laterality.R] * 2, "MIRAI numbers the right side 0"
    found = scores_of(site)
    assert found.keys() == expected.keys()
    for exam, risks in expected.items():
        np.testing.assert_allclose(found[exam], risks, atol=1e-6)
    assert len({tuple(risks) for risks in found.values()}) == 3, "exams differ"
    assert "4 exams; 3 scored now, 0 before, 1 have not all four views, 0 cannot be read" in said.getvalue()

    path = site.folder / "teacher/screening.csv"
    assert f"teacher: {path}" in said.getvalue()
    dataset = site.datasets[0].model_copy(update={"teacher": path})
    preprocess(site, dataset, key_of(site))
    exams = read_exams([("screening", site.prepared_folder(dataset))])
    taught = {exam.exam: exam.teacher for exam in exams}
    assert taught.pop(exam_of(site, "P4")) is None
    np.testing.assert_allclose([taught[exam] for exam in sorted(found)], [found[exam] for exam in sorted(found)])


def test_a_file_that_cannot_be_read_costs_its_exam_alone_and_is_named_by_its_number(
    site: SiteSettings, tmp_path: Path
) -> None:
    cut = spoil(site, tmp_path, "P2")
    next((tmp_path / "pacs" / "P3").glob("*RCC*")).unlink()

    outcome = run(site, Scorer())

    assert scores_of(site).keys() == {exam_of(site, "P1")}
    assert outcome.unread.pop(cut) == "truncated"
    assert list(outcome.unread.values()) == ["no longer in the export"]
    lines = command._told(site.datasets[0], command.Outcome(4, 1, 0, 1, {cut: "truncated"}), tmp_path / "x.csv")
    assert f"file {cut}: truncated; its exam has no score" in lines[1]
    assert not any("P2" in line or "LCC" in line for line in lines)


def test_an_exam_to_which_the_model_gives_no_number_has_no_score(site: SiteSettings) -> None:
    outcome = run(site, Scorer(gives_nothing=True))

    assert set(outcome.unread.values()) == {"the model gives its exam no number"}
    assert not (site.folder / "teacher/screening.csv").exists()
    assert run(site, Scorer()).num_now == 3, "it is tried again"


def test_a_run_that_is_interrupted_goes_on_with_the_next_exam(site: SiteSettings) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(site, Scorer(stop_after=2))
    assert not (site.folder / "teacher/screening.csv").exists(), "whole or not at all"

    outcome = run(site, rest := Scorer())

    assert (outcome.num_before, outcome.num_now, rest.num_calls) == (2, 1, 1)
    first = scores_of(site)
    assert len(first) == 3
    assert run(site, nothing := Scorer()).num_before == 3
    assert nothing.num_calls == 0
    assert scores_of(site) == first


def test_other_weights_and_other_images_are_scored_anew_and_what_was_scored_stays(
    site: SiteSettings, tmp_path: Path
) -> None:
    run(site, Scorer())
    assert run(site, other := Scorer(), digest="2" * 64).num_now == other.num_calls == 3
    assert run(site, Scorer()).num_before == 3

    path = next((tmp_path / "pacs" / "P1").glob("*LCC*"))
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.copy()
    pixels[60:70, 20:30] += 300
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path)
    preprocess(site, site.datasets[0], key_of(site))
    before = scores_of(site)

    outcome = run(site, changed := Scorer())

    assert (outcome.num_before, outcome.num_now, changed.num_calls) == (2, 1, 1)
    exam = exam_of(site, "P1")
    assert scores_of(site).pop(exam) != before.pop(exam)
    assert scores_of(site).items() > before.items()


def test_two_processes_never_score_one_data_set(site: SiteSettings) -> None:
    with (
        TeacherScores(site.folder / "teacher/screening.sqlite", "1" * 64),
        pytest.raises(StateError, match="another `site-client teach`"),
    ):
        run(site, Scorer())


def test_a_damaged_file_of_scores_is_told_apart_from_a_bug(site: SiteSettings) -> None:
    path = site.folder / "teacher/screening.sqlite"
    path.parent.mkdir()
    path.write_bytes(os.urandom(5000))

    with pytest.raises(DataError, match="delete it and run `site-client teach` again"):
        run(site, Scorer())


def test_weights_are_read_before_any_work_and_data_sets_must_be_prepared(site: SiteSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        teach(site, key_of(site), tmp_path / "none.safetensors", Console(file=io.StringIO()))
    weights = write_mirai(tmp_path / "mirai.safetensors", calibrated=False)
    (site.prepared_folder(site.datasets[0]) / "preprocessing.json").unlink()
    with pytest.raises(DataError, match="not prepared"):
        teach(site, key_of(site), weights, Console(file=io.StringIO()))


def test_the_command_itself_loads_no_torch() -> None:
    look = "import sys, mammofed_site.teach; sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], check=False, timeout=60).returncode == 0
