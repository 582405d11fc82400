"""Samples per second that one process reads for the task `pretrain`, with one loader thread and with two.

    .venv/bin/python tests/benchmarks/loading.py [--size 1520 912] [--steps 12] [--tokenizer FOLDER]

What training does (PNG decode, second view, texts, tokens), from phantom images of the preset `paper`'s size, once with
each breast's other view and once with a synthetic one. Batches are the preset's 16 samples of 2 images. Ends with exit
code 1 if two loaders need 0.8 s or more for a batch of which half the images are synthetic, or are less than 1.7 times
as fast as one.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from mammofed_shared.config.pretrain import AugmentationSettings, ImageEncoderSettings, PretrainSettings
from mammofed_shared.data.phantom import PhantomExam, Population, phantom_exam
from mammofed_shared.exam import Exam, Image, Report, Split
from mammofed_shared.report.templates import narrative_report
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.pretrain import PretrainTask, build_model
from mammofed_shared.training.site_data import SiteData

TEXT_ENCODER = Path(__file__).parents[2] / "configs/text_encoder/demo"
NUM_DRAWN = 8
"""Exams that are drawn; all others look like one of them."""
REPEATS = 5
MOST_S = 0.8
LEAST_SCALING = 1.7


def main() -> int:
    """Time both kinds of second view with one loader and with two."""
    parser = argparse.ArgumentParser(description="Samples per second that one process reads for `pretrain`.")
    parser.add_argument("--size", type=int, nargs=2, default=(1520, 912), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--steps", type=int, default=12, help="timed batches of each row")
    parser.add_argument("--tokenizer", type=Path, default=TEXT_ENCODER, help="folder with tokenizer.json")
    args = parser.parse_args()
    cv2.setNumThreads(1)  # as a visit does
    is_fine = True
    with tempfile.TemporaryDirectory() as folder:
        # One epoch is enough for all batches: at its beginning nothing has been read ahead.
        exams = phantom_exams(Path(folder), tuple(args.size), 8 * (args.steps + 3))
        for natural in (True, False):
            one, two = best_of(REPEATS, exams, args.tokenizer, args.steps, natural=natural)
            kind = "the other view" if natural else "a synthetic view"
            print(
                f"{kind:17}  one loader {one:.3f} s a batch ({16 / one:5.1f} samples/s), two {two:.3f} s "
                f"({16 / two:5.1f} samples/s): {one / two:.2f} times as fast"
            )
            is_fine &= two < MOST_S and one / two >= LEAST_SCALING
    return int(not is_fine)


def phantom_exams(folder: Path, size: tuple[int, int], num_exams: int) -> list[Exam]:
    """Training exams whose images lie as PNG below ``folder``; few files, so read from memory."""
    population = Population(mass_prevalence=0.5, calcification_prevalence=0.5)
    drawn = [phantom_exam(1, number, population, shape=size) for number in range(NUM_DRAWN)]
    images = [_written(folder / str(number), found) for number, found in enumerate(drawn)]
    exams = []
    for number in range(num_exams):
        found = drawn[number % NUM_DRAWN]
        report = narrative_report(found.structured(), found.density, found.birads)
        text = Report(report.findings, report.impression)
        shown = images[number % NUM_DRAWN]
        exams.append(Exam(f"e{number:04}", f"p{number:04}", "screening", Split.TRAIN, text, shown))
    return exams


def _written(folder: Path, exam: PhantomExam) -> tuple[Image, ...]:
    folder.mkdir()
    images = []
    for (laterality, view), pixels in exam.images.items():
        path = folder / f"{laterality}{view}.png"
        left = pixels if laterality == "L" else pixels[:, ::-1]
        cv2.imwrite(str(path), np.round(left * 255).astype(np.uint8))
        images.append(Image(path.stem, laterality, view, path, "other", ""))
    return tuple(images)


def best_of(repeats: int, exams: list[Exam], tokenizer: Path, num_steps: int, *, natural: bool) -> tuple[float, float]:
    """Seconds a batch with one loader and with two, in turn; the best of each, for others may use this machine too."""
    rows = [
        [batch_s(exams, tokenizer, loaders, num_steps, natural=natural) for loaders in (1, 2)] for _ in range(repeats)
    ]
    return min(row[0] for row in rows), min(row[1] for row in rows)


def batch_s(exams: list[Exam], tokenizer: Path, loaders: int, num_steps: int, *, natural: bool) -> float:
    """Seconds from one batch to the next when nothing else is done, over ``num_steps`` batches."""
    settings = PretrainSettings(
        image_encoder=ImageEncoderSettings(name="mammofed_small_cnn", weights="none"),
        augmentation=AugmentationSettings(natural_view=natural),
    )
    data = SiteData(exams, ("screening",), tokenizer, least_cell=10, loaders=loaders)
    task = PretrainTask(settings, build_model(settings, TEXT_ENCODER, False), data, WorkerGroup(Hardware()))
    began_s = 0.0
    for number, _ in enumerate(task.shares(0, 0, 0)):
        if number == loaders:  # all that was read ahead when the clock started is used up
            began_s = time.monotonic()
        if number == loaders + num_steps:
            break
    return (time.monotonic() - began_s) / num_steps


if __name__ == "__main__":
    sys.exit(main())
