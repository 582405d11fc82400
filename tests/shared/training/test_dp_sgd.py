"""DP-SGD by patients: what one patient adds has a norm, noise its size, ε is the library's, a cut visit goes on."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.accountants import RDPAccountant
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from mammofed_shared.config.pretrain import OptimizerSettings, PretrainSettings
from mammofed_shared.config.privacy import DpSgdSettings, dp_sgd_obstacle, update_noise_obstacle
from mammofed_shared.config.text_adaptation import TextSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.exam import Exam
from mammofed_shared.protocol.payload import Payload, reference_of
from mammofed_shared.protocol.plan import Plan, Progress
from mammofed_shared.training.dp_sgd import ORDERS, bind_private, open_private_visit, patient_epsilon
from mammofed_shared.training.dp_sgd_account import DpSgdAccount, DpSgdOrder, Spent
from mammofed_shared.training.engine import WholeModelEngine
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.private_step import PatientShare, PrivateGradients
from mammofed_shared.training.private_text import MOST_REPORTS, PrivateTextTask
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.step import Losses
from mammofed_shared.training.text import build_model
from mammofed_shared.training.visit import VisitFiles, initial_state, train_visit
from prepared import SMALL, TEXT_ENCODER
from report_exams import report_exams

SECRET = bytes(range(32))
GROUP = WorkerGroup(Hardware(threads=1))
TEXT = TextSettings.model_validate(
    {
        "text_encoder": {"weights": "none", "max_tokens": 64, "activation_checkpointing": False},
        "swapped_share": 0.0,
        "batch_size": 8,
        "precision": "fp32",
        "optimizer": {"learning_rate": 1e-3, "warmup_epochs": 0},
    }
)
PRIVATE = DpSgdSettings(clip_norm=0.5, noise_multiplier=1.0, delta=1e-4, largest_epsilon=50)


class Words(nn.Module):
    """A table of words and a layer: small, and of layers that the library knows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(11, 6)
        self.layer = nn.Linear(6, 3)

    def forward(self, ids_BT: Tensor) -> tuple[Tensor]:
        return (self.layer(self.table(ids_BT).mean(dim=1)),)


class WordTask:
    """What the step needs of a task; the loss of a sample is the square of what the model says."""

    num_steps = 1

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def losses(self, outputs: tuple[Tensor, ...]) -> Losses:
        rows = outputs[0].square().sum(dim=1)
        return Losses(rows.mean(), {}, rows)


def engine_of(model: nn.Module) -> WholeModelEngine:
    return WholeModelEngine(model, GROUP, weight_decay=0.0, clip_norm=1.0, is_fp16=False)


def share_of(*patients: np.ndarray) -> PatientShare:
    num_samples = sum(map(len, patients))
    return PatientShare((), (num_samples,), np.zeros(0, np.int64), patients=tuple((ids,) for ids in patients))


def gradient_of(
    share: PatientShare,
    settings: DpSgdSettings,
    *,
    expected: float = 1.0,
    micro_batch: int | None = None,
    seed: int = 1,
) -> dict[str, Tensor]:
    model = Words()
    found = PrivateGradients(settings, SECRET, expected)(
        WordTask(model),  # type: ignore[arg-type]
        engine_of(model), GROUP, share, "fp32", micro_batch, seed,
    )  # fmt: skip
    assert np.isfinite(found["loss"])
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def norm_of(gradient: dict[str, Tensor]) -> float:
    return float(torch.cat([part.reshape(-1) for part in gradient.values()]).norm())


def almost_without_noise(clip_norm: float) -> DpSgdSettings:
    return DpSgdSettings(clip_norm=clip_norm, noise_multiplier=1e-6, largest_epsilon=1)


PATIENTS = [np.random.default_rng(number).integers(0, 11, (1 + number % 3, 5)) for number in range(6)]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
def test_the_gradient_is_the_librarys_where_each_patient_has_one_sample() -> None:
    samples = [ids[:1] for ids in PATIENTS]
    library = GradSampleModule(Words(), loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(library.parameters(), lr=1.0),
        noise_multiplier=0.0, max_grad_norm=0.02, expected_batch_size=4, loss_reduction="mean",
    )  # fmt: skip
    library(torch.from_numpy(np.concatenate(samples)))[0].square().sum().backward()
    optimizer.pre_step()

    ours = gradient_of(share_of(*samples), almost_without_noise(0.02), expected=4)

    for name, parameter in library._module.named_parameters():
        np.testing.assert_allclose(ours[name].numpy(), parameter.grad.numpy(), atol=2e-7, err_msg=name)


@pytest.mark.parametrize("number", range(3))
def test_what_one_patient_adds_has_the_norm_whatever_her_number_of_samples(number: int) -> None:
    others = PATIENTS[3:]
    with_her = gradient_of(share_of(PATIENTS[number], *others), almost_without_noise(0.02))
    without = gradient_of(share_of(*others), almost_without_noise(0.02))

    part = {name: with_her[name] - without[name] for name in without}

    assert norm_of(part) == pytest.approx(0.02, rel=1e-3), "a gradient that was longer"
    unclipped = gradient_of(share_of(PATIENTS[number]), almost_without_noise(1e3))
    assert norm_of(unclipped) > 0.02


def test_a_patients_samples_in_chunks_give_the_same_gradient() -> None:
    whole = gradient_of(share_of(*PATIENTS), almost_without_noise(0.1))
    chunked = gradient_of(share_of(*PATIENTS), almost_without_noise(0.1), micro_batch=1)

    for name, part in whole.items():
        np.testing.assert_allclose(chunked[name].numpy(), part.numpy(), atol=1e-6)


def test_noise_has_the_standard_deviation_that_was_asked_for_also_where_nobody_stands_in_the_step() -> None:
    settings = DpSgdSettings(clip_norm=0.5, noise_multiplier=3.0, largest_epsilon=1)
    drawn = [gradient_of(share_of(), settings, expected=2, seed=seed) for seed in range(60)]

    values = torch.cat([part.reshape(-1) for gradient in drawn for part in gradient.values()])

    assert values.std() == pytest.approx(0.5 * 3.0 / 2, rel=0.03) and abs(float(values.mean())) < 0.05
    assert not torch.equal(drawn[0]["table.weight"], drawn[1]["table.weight"]), "each step its own"
    again = gradient_of(share_of(), settings, expected=2, seed=0)
    assert torch.equal(again["table.weight"], drawn[0]["table.weight"]), "a step that is done again, the same"


def test_a_patient_whose_gradient_is_not_finite_adds_nothing() -> None:
    class Broken(WordTask):
        def losses(self, outputs: tuple[Tensor, ...]) -> Losses:
            found = super().losses(outputs)
            assert found.rows is not None
            return Losses(found.loss, {}, found.rows * (torch.inf if len(outputs[0]) == 3 else 1))

    model = Words()
    PrivateGradients(almost_without_noise(0.1), SECRET, 1.0)(
        Broken(model),  # type: ignore[arg-type]
        engine_of(model), GROUP, share_of(PATIENTS[0], PATIENTS[2]), "fp32", None, 1,
    )  # fmt: skip

    expected = gradient_of(share_of(PATIENTS[0]), almost_without_noise(0.1))
    assert len(PATIENTS[2]) == 3
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), expected[name].numpy(), atol=1e-6)


# ── who stands in a step ────────────────────────────────────────────────────────────────────────────────────────


def exams_of(num_patients: int, most: int = 3) -> list[Exam]:
    """Patients with 1 to ``most`` exams each."""
    exams = iter(report_exams(num_patients * most))
    return [
        dataclasses.replace(next(exams), patient=f"p{number:03d}")
        for number in range(num_patients)
        for _ in range(1 + number % most)
    ]


def task_of(exams: list[Exam], secret: bytes = SECRET, settings: TextSettings = TEXT) -> PrivateTextTask:
    torch.manual_seed(0)
    data = SiteData(exams, ("one",), TEXT_ENCODER, 2)
    return PrivateTextTask(settings, build_model(settings, TEXT_ENCODER, True), data, GROUP, secret)


def rows(share: object) -> list[bytes]:
    assert isinstance(share, PatientShare)
    return [b"".join(array.tobytes() for array in inputs) for inputs in share.patients]


def test_each_patient_stands_in_a_step_with_the_same_probability_alone_and_in_secret() -> None:
    task = task_of(exams_of(40))
    sizes = [len(share.patients) for epoch in range(30) for share in task.shares(1, epoch, 0)]  # type: ignore[attr-defined]

    assert task.num_patients == 40 and task.num_steps == 10 and task.sample_rate == 0.1
    assert np.mean(sizes) == pytest.approx(4, abs=4 * 1.9 / np.sqrt(len(sizes)))
    assert np.var(sizes) == pytest.approx(40 * 0.1 * 0.9, rel=0.35), "of a Poisson sample; a dealt one has none"
    first = [rows(share) for share in task.shares(1, 0, 0)]
    assert first == [rows(share) for share in task.shares(2, 0, 0)], "the coordinator's seed decides nothing"
    assert first[4:] == [rows(share) for share in task.shares(1, 0, 4)], "goes on where it was cut"
    assert first != [rows(share) for share in task_of(exams_of(40), bytes(32)).shares(1, 0, 0)]


def test_all_reports_of_a_patient_stand_together_and_are_no_more_than_her_share() -> None:
    exams = report_exams(23)
    hers = [dataclasses.replace(exam, patient="p0") for exam in exams[:20]]
    task = task_of(hers + exams[20:], settings=TEXT.model_copy(update={"batch_size": 64}))

    [share] = list(task.shares(1, 0, 0))

    assert task.num_steps == 1 and task.sample_rate == 1 and task.num_patients == 4
    assert isinstance(share, PatientShare)
    assert sorted(len(inputs[0]) for inputs in share.patients) == [1, 1, 1, MOST_REPORTS]
    assert sum(share.sizes) == 3 + MOST_REPORTS
    assert {tuple(inputs[3].tolist()) for inputs in share.patients} == {(1,), (1,) * MOST_REPORTS}, "no swapped section"


# ── what it costs ───────────────────────────────────────────────────────────────────────────────────────────────


def test_epsilon_is_the_librarys_and_grows_over_visits_of_any_settings() -> None:
    costs = [
        Spent(noise_multiplier=1.1, sample_rate=0.05, steps=100),
        Spent(noise_multiplier=0.8, sample_rate=0.2, steps=7),
    ]
    accountant = RDPAccountant()
    for cost in costs:
        for _ in range(cost.steps):
            accountant.step(noise_multiplier=cost.noise_multiplier, sample_rate=cost.sample_rate)

    assert patient_epsilon(costs, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5, alphas=ORDERS), rel=1e-12)
    assert patient_epsilon(costs, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-3), "with its own orders"
    assert 0 == patient_epsilon([], 1e-5) < patient_epsilon(costs[:1], 1e-5) < patient_epsilon(costs, 1e-5)


def test_a_visit_that_would_cost_more_than_is_left_is_refused_before_its_first_step() -> None:
    task = task_of(exams_of(40))
    price = open_private_visit(DpSgdOrder(settings=PRIVATE), task, 2, SECRET).account

    assert price.cost == Spent(noise_multiplier=1.0, sample_rate=0.1, steps=20)
    assert price.epsilon == patient_epsilon([price.cost], 1e-4)
    tight = PRIVATE.model_copy(update={"largest_epsilon": price.epsilon})
    assert open_private_visit(DpSgdOrder(settings=tight), task, 2, SECRET).account == price
    with pytest.raises(VisitFailed, match="largest_epsilon") as refused:
        open_private_visit(DpSgdOrder(settings=tight, spent=(price.cost,)), task, 1, SECRET)
    assert refused.value.code is RefusalCode.PRIVACY_BUDGET


def test_a_delta_that_would_allow_to_tell_of_a_patient_outright_is_refused() -> None:
    loose = PRIVATE.model_copy(update={"delta": 1 / 40})
    with pytest.raises(VisitFailed, match="δ of 1 / patients"):
        open_private_visit(DpSgdOrder(settings=loose), task_of(exams_of(40)), 1, SECRET)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (PretrainSettings(), "contrasts each sample with all others"),
        (TextSettings(), "another patient's impression"),
        (TextSettings(swapped_share=0, precision="fp16"), "fp16"),
    ],
)
def test_tasks_whose_gradient_is_not_a_sum_over_patients_are_refused(
    task: PretrainSettings | TextSettings, said: str, tmp_path: Path
) -> None:
    (tmp_path / "state").write_bytes(b"")
    plan = plan_for(tmp_path / "state", task=task)
    assert said in str(dp_sgd_obstacle(task))
    with pytest.raises(VisitFailed, match=said):
        bind_private(DpSgdOrder(settings=PRIVATE), plan, None, SiteData([], (), TEXT_ENCODER, 2), GROUP, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_layer_that_mixes_patients_is_refused() -> None:
    torch.manual_seed(0)
    model = build_model(TEXT, TEXT_ENCODER, True)
    model.pair_head.append(nn.BatchNorm1d(1))
    with pytest.raises(VisitFailed, match="layers do not allow it") as refused:
        PrivateTextTask(TEXT, model, SiteData(exams_of(4), ("one",), TEXT_ENCODER, 2), GROUP, SECRET)
    assert refused.value.code is RefusalCode.SETTINGS


def test_noise_on_updates_needs_frozen_statistics_and_text_has_none() -> None:
    frozen = PretrainSettings.model_validate({"image_encoder": {"batch_norm": "frozen"}})
    assert "batch_norm to frozen" in str(update_noise_obstacle(PretrainSettings()))
    assert update_noise_obstacle(frozen) is None and update_noise_obstacle(TextSettings()) is None


# ── a visit ─────────────────────────────────────────────────────────────────────────────────────────────────────


def plan_for(state: Path, **changes: object) -> Plan:
    values = {
        "task_id": "run/r0001/v00001/mayo/train", "run": "run", "round": 1, "visit": 1, "site": "mayo", "kind": "train",
        "epochs": 2, "epochs_before": 0, "epochs_total": 2, "seed": 9, "task": TEXT, "configuration": "0" * 64,
        "preprocessing": SMALL.digest, "text_encoder": folder_digest(TEXT_ENCODER), "rounds_total": 1, "num_sites": 1,
    }  # fmt: skip
    return Plan.model_validate(values | {"state": reference_of(state)} | changes)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    initial_state(TEXT, text_encoder=TEXT_ENCODER, seed=3, out=path)
    return path


class Killed(Exception):
    """Stands for the end of the process."""


def visit(state: Path, folder: Path, report: Callable[[Progress], None] = lambda progress: None) -> str:
    """Do a visit that writes a checkpoint after each step; the digest of its update."""
    kept, out = folder / "kept", folder / "out"
    kept.mkdir(parents=True, exist_ok=True)
    out.mkdir(exist_ok=True)
    files = VisitFiles(state, None, out, kept, checkpoint_every_s=0)
    data = SiteData(exams_of(20), ("one",), TEXT_ENCODER, 2)
    train_visit(plan_for(state), files, data, Hardware(threads=1), report, DpSgdOrder(settings=PRIVATE))
    return hashlib.sha256((out / "update.safetensors").read_bytes()).hexdigest()


def test_a_visit_that_was_cut_goes_on_with_its_own_noise_to_the_same_bits_and_a_new_one_draws_anew(
    tmp_path: Path, state: Path
) -> None:
    def kill(progress: Progress) -> None:
        if progress.step == 7:
            raise Killed

    with pytest.raises(Killed):
        visit(state, tmp_path / "cut", kill)
    secret = (tmp_path / "cut/kept/noise.secret").read_bytes()
    assert len(secret) == 32 and (tmp_path / "cut/kept/noise.secret").stat().st_mode & 0o077 == 0
    (tmp_path / "whole/kept").mkdir(parents=True)
    (tmp_path / "whole/kept/noise.secret").write_bytes(secret)

    went_on = visit(state, tmp_path / "cut")

    assert went_on == visit(state, tmp_path / "whole")
    assert went_on != visit(state, tmp_path / "anew")


def test_a_visit_moves_all_that_is_trained_and_writes_down_what_it_cost(tmp_path: Path, state: Path) -> None:
    visit(state, tmp_path)

    account = DpSgdAccount.model_validate_json((tmp_path / "out/privacy.json").read_text())
    numbers = json.loads((tmp_path / "out/metrics.json").read_text())
    assert account.cost == Spent(noise_multiplier=1.0, sample_rate=0.2, steps=10) and numbers["num_steps"] == 10
    assert account.epsilon == patient_epsilon([account.cost], PRIVATE.delta) and account.clip_norm == 0.5
    with Payload(state) as before, Payload(tmp_path / "out/update.safetensors") as after:
        assert {name for name in after if np.array_equal(before[name], after[name])} == set()
        assert all(np.isfinite(after[name]).all() for name in after)


def test_the_noise_of_a_step_reaches_the_optimizer_as_the_gradient() -> None:
    model = Words()
    engine = WholeModelEngine(model, GROUP, weight_decay=0.0, clip_norm=1e9, is_fp16=False)
    settings = DpSgdSettings(clip_norm=1.0, noise_multiplier=2.0, largest_epsilon=1)
    PrivateGradients(settings, SECRET, 1.0)(WordTask(model), engine, GROUP, share_of(), "fp32", None, 1)  # type: ignore[arg-type]

    norm = engine.step(OptimizerSettings().learning_rate)

    num_values = sum(parameter.numel() for parameter in model.parameters())
    assert norm == pytest.approx(2.0 * np.sqrt(num_values), rel=0.25)
