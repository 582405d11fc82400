"""The task ``text`` with DP-SGD: the patients of a step are a Poisson sample, drawn in secret.

Each patient stands in a step with probability q = 1 / steps of an epoch, whoever else does, as the accountant assumes.
It also assumes that nobody knows the sample, so that is drawn from the visit's secret and not, as all else, from the
run's seed, which the coordinator knows. So are masks: drawn by place from a known seed, those of all later patients
would change when one goes.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
from opacus.validators import ModuleValidator

from mammofed_shared.config.text_adaptation import TextSettings
from mammofed_shared.data.batches import loaded_ahead
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.models.text_adaptation import TextAdaptation
from mammofed_shared.noise import NoiseStream, subkey
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.private_step import PatientShare
from mammofed_shared.training.share import Share
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.text import TextTask

MOST_REPORTS = 8
"""Of one patient in one step, drawn anew each time: she has one vote however many she has, and the memory an end."""


class PrivateTextTask(TextTask):
    """Text adaptation on the reports of one site, by patients.

    A patient is a pseudonym; one who is in two data sets under two numbers counts as two.

    Raises:
        VisitFailed: SETTINGS, a layer mixes samples; NO_DATA, as ``TextTask``.
    """

    def __init__(
        self, settings: TextSettings, model: TextAdaptation, data: SiteData, group: WorkerGroup, secret: bytes
    ) -> None:
        super().__init__(settings, model, data, group)
        errors = ModuleValidator.validate(model.train(), strict=False)
        if errors:
            raise VisitFailed(RefusalCode.SETTINGS, f"privacy.dp_sgd: the model's layers do not allow it: {errors[0]}")
        self._secret = secret
        reports: dict[str, list[int]] = {}
        for index, sample in enumerate(self._texts.samples):
            reports.setdefault(sample.exam.patient, []).append(index)
        self._reports = list(reports.values())

    @property
    def num_patients(self) -> int:
        """Patients with a text in the split train."""
        return len(self._reports)

    @property
    def sample_rate(self) -> float:
        """Probability that a patient stands in a step."""
        return 1 / self.num_steps

    def shares(self, seed: int, epoch: int, start: int) -> Iterator[Share]:
        """The steps of an epoch, read ahead by threads; the run's seed decides nothing of them."""
        loading = [partial(self._load_patients, epoch, step) for step in range(start, self.num_steps)]
        return loaded_ahead(loading, self._loaders)

    def _load_patients(self, epoch: int, step: int) -> Share:
        drawn = NoiseStream(subkey(self._secret, "sample", epoch, step)).uniforms(self.num_patients)
        patients = [self._load_patient(int(number), epoch, step) for number in np.flatnonzero(drawn < self.sample_rate)]
        num_reports = sum(len(inputs[0]) for inputs in patients)
        return PatientShare(inputs=(), sizes=(num_reports,), datasets=np.zeros(0, np.int64), patients=tuple(patients))

    def _load_patient(self, number: int, epoch: int, step: int) -> tuple[np.ndarray, ...]:
        random = np.random.default_rng(list(subkey(self._secret, "reports", epoch, step, number)))
        reports = random.permutation(self._reports[number])[:MOST_REPORTS].tolist()
        batch = self._reader.batch(reports, random.spawn(len(reports)))
        return batch.ids, batch.mask, batch.targets, batch.pairs
