"""The tasks ``risk-mirai`` and ``risk-asymmirai``: a head over the features of the frozen encoder (paper, Risk).

Shapes: B exams, T years.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from torch import Tensor

from mammofed_shared.config.risk import RiskAsymmiraiSettings, RiskMiraiSettings
from mammofed_shared.data.batches import epoch_batches, loaded_ahead, num_batches
from mammofed_shared.data.risk import RiskSamples, read_slots, risk_samples, target_arrays
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.exam import Exam, Split
from mammofed_shared.training.engine import Engine
from mammofed_shared.training.group import WorkerGroup, shares_of
from mammofed_shared.training.risk_model import RiskModel
from mammofed_shared.training.share import Share
from mammofed_shared.training.site_data import SiteData, require_shares
from mammofed_shared.training.step import Losses


class RiskTask:
    """A risk head on the exams of one site.

    Args:
        model: as ``build_model`` gives it, on the device.
        data: exams of the split ``train`` that have views and something to learn are used.

    Raises:
        VisitFailed: NO_DATA, with fewer than two such exams; SETTINGS, with fewer in a batch than processes.
    """

    def __init__(
        self,
        settings: RiskMiraiSettings | RiskAsymmiraiSettings,
        model: RiskModel,
        data: SiteData,
        group: WorkerGroup,
    ) -> None:
        self.settings = settings
        self.model = model
        found = training_samples(settings, data.exams)
        _require_samples(found)
        self._samples = found.samples
        require_shares(len(self._samples), self.num_steps, group.size)
        self._features = data.features(settings.features, group.device)
        self._counts = _told_counts(found, data.least_cell)
        self._loaders = data.loaders
        self._group = group
        self._number_of = data.told_numbers(sample.exam for sample in self._samples)
        if group.hardware.compile:
            model.head.compile()

    @property
    def num_steps(self) -> int:
        """Steps of one epoch."""
        return num_batches(self._samples, self.settings.batch_size)

    def shares(self, seed: int, epoch: int, start: int) -> Iterator[Share]:
        """This process's shares of an epoch, read ahead by threads."""
        order = epoch_batches(self._samples, self.settings.batch_size, np.random.default_rng([seed, epoch]))
        return loaded_ahead([partial(self._load, tuple(indices)) for indices in order[start:]], self._loaders)

    def losses(self, outputs: tuple[Tensor, ...]) -> Losses:
        """The mean over the exams of α · distillation + (1 − α) · outcome, or of the one that an exam has."""
        distilled_B, has_teacher_B, outcome_B, has_outcome_B = outputs
        alpha = self.settings.alpha
        row_B = (1 - (1 - alpha) * has_outcome_B) * distilled_B + (1 - alpha * has_teacher_B) * outcome_B
        parts: dict[str, Tensor] = {}
        for name, loss_B, has_B in (
            ("loss_distillation", distilled_B, has_teacher_B),
            ("loss_outcome", outcome_B, has_outcome_B),
        ):
            if has_B.sum() > 0:  # a step without any says nothing of it
                parts[name] = loss_B.sum() / has_B.sum()
        return Losses(row_B.mean(), parts, row_B)

    def after_step(self, engine: Engine) -> None:
        """Nothing needs to hold."""

    def numbers(self) -> dict[str, float]:
        """Numbers of the task after training, as they may leave the site."""
        return {"num_exams": float(len(self._samples)), **self._counts}

    def _load(self, indices: tuple[int, ...]) -> Share:
        sizes = shares_of(len(indices), self._group.size)
        first = sum(sizes[: self._group.rank])
        own = [self._samples[index] for index in indices[first : first + sizes[self._group.rank]]]
        datasets = [self._number_of[self._samples[index].exam.dataset] for index in indices]
        return Share(
            inputs=(
                *read_slots(self._features, [sample.slots for sample in own]),
                *target_arrays([sample.targets for sample in own]),
            ),
            sizes=sizes,
            datasets=np.array(datasets, np.int64),
        )


def training_samples(settings: RiskMiraiSettings | RiskAsymmiraiSettings, exams: Sequence[Exam]) -> RiskSamples:
    """What a head learns from, of a site's exams."""
    trained = [exam for exam in exams if exam.split is Split.TRAIN]
    return risk_samples(trained, settings.features, settings.missing_views, settings.alpha)


def _require_samples(found: RiskSamples) -> None:
    if len(found.samples) < 2:
        raise VisitFailed(
            RefusalCode.NO_DATA,
            f"a risk head needs at least 2 exams of the split train to learn from, found {len(found.samples)}; "
            f"{len(found.without_views)} more lack views, {len(found.without_targets)} a teacher's risks and an "
            "outcome: check `teacher` and `outcomes` of this site, and run `site-client preprocess` again",
        )


def _told_counts(found: RiskSamples, least_cell: int) -> dict[str, float]:
    """How many exams learn from what, and how many are left out, as far as that may leave the site."""
    exams = [sample.exam for sample in found.samples]
    with_teacher = [sample.exam for sample in found.samples if sample.targets.teacher is not None]
    with_outcome = [sample.exam for sample in found.samples if sample.targets.has_outcome]
    numbers = {
        "num_with_teacher": _told_share(with_teacher, exams, least_cell),
        "num_with_outcome": _told_share(with_outcome, exams, least_cell),
        "num_without_views": _told_share(found.without_views, found.without_views, least_cell),
        "num_without_targets": _told_share(found.without_targets, found.without_targets, least_cell),
    }
    return {name: value for name, value in numbers.items() if value is not None}


def _told_share(exams: Sequence[Exam], of_all: Sequence[Exam], least_cell: int) -> float | None:
    """Number of exams; None where too few patients stand behind them, or behind the others."""
    patients = {exam.patient for exam in exams}
    others = {exam.patient for exam in of_all} - patients
    is_told = len(patients) >= least_cell and (not others or len(others) >= least_cell)
    return float(len(exams)) if is_told else None
