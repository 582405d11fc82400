"""A probe measures a visit's own steps, goes round again where an epoch is short, and leaves nothing but figures."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from federation import make_plan
from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.exam import Exam, Split
from mammofed_shared.protocol.plan import PayloadReference, Progress
from mammofed_shared.training import probe
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.pretrain import PretrainTask
from mammofed_shared.training.probe import TIMED_STEPS, probe_visit
from mammofed_shared.training.probe_figures import FIGURES_FILE, ProbeFigures
from mammofed_shared.training.site_data import SiteData
from prepared import SMALL, TEXT_ENCODER, prepare_dataset

TASK = PretrainSettings.model_validate(
    {
        "image_encoder": {"name": "mammofed_small_cnn", "weights": "none", "activation_checkpointing": False},
        "text_encoder": {"weights": "none", "max_tokens": 32, "activation_checkpointing": False},
        "projection_dim": 16,
        "batch_size": 4,
        "precision": "fp32",
        "measure": {"validation_exams": 5},
    }
)
PLAN = make_plan(PayloadReference(digest="0" * 64, size=1)).model_copy(
    update={"task": TASK, "preprocessing": SMALL.digest, "text_encoder": folder_digest(TEXT_ENCODER)}
)


@pytest.fixture(scope="module")
def exams(tmp_path_factory: pytest.TempPathFactory) -> list[Exam]:
    folder = tmp_path_factory.mktemp("prepared")
    prepare_dataset(folder, seed=1, num_training=8, num_test=6)
    return read_exams([("one", folder)], SMALL.digest)


def _probed(exams: list[Exam], folder: Path, steps: list[Progress] | None = None) -> ProbeFigures:
    out = folder / "out"
    out.mkdir(exist_ok=True)
    data = SiteData(exams, ("one",), TEXT_ENCODER, least_cell=10)
    reported: list[Progress] = [] if steps is None else steps
    probe_visit(PLAN, out, folder, data, Hardware(threads=1), reported.append, time.monotonic())
    return ProbeFigures.model_validate_json((out / FIGURES_FILE).read_text())


def test_ten_steps_are_timed_after_those_that_warm_up_however_short_an_epoch_is(
    exams: list[Exam], tmp_path: Path
) -> None:
    reported: list[Progress] = []
    found = _probed(exams, tmp_path, reported)
    assert found.num_steps == 4, "three epochs and a half"
    assert len(found.step_s) == TIMED_STEPS == 10 and min(found.step_s) > 0
    assert found.num_samples == 4 * TIMED_STEPS
    assert [progress.step for progress in reported] == list(range(1, 15))
    assert {progress.num_steps for progress in reported} == {14}


def test_a_probe_leaves_its_figures_alone(exams: list[Exam], tmp_path: Path) -> None:
    found = _probed(exams, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "out" / FIGURES_FILE]
    assert found.checkpoint_bytes > found.weights_bytes + found.moments_bytes > 0
    assert found.moments_bytes == pytest.approx(2 * found.weights_bytes, rel=0.01)


def test_validation_is_foretold_for_as_many_exams_as_a_visit_validates(
    exams: list[Exam], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _probed(exams, tmp_path).validation_s == 0, "there is nothing to validate"
    seen: list[tuple[int, int]] = []
    now_s = [0.0]
    code = probe.code_of(TASK)

    def validate(settings: object, model: object, data: SiteData, device: object) -> dict[str, float]:
        seen.append((len(data.exams), data.least_cell))
        now_s[0] += 10 + len(data.exams)
        return {}

    monkeypatch.setattr(probe, "code_of", lambda settings: replace(code, validate=validate))
    monkeypatch.setattr(probe, "_VALIDATED_EXAMS", 3)
    monkeypatch.setattr(probe, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    held_out = [replace(exam, split=Split.VALIDATION) if exam.split is Split.TEST else exam for exam in exams]
    found = _probed(held_out, tmp_path)
    assert seen == [(1, 1), (1, 1), (3, 1)]
    assert found.validation_s == 10 + 5


def test_the_real_validation_works_on_one_exam(exams: list[Exam], tmp_path: Path) -> None:
    held_out = [replace(exam, split=Split.VALIDATION) if exam.split is Split.TEST else exam for exam in exams]
    assert _probed(held_out, tmp_path).validation_s > 0


def test_slow_readers_are_seen_in_the_time_that_steps_wait(
    exams: list[Exam], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = PretrainTask.shares

    def slow(self: PretrainTask, *args: int) -> Iterator[Any]:
        for share in quick(self, *args):
            time.sleep(0.1)
            yield share

    monkeypatch.setattr(PretrainTask, "shares", slow)
    found = _probed(exams, tmp_path)
    assert found.wait_s >= 0.1 * TIMED_STEPS
    assert min(found.step_s) >= 0.1


def test_memory_that_runs_out_is_told_by_its_code(
    exams: list[Exam], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 MiB")

    monkeypatch.setattr(probe, "train_epochs", lambda *args, **named: fail())
    with pytest.raises(VisitFailed) as caught:
        _probed(exams, tmp_path)
    assert caught.value.code is RefusalCode.OUT_OF_MEMORY
