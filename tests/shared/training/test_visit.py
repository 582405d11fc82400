"""Visits: repeatable to the bit over processes, a learning rate of global progress, refusals by code."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.errors import VisitFailed
from mammofed_shared.exam import Exam, Split
from mammofed_shared.models.dual_encoder import DualEncoder
from mammofed_shared.protocol.payload import Payload, reference_of
from mammofed_shared.protocol.plan import Plan, Progress
from mammofed_shared.protocol.release import check_metrics
from mammofed_shared.training.evaluation_visit import evaluate_visit
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.visit import VisitFiles, initial_state, train_visit, visit_seed
from prepared import SMALL, TEXT_ENCODER, prepare_dataset

TASK = PretrainSettings.model_validate(
    {
        "image_encoder": {
            "name": "mammofed_small_cnn",
            "weights": "none",
            "pooling": "avgmax",
            "activation_checkpointing": False,
        },
        "text_encoder": {"weights": "none", "max_tokens": 32, "activation_checkpointing": False},
        "projection_dim": 16,
        "optimizer": {"learning_rate": 2e-3, "warmup_epochs": 1.0},
        "batch_size": 4,
        "precision": "fp32",
    }
)
IN_A_FRESH_PROCESS = """
import json, sys
from pathlib import Path
from mammofed_shared.data.manifest import read_exams
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.visit import VisitFiles, train_visit

where = {name: Path(value) for name, value in json.loads(sys.argv[1]).items()}
train_visit(
    Plan.model_validate_json(where["plan"].read_text()),
    VisitFiles(where["state"], where["moments"], where["out"], where["out"], checkpoint_every_s=600),
    SiteData(read_exams([("one", where["data"])]), ("one",), where["text_encoder"], least_cell=2),
    Hardware(threads=2),
    lambda progress: None,
)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare_dataset(folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def exams(data: Path) -> list[Exam]:
    return read_exams([("one", data)], SMALL.digest)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    initial_state(TASK, text_encoder=TEXT_ENCODER, seed=3, out=path)
    return path


def plan_for(state: Path, kind: str = "train", **changes: object) -> Plan:
    values = {
        "task_id": f"run/r0002/v00004/mayo/{kind}",
        "run": "run",
        "round": 2,
        "visit": 4,
        "site": "mayo",
        "kind": kind,
        "epochs": 1,
        "epochs_before": 3,
        "epochs_total": 6,
        "configuration": "0" * 64,
        "rounds_total": 2,
        "num_sites": 1,
        "seed": 9,
        "task": TASK,
        "preprocessing": SMALL.digest,
        "text_encoder": folder_digest(TEXT_ENCODER),
        "state": reference_of(state),
    }
    return Plan.model_validate(values | changes)


def files_of(state: Path, out: Path, moments: Path | None = None) -> VisitFiles:
    (out / "kept").mkdir(parents=True, exist_ok=True)
    return VisitFiles(state, moments, out, kept=out / "kept", checkpoint_every_s=600)


def data_of(exams: list[Exam], text_encoder: Path = TEXT_ENCODER) -> SiteData:
    return SiteData(exams, ("one",), text_encoder, least_cell=1)


def train(
    plan: Plan, state: Path, exams: list[Exam], out: Path, moments: Path | None = None
) -> tuple[dict[str, float], list[Progress]]:
    reported: list[Progress] = []
    train_visit(plan, files_of(state, out, moments), data_of(exams), Hardware(threads=1), reported.append)
    return json.loads((out / "metrics.json").read_text()), reported


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_equal_seeds_give_equal_first_weights_and_others_do_not(tmp_path: Path) -> None:
    specs = [
        initial_state(TASK, text_encoder=TEXT_ENCODER, seed=seed, out=tmp_path / name)
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    ]

    assert sha(tmp_path / "first") == sha(tmp_path / "again") != sha(tmp_path / "other")
    kinds = {spec.kind for spec in specs[0].tensors.values()}
    assert kinds == {"parameter", "buffer", "counter"}
    assert specs[0].tensors["log_scale"].shape == (1,)
    assert specs[0].weight_key == "num_exams"
    with Payload(tmp_path / "first") as payload:
        assert {name: entry.shape for name, entry in payload.entries.items()} == {
            name: spec.shape for name, spec in specs[0].tensors.items()
        }


def test_a_visit_repeated_in_a_fresh_process_gives_the_same_bytes(tmp_path: Path, data: Path, state: Path) -> None:
    exams = read_exams([("one", data)])
    train(plan_for(state, task_id="run/r0001/v00001/mayo/train"), state, exams, tmp_path / "before")
    (tmp_path / "plan.json").write_text(plan_for(state).model_dump_json())
    digests = []
    for name in ("first", "again"):
        where = {
            "plan": tmp_path / "plan.json",
            "state": state,
            "moments": tmp_path / "before" / "moments.safetensors",
            "data": data,
            "text_encoder": TEXT_ENCODER,
            "out": tmp_path / name,
        }
        arguments = json.dumps({key: str(value) for key, value in where.items()})
        paths = [path for path in sys.path if path]
        code = f"import sys; sys.path[:0] = {paths!r}\n{IN_A_FRESH_PROCESS}"
        # Threads that sleep while they wait: on a busy machine, ones that spin take minutes for seconds.
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
        subprocess.run([sys.executable, "-c", code, arguments], check=True, env=environment)
        files = ("update.safetensors", "moments.safetensors", "metrics.json")
        digests.append([sha(tmp_path / name / file) for file in files])

    assert digests[0] == digests[1]
    assert digests[0][0] != sha(state)


def test_training_moves_all_that_is_trained_and_reports_allowed_numbers(
    tmp_path: Path, exams: list[Exam], state: Path
) -> None:
    # A visit in the middle of the run; the first one of all starts with a learning rate of 0.
    metrics, reported = train(plan_for(state, epochs=2), state, exams, tmp_path)

    num_training = sum(exam.split is Split.TRAIN for exam in exams)
    check_metrics(plan_for(state), metrics)
    assert metrics["num_exams"] == num_training == 8
    assert metrics["num_samples"] == 2 * 2 * num_training
    assert metrics["num_steps"] == 8 == len(reported) == reported[-1].num_steps
    assert metrics["loss"] == pytest.approx(
        metrics["loss_image_text"] + metrics["loss_image_image"] + metrics["loss_text_text"], rel=1e-5
    )
    assert metrics["moments_reset"] == 0
    with Payload(state) as before, Payload(tmp_path / "update.safetensors") as after:
        assert set(before) == set(after)
        still = {name for name in before if np.array_equal(before[name], after[name])}
    assert still == set()


def test_learning_rate_follows_the_progress_of_the_run(tmp_path: Path, exams: list[Exam], state: Path) -> None:
    early, _ = train(plan_for(state, epochs_before=0), state, exams, tmp_path / "early")
    late, _ = train(plan_for(state, epochs_before=5), state, exams, tmp_path / "late")

    # The last of 4 steps: 3/4 of the warm-up epoch; and 3/4 of the last of 5 epochs of decay.
    assert early["learning_rate"] == pytest.approx(2e-3 * 0.75)
    assert late["learning_rate"] == pytest.approx(2e-3 * np.cos(np.pi / 2 * 4.75 / 5) ** 2)


def test_kept_moments_change_the_update_and_lost_ones_are_reported(
    tmp_path: Path, exams: list[Exam], state: Path
) -> None:
    train(plan_for(state, epochs_before=2), state, exams, tmp_path / "first")
    plan = plan_for(state, moments_from="run/r0001/v00001/mayo/train")
    kept, _ = train(plan, state, exams, tmp_path / "kept", tmp_path / "first" / "moments.safetensors")
    lost, _ = train(plan, state, exams, tmp_path / "lost")

    assert (kept["moments_reset"], lost["moments_reset"]) == (0, 1)
    assert sha(tmp_path / "kept/update.safetensors") != sha(tmp_path / "lost/update.safetensors")


def test_moments_are_not_written_where_they_are_reset(tmp_path: Path, exams: list[Exam], state: Path) -> None:
    reset = TASK.model_copy(update={"optimizer": TASK.optimizer.model_copy(update={"state": "reset"})})

    train(plan_for(state, task=reset), state, exams, tmp_path)

    made = {path.name for path in tmp_path.iterdir()}
    assert made == {"kept", "metrics.json", "timing.json", "spec.json", "update.safetensors"}


def test_visits_have_seeds_of_their_own(state: Path) -> None:
    plan = plan_for(state)
    others = [plan_for(state, task_id="run/r0002/v00005/mayo/train"), plan_for(state, seed=10)]

    assert visit_seed(plan) == visit_seed(plan_for(state))
    assert len({visit_seed(other) for other in (plan, *others)}) == 3
    assert 0 <= visit_seed(plan) < 2**63


def test_an_evaluation_gives_numbers_and_keeps_scores_apart(tmp_path: Path, exams: list[Exam], state: Path) -> None:
    plan = plan_for(state, "evaluate")
    evaluate_visit(plan, files_of(state, tmp_path), data_of(exams), Hardware(threads=1), lambda progress: None)

    metrics = json.loads((tmp_path / "metrics.json").read_text())
    tested = [exam for exam in exams if exam.split is Split.TEST]
    assert metrics["num_exams"] == metrics["num_labelled/mass"] == len(tested) == 6
    assert metrics["num_positive/mass"] == sum(exam.labels["mass"] for exam in tested)
    # The untrained small CNN gives every image the same vector.
    assert metrics["auroc/mass"] == 0.5
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert len(rows) == 2 * len(tested)
    assert {row["exam"] for row in rows} == {exam.exam for exam in tested}
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "metrics.json", "scores.csv"}


def test_another_text_encoder_is_refused(tmp_path: Path, exams: list[Exam], state: Path) -> None:
    with pytest.raises(VisitFailed, match="TEXT_ENCODER_MISMATCH"):
        train(plan_for(state, text_encoder="0" * 64), state, exams, tmp_path)


def test_a_site_without_training_exams_is_refused(tmp_path: Path, exams: list[Exam], state: Path) -> None:
    with pytest.raises(VisitFailed, match="NO_DATA"):
        train(plan_for(state), state, [exam for exam in exams if exam.split is Split.TEST], tmp_path)


def test_losses_that_are_not_finite_end_the_visit_with_a_dump_of_numbers(
    tmp_path: Path, exams: list[Exam], state: Path
) -> None:
    wild = TASK.model_copy(
        update={"optimizer": TASK.optimizer.model_copy(update={"learning_rate": 1e30, "most_skipped": 2})}
    )

    with pytest.raises(VisitFailed, match="NOT_FINITE_LOSS"):
        train(plan_for(state, task=wild), state, exams, tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    dump = json.loads((tmp_path / "kept" / "not-finite.json").read_text())
    assert set(dump) == {"steps", "tensors"}
    assert [step["loss"] for step in dump["steps"]] == ["nan", "nan"]
    assert set(dump["tensors"]["log_scale"]) == {"norm", "num_not_finite"}


def test_the_loss_of_a_data_set_of_too_few_patients_is_not_told(tmp_path: Path, exams: list[Exam], state: Path) -> None:
    several = [replace(exam, dataset="few" if place < 3 else "many") for place, exam in enumerate(exams)]
    assert [exam.split for exam in several[:8]] == [Split.TRAIN] * 8
    data = SiteData(several, ("few", "many"), TEXT_ENCODER, least_cell=4)

    train_visit(plan_for(state), files_of(state, tmp_path), data, Hardware(threads=1), lambda progress: None)

    told = json.loads((tmp_path / "metrics.json").read_text())
    assert "loss/d2" in told
    assert "loss/d1" not in told


def test_a_visit_validates_what_it_received_and_what_it_sends(tmp_path: Path, exams: list[Exam], state: Path) -> None:
    held_out = [replace(exam, split=Split.VALIDATION) if exam.split is Split.TEST else exam for exam in exams]
    plan = plan_for(state)
    files = files_of(state, tmp_path)

    train_visit(plan, files, data_of(held_out), Hardware(threads=1), lambda progress: None)

    told = json.loads((tmp_path / "metrics.json").read_text())
    check_metrics(plan, told)
    of = {
        when: {n.partition("/")[2]: v for n, v in told.items() if n.startswith(when)} for when in ("received", "sent")
    }
    assert of["received"].keys() == of["sent"].keys() >= {"recall_at_1/d1", "recall_at_10/d1", "auroc/mass/d1"}
    assert of["received"] != of["sent"]
    # A visit that is cut tells of the received model what it found first.
    assert json.loads((files.kept / "received.json").read_text()) == of["received"]


def test_memory_that_runs_out_is_told_apart_from_other_failures(
    tmp_path: Path, exams: list[Exam], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = DualEncoder.forward

    def hungry(model: DualEncoder, greys: torch.Tensor, *texts: torch.Tensor) -> object:
        if len(greys) > 2:
            torch.empty(2**55, dtype=torch.uint8)  # the allocator itself refuses
        return forward(model, greys, *texts)

    monkeypatch.setattr(DualEncoder, "forward", hungry)

    with pytest.raises(VisitFailed, match="OUT_OF_MEMORY"):
        train(plan_for(state), state, exams, tmp_path / "whole")
    small = Hardware(threads=1, micro_batch=2)
    train_visit(plan_for(state), files_of(state, tmp_path / "chunks"), data_of(exams), small, lambda progress: None)
    metrics = json.loads((tmp_path / "chunks" / "metrics.json").read_text())
    assert (metrics["micro_batch"], metrics["num_samples"]) == (2, 16)


def test_a_visit_that_pauses_stops_after_the_step_in_hand_and_goes_on_to_the_same_bits(
    tmp_path: Path, exams: list[Exam], state: Path
) -> None:
    plan = plan_for(state)
    train(plan, state, exams, tmp_path / "undisturbed")
    files = files_of(state, tmp_path / "paused")
    steps: list[int] = []

    def pause_after_two(progress: Progress) -> None:
        steps.append(progress.step)
        if progress.step == 2:
            (files.kept / "pause").touch()

    with pytest.raises(VisitFailed, match="OUT_OF_HOURS: the visit pauses after 2 steps"):
        train_visit(plan, files, data_of(exams), Hardware(threads=1), pause_after_two)
    (files.kept / "pause").unlink()
    train_visit(plan, files, data_of(exams), Hardware(threads=1), lambda progress: steps.append(progress.step))

    assert steps == [1, 2, 3, 4], "no step is done twice"
    for name in ("update.safetensors", "moments.safetensors"):
        assert sha(tmp_path / "paused" / name) == sha(tmp_path / "undisturbed" / name)


def test_the_number_of_loaders_changes_no_bit(tmp_path: Path, exams: list[Exam], state: Path) -> None:
    frozen = TASK.model_copy(
        update={
            "image_encoder": TASK.image_encoder.model_copy(update={"batch_norm": "frozen"}),
            "augmentation": TASK.augmentation.model_copy(update={"natural_view": False}),
        }
    )
    plan = plan_for(state, task=frozen)
    for name, loaders in (("one", 1), ("three", 3)):
        data = replace(data_of(exams), loaders=loaders)
        train_visit(plan, files_of(state, tmp_path / name), data, Hardware(threads=1), lambda progress: None)

    assert sha(tmp_path / "one/update.safetensors") == sha(tmp_path / "three/update.safetensors")


def test_a_state_of_another_model_is_refused(tmp_path: Path, exams: list[Exam], state: Path) -> None:
    wider = TASK.model_copy(update={"projection_dim": 24})
    with pytest.raises(VisitFailed, match="TENSOR_SHAPE"):
        train(plan_for(state, task=wider), state, exams, tmp_path)


def test_the_proximal_term_holds_a_visit_near_what_it_received(tmp_path: Path, exams: list[Exam], state: Path) -> None:
    moved = []
    for mu in (0.0, 1e4):
        out = tmp_path / str(mu)
        train(plan_for(state, proximal_mu=mu, epochs=2), state, exams, out)
        with Payload(state) as before, Payload(out / "update.safetensors") as after:
            names = [name for name in before if "running_" not in name and "num_batches" not in name]
            moved.append(sum(float(np.square(after[name] - before[name]).sum()) for name in names))
    assert moved[1] < 0.8 * moved[0]
