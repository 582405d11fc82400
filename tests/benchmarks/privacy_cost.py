"""What noise costs: the same training without and with it, on phantom exams; prints the tables of docs/privacy.md.

    .venv/bin/python tests/benchmarks/privacy_cost.py patients     8 min on one core
    .venv/bin/python tests/benchmarks/privacy_cost.py contribution 3 min

**patients**: task `text` of the demo's encoder at one site, 2,000 patients with one report each, 10 visits of one
epoch, with the least noise by which ε after all of them is as said. Scored on 500 other reports: share of hidden words
found.

**contribution**: task `pretrain` of the demo's image encoder with frozen statistics at one site, 200 exams, 10 visits
of one epoch. The clip norm is the median norm of an update without noise. Scored on 150 other exams: zero-shot AUROC of
masses.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.config.privacy import DpSgdSettings
from mammofed_shared.config.tasks import TaskSettings
from mammofed_shared.config.text_adaptation import TextSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.data.phantom import Population, phantom_exam
from mammofed_shared.errors import VisitFailed
from mammofed_shared.exam import Exam, Image, Laterality, Split, View
from mammofed_shared.protocol.payload import reference_of
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.report.templates import narrative_report
from mammofed_shared.training.dp_sgd import patient_epsilon
from mammofed_shared.training.dp_sgd_account import DpSgdOrder, Spent
from mammofed_shared.training.evaluation_visit import evaluate_visit
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.visit import VisitFiles, initial_state, train_visit
from mammofed_site.gaussian_accountant import contribution_epsilon
from mammofed_site.update_noise import measured_norm, write_noised

TEXT_ENCODER = Path(__file__).parents[2] / "configs/text_encoder/demo"
EPSILONS = (None, 30.0, 8.0, 3.0, 1.0)
MULTIPLIERS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 4.0)
POPULATION = Population(mass_prevalence=0.5, calcification_prevalence=0.3)
TEXT = TextSettings.model_validate(
    {
        "text_encoder": {"weights": "none", "max_tokens": 64, "activation_checkpointing": False},
        "swapped_share": 0.0,
        "optimizer": {"learning_rate": 1e-3},
        "batch_size": 128,
        "precision": "fp32",
        "validation_exams": 0,
    }
)
IMAGES = PretrainSettings.model_validate(
    {
        "image_encoder": {
            "name": "mammofed_small_cnn",
            "weights": "none",
            "pooling": "avgmax",
            "activation_checkpointing": False,
            "batch_norm": "frozen",
        },
        "text_encoder": {"weights": "none", "max_tokens": 64, "activation_checkpointing": False},
        "projection_dim": 64,
        "optimizer": {"learning_rate": 2e-3},
        "precision": "fp32",
        "findings": ["mass"],
    }
)


def exams_of(num_train: int, num_test: int, folder: Path | None) -> list[Exam]:
    """Phantom exams; with images below ``folder``, 128 × 80, or with reports alone."""
    exams = []
    for number in range(num_train + num_test):
        drawn = phantom_exam(7, number, POPULATION, shape=(128, 80) if folder else (19, 12))
        images = []
        for (laterality, view), pixels in drawn.images.items() if folder else ():
            path = folder / f"{number}-{laterality}{view}.png"  # type: ignore[operator]
            left = pixels if laterality == "L" else pixels[:, ::-1]
            cv2.imwrite(str(path), np.round(np.ascontiguousarray(left) * 255).astype(np.uint8))
            images.append(Image(f"{number}", Laterality(laterality), View(view), path, "other", ""))
        exams.append(
            Exam(
                exam=f"e{number}",
                patient=f"p{number}",
                dataset="one",
                split=Split.TRAIN if number < num_train else Split.TEST,
                report=narrative_report(drawn.structured(), drawn.density, drawn.birads),
                images=tuple(images),
                labels={"mass": drawn.has("mass")},
                density=drawn.density,
            )
        )
    return exams


class Site:
    """One site that trains a run alone."""

    def __init__(self, task: TaskSettings, exams: list[Exam], folder: Path) -> None:
        self._task = task
        self._data = SiteData(exams, ("one",), TEXT_ENCODER, least_cell=2)
        self._folder = folder
        folder.mkdir()
        self.state = folder / "state-0"
        initial_state(task, text_encoder=TEXT_ENCODER, seed=1, out=self.state)
        self._moments: Path | None = None

    def train(self, visit: int, visits: int, order: DpSgdOrder | None = None) -> Path:
        """One visit of one epoch; the file of its update."""
        out = self._folder / f"visit-{visit}"
        files = VisitFiles(self.state, self._moments, out, out, checkpoint_every_s=1e9)
        out.mkdir()
        plan = self._plan("train", visit, visits)
        train_visit(plan, files, self._data, Hardware(threads=1), lambda progress: None, order)
        self._moments = out / "moments.safetensors"
        return out / "update.safetensors"

    def score(self, name: str) -> float:
        """A number of the evaluation of the state."""
        files = VisitFiles(self.state, None, self._folder, self._folder, checkpoint_every_s=1e9)
        evaluate_visit(self._plan("evaluate", 0, 1), files, self._data, Hardware(threads=1), lambda progress: None)
        return float(json.loads((self._folder / "metrics.json").read_text())[name])

    def _plan(self, kind: str, visit: int, visits: int) -> Plan:
        return Plan.model_validate(
            {
                "task_id": f"cost/r0001/v{visit:05d}/mayo/{kind}", "run": "cost", "round": 1, "visit": visit,
                "site": "mayo", "kind": kind, "epochs": 1, "epochs_before": visit, "epochs_total": visits, "seed": 1,
                "task": self._task, "preprocessing": "0" * 64, "text_encoder": folder_digest(TEXT_ENCODER),
                "state": reference_of(self.state), "configuration": "0" * 64, "rounds_total": visits, "num_sites": 1,
            }
        )  # fmt: skip


def least_noise(epsilon: float, steps: int, sample_rate: float, delta: float) -> float:
    """The smallest noise multiplier, to a hundredth, that stays within ε."""
    low, high = 0.1, 100.0
    while high - low > 0.005:
        middle = (low + high) / 2
        cost = Spent(noise_multiplier=middle, sample_rate=sample_rate, steps=steps)
        low, high = (middle, high) if patient_epsilon([cost], delta) > epsilon else (low, middle)
    return round(high + 0.005, 2)


def patients(folder: Path) -> Iterator[str]:
    """DP-SGD: rows of a table."""
    visits, delta = 10, 1e-4
    exams = exams_of(2000, 500, None)
    steps = -(-2000 // TEXT.batch_size)
    yield "| ε at δ 10⁻⁴ | noise multiplier | hidden words found | their loss | seconds a visit |"
    yield "|---|---|---|---|---|"
    untrained = Site(TEXT, exams, folder / "untrained")
    yield f"| untrained | – | {untrained.score('mlm_accuracy'):.3f} | {untrained.score('mlm_loss'):.2f} | – |"
    for epsilon in EPSILONS:
        site = Site(TEXT, exams, folder / f"patients-{epsilon}")
        sigma = least_noise(epsilon, visits * steps, 1 / steps, delta) if epsilon else None
        began_s = time.monotonic()
        for visit in range(visits):
            wanted = (
                DpSgdSettings(clip_norm=1.0, noise_multiplier=sigma, delta=delta, largest_epsilon=1e6)
                if sigma
                else None
            )
            site.state = site.train(visit, visits, DpSgdOrder(settings=wanted) if wanted else None)
        took_s = (time.monotonic() - began_s) / visits
        told = f"{epsilon:g} | {sigma:g}" if epsilon else "∞: no DP-SGD | –"
        yield f"| {told} | {site.score('mlm_accuracy'):.3f} | {site.score('mlm_loss'):.2f} | {took_s:.1f} |"


def contribution(folder: Path) -> Iterator[str]:
    """Noise on updates: rows of a table."""
    visits, delta = 10, 1e-5
    (folder / "images").mkdir()
    exams = exams_of(200, 150, folder / "images")
    plain = Site(IMAGES, exams, folder / "plain")
    untrained = plain.score("auroc/mass")
    norms = []
    for visit in range(visits):
        update = plain.train(visit, visits)
        norms.append(measured_norm(update, plain.state))
        plain.state = update
    clip_norm = statistics.median(norms)
    num_values = plain.state.stat().st_size // 4
    yield f"{num_values} values; norm of an update {min(norms):.1f} to {max(norms):.1f}, clipped to {clip_norm:.1f}"
    yield "| ε at δ 10⁻⁵ | noise multiplier | noise / update, as norms | AUROC of masses |"
    yield "|---|---|---|---|"
    yield f"| untrained | – | – | {untrained:.2f} |"
    yield f"| ∞: no noise | – | 0 | {plain.score('auroc/mass'):.2f} |"
    for sigma in MULTIPLIERS:
        site = Site(IMAGES, exams, folder / f"contribution-{sigma}")
        try:
            for visit in range(visits):
                update = site.train(visit, visits)
                site.state = _released(update, site.state, clip_norm, sigma, visit)
            scored = f"{site.score('auroc/mass'):.2f}"
        except VisitFailed as error:
            scored = f"none: {error.code.name}"
        told = f"{contribution_epsilon([sigma] * visits, delta):.2g} | {sigma:g}" if sigma else "∞: clipped only | –"
        yield f"| {told} | {sigma * num_values**0.5:.2g} | {scored} |"


def _released(update: Path, state: Path, clip_norm: float, sigma: float, visit: int) -> Path:
    out = update.with_name("released")
    norm = measured_norm(update, state)
    write_noised(
        update, state, out, norm=norm, clip_norm=clip_norm, noise_multiplier=sigma or 1e-12,
        key=visit.to_bytes(32, "big"),
    )  # fmt: skip
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("patients", "contribution"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for line in {"patients": patients, "contribution": contribution}[asked.what](Path(name)):
            print(line, flush=True)
