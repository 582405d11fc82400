"""The risk tasks at one site: what an exam adds to the loss, what is told of exams, and an encoder that stays put."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from federation import make_plan
from frozen_encoders import write_frozen_encoder
from mammofed_shared.config.frozen_encoder import encoder_digest, read_encoder
from mammofed_shared.config.risk import RiskAsymmiraiSettings, RiskMiraiSettings
from mammofed_shared.data.batches import epoch_batches
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.evaluation.feature_encoder import FeatureEncoder
from mammofed_shared.evaluation.frozen_encoder import load_frozen_image_encoder
from mammofed_shared.exam import Exam, Laterality, Split, View
from mammofed_shared.protocol.payload import reference_of
from mammofed_shared.protocol.plan import PayloadReference
from mammofed_shared.training.engine_of import make_engine
from mammofed_shared.training.feature_pass import ensure_features
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.probe import probe_visit
from mammofed_shared.training.probe_figures import FIGURES_FILE, ProbeFigures
from mammofed_shared.training.risk import RiskTask
from mammofed_shared.training.risk_model import build_model
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.step import accumulate_gradients
from mammofed_shared.training.visit import METRICS_FILE, UPDATE_FILE, VisitFiles, initial_state, train_visit
from prepared import SMALL, prepare_dataset

GROUP = WorkerGroup(Hardware(threads=1))
AnySettings = RiskMiraiSettings | RiskAsymmiraiSettings


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SiteData:
    folder = tmp_path_factory.mktemp("site")
    prepare_dataset(folder / "prepared", seed=3, num_training=8, num_test=2, num_validation=6)
    return SiteData(
        read_exams([("one", folder / "prepared")]),
        ("one",),
        None,
        least_cell=2,
        caches=folder / "caches",
        encoder=write_frozen_encoder(folder),
        preprocessing=SMALL.digest,
    )


def _settings(name: str, data: SiteData, **changes: Any) -> AnySettings:
    encoder = read_encoder(data.encoder_folder)
    values: dict[str, Any] = {"batch_size": 4, "optimizer": {"learning_rate": 1e-2, "warmup_epochs": 0}, **changes}
    if name == "risk-mirai":
        shape = {"width": 16, "num_layers": 1, "num_heads": 2}
        return RiskMiraiSettings.model_validate({"encoder_features": encoder.num_features, **shape, **values})
    shape = {"window": (2, 2), "stride": (1, 1)}
    return RiskAsymmiraiSettings.model_validate({"encoder_features": encoder.num_channels, **shape, **values})


BOTH = pytest.mark.parametrize("name", ["risk-mirai", "risk-asymmirai"])
ALL_READINGS = pytest.mark.parametrize(
    ("name", "changes"),
    [("risk-mirai", {}), ("risk-asymmirai", {}), ("risk-asymmirai", {"order": "reference"})],
    ids=["mirai", "asymmirai", "reference"],
)


def _task(settings: AnySettings, data: SiteData) -> RiskTask:
    ensure_features(settings.features, data, GROUP, lambda done, total: None)
    torch.manual_seed(0)
    return RiskTask(settings, build_model(settings, None, False).eval(), data, GROUP)


def _with_training(data: SiteData, exams: list[Exam]) -> SiteData:
    return replace(data, exams=[*exams, *(exam for exam in data.exams if exam.split is not Split.TRAIN)])


def _training(data: SiteData) -> list[Exam]:
    return [exam for exam in data.exams if exam.split is Split.TRAIN]


def _rows(task: RiskTask) -> dict[str, float]:
    """Loss of each exam; all of them stand in one step."""
    (share,) = task.shares(seed=1, epoch=0, start=0)
    rows = task.losses(task.model(*share.on(GROUP.device, slice(None)))).rows
    assert rows is not None
    (batch,) = epoch_batches(task._samples, task.settings.batch_size, np.random.default_rng([1, 0]))
    return {task._samples[index].exam.exam: row for index, row in zip(batch, rows.tolist(), strict=True)}


# ── the loss ────────────────────────────────────────────────────────────────────────────────────────────────────


@BOTH
def test_an_exam_that_lacks_teacher_or_outcome_learns_from_the_other_alone(name: str, data: SiteData) -> None:
    settings = _settings(name, data, batch_size=30, alpha=0.25)
    whole, no_outcome, no_teacher, *rest = _training(data)
    exams = [
        whole,
        replace(no_outcome, years_to_cancer=None, years_followed=None),
        replace(no_teacher, teacher=None),
        *rest,
    ]
    rows = {
        alpha: _rows(_task(settings.model_copy(update={"alpha": alpha}), _with_training(data, exams)))
        for alpha in (0.25, 0.75)
    }
    from_teacher = _rows(_task(settings.model_copy(update={"alpha": 1.0}), data))
    from_outcome = _rows(_task(settings.model_copy(update={"alpha": 0.0}), data))

    for alpha, found in rows.items():
        mixed = alpha * from_teacher[whole.exam] + (1 - alpha) * from_outcome[whole.exam]
        assert found[whole.exam] == pytest.approx(mixed, rel=1e-5)
        assert found[no_outcome.exam] == pytest.approx(from_teacher[no_outcome.exam], rel=1e-5)
        assert found[no_teacher.exam] == pytest.approx(from_outcome[no_teacher.exam], rel=1e-5)


@ALL_READINGS
def test_masking_a_view_changes_only_its_own_term(name: str, changes: dict[str, Any], data: SiteData) -> None:
    settings = _settings(name, data, batch_size=30, **changes)
    masked, *others = _training(data)
    kept = tuple(i for i in masked.images if (i.laterality, i.view) != (Laterality.R, View.MLO))
    before = _rows(_task(settings, data))
    after = _rows(_task(settings, _with_training(data, [replace(masked, images=kept), *others])))

    assert after[masked.exam] != before[masked.exam]
    assert {exam.exam: after[exam.exam] for exam in others} == {exam.exam: before[exam.exam] for exam in others}


@ALL_READINGS
def test_every_parameter_of_a_head_is_trained(name: str, changes: dict[str, Any], data: SiteData) -> None:
    task = _task(_settings(name, data, **changes), data)
    share = next(task.shares(seed=1, epoch=0, start=0))
    task.losses(task.model(*share.on(GROUP.device, slice(None)))).loss.backward()  # type: ignore[no-untyped-call]

    assert {n for n, p in task.model.named_parameters() if p.grad is None or not p.grad.any()} == set()


# ── which exams ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_exams_that_are_left_out_are_counted(data: SiteData) -> None:
    first, second, third, *rest = _training(data)
    no_views = [replace(exam, images=exam.images[:1]) for exam in (first, second)]
    exams = [*no_views, replace(third, teacher=None, years_to_cancer=None, years_followed=None), *rest]
    settings = _settings("risk-mirai", data, missing_views="refuse")

    numbers = _task(settings, _with_training(data, exams)).numbers()

    assert numbers == {"num_exams": 5, "num_with_teacher": 5, "num_with_outcome": 5, "num_without_views": 2}, (
        "of the one exam without targets nothing is told: the least cell is 2"
    )
    masking = _task(settings.model_copy(update={"missing_views": "mask"}), _with_training(data, exams))
    assert masking.numbers()["num_exams"] == 7


def test_a_count_is_not_told_where_the_rest_is_a_small_cell(data: SiteData) -> None:
    first, *rest = _training(data)
    numbers = _task(
        _settings("risk-mirai", data), _with_training(data, [replace(first, teacher=None), *rest])
    ).numbers()

    assert "num_with_teacher" not in numbers and numbers["num_with_outcome"] == numbers["num_exams"] == 8


@BOTH
def test_a_site_without_anything_to_learn_is_told_what_is_missing(name: str, data: SiteData) -> None:
    exams = [replace(e, teacher=None, years_to_cancer=None, years_followed=None) for e in _training(data)[1:]]
    with pytest.raises(VisitFailed, match=r"found 1; 0 more lack views, 7 a teacher's risks and an outcome") as caught:
        _task(_settings(name, data), _with_training(data, [_training(data)[0], *exams]))
    assert caught.value.code is RefusalCode.NO_DATA


# ── a visit ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _visit(settings: AnySettings, data: SiteData, folder: Path) -> dict[str, float]:
    folder.mkdir(parents=True)
    state = folder / "state.safetensors"
    initial_state(settings, text_encoder=None, seed=3, out=state)
    plan = make_plan(reference_of(state)).model_copy(
        update={
            "task": settings,
            "preprocessing": SMALL.digest,
            "text_encoder": None,
            "encoder": encoder_digest(data.encoder_folder),
        }
    )
    files = VisitFiles(state, None, folder, kept=folder, checkpoint_every_s=600)
    train_visit(plan, files, data, Hardware(threads=1), lambda progress: None)
    numbers: dict[str, float] = json.loads((folder / METRICS_FILE).read_text())
    return numbers


@BOTH
def test_equal_seeds_give_equal_bytes_and_nothing_of_the_encoder_moves(
    name: str, data: SiteData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[FeatureEncoder] = []
    begin = FeatureEncoder.__init__

    def noted(self: FeatureEncoder, *args: Any) -> None:
        begin(self, *args)
        made.append(self)

    monkeypatch.setattr(FeatureEncoder, "__init__", noted)
    settings = _settings(name, data)
    fresh = replace(data, caches=tmp_path / "caches")

    numbers = [_visit(settings, fresh, tmp_path / run) for run in ("one", "two")]

    assert (tmp_path / "one" / UPDATE_FILE).read_bytes() == (tmp_path / "two" / UPDATE_FILE).read_bytes()
    assert numbers[0] == numbers[1]
    (encoder,) = made  # the second visit reads what the first has kept
    before = load_frozen_image_encoder(data.encoder_folder).state_dict()
    after = encoder._encoder.state_dict()
    assert before and all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    assert not any(module.training for module in encoder._encoder.modules())


@ALL_READINGS
def test_chunks_of_a_step_give_the_gradient_of_the_whole(name: str, changes: dict[str, Any], data: SiteData) -> None:
    # Dropout draws anew for each chunk; without it only the order of sums differs.
    settings = _settings(name, data, **changes, **({"dropout": 0.0} if name == "risk-mirai" else {}))
    found = []
    for micro_batch in (None, 1):
        task = _task(settings, data)
        engine = make_engine(task.model, GROUP, settings.optimizer, settings.precision, None)
        share = next(task.shares(seed=1, epoch=0, start=0))
        told = accumulate_gradients(task, engine, GROUP, share, settings.precision, micro_batch, seed=1)
        found.append((told, [parameter.grad for parameter in task.model.parameters()]))

    (whole, gradients), (cut, of_chunks) = found
    assert cut == pytest.approx(whole, rel=1e-5)
    torch.testing.assert_close(of_chunks, gradients, rtol=1e-4, atol=1e-6)


@BOTH
def test_a_visit_tells_of_the_validation_exams_before_and_after(name: str, data: SiteData, tmp_path: Path) -> None:
    numbers = _visit(_settings(name, data), data, tmp_path / "visit")

    received, sent = (
        {key.partition("/")[2] for key in numbers if key.startswith(f"{when}/")} for when in ("received", "sent")
    )
    assert received == sent
    assert {"auroc/year4/d1", "auroc_low/year4/d1", "num_positive/year4/d1", "num_labelled/year4/d1"} <= received


@BOTH
def test_a_probe_predicts_a_visit_without_a_feature(name: str, data: SiteData, tmp_path: Path) -> None:
    settings = _settings(name, data)
    probed = replace(data, caches=tmp_path / "caches", is_probe=True)
    plan = make_plan(PayloadReference(digest="0" * 64, size=0)).model_copy(
        update={"task": settings, "text_encoder": None}
    )

    probe_visit(plan, tmp_path / "out", tmp_path, probed, Hardware(threads=1), lambda progress: None, began_s=0.0)

    found = ProbeFigures.model_validate_json((tmp_path / "out" / FIGURES_FILE).read_text())
    assert found.num_steps == 2 and found.validation_s > 0
    assert found.features is not None and found.features.num_missing == found.features.num_items > 0


# ── the paper's size ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("settings", "size_mb"), [(RiskMiraiSettings(), 23.4), (RiskAsymmiraiSettings(), 33.6)], ids=["mirai", "asymmirai"]
)
def test_what_travels_at_the_papers_width_is_the_head_alone(
    settings: AnySettings, size_mb: float, tmp_path: Path
) -> None:
    spec = initial_state(settings, text_encoder=None, seed=1, out=tmp_path / "state")

    assert (tmp_path / "state").stat().st_size / 1e6 == pytest.approx(size_mb, abs=0.1)
    assert all(tensor.startswith("head.") and item.kind == "parameter" for tensor, item in spec.tensors.items())
