"""What a site tells of a risk model: its numbers against cancers, against a label, against the teacher.

Shapes: N exams, T years.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from mammofed_shared.config.risk_metrics import AGE_WORDS, OUTCOME, PROXY, SPECIFICITIES, TEACHER, YEARS
from mammofed_shared.evaluation.calibration import calibration_numbers, tenth_numbers
from mammofed_shared.evaluation.cells import Cell, told_cells, told_groups
from mammofed_shared.evaluation.correlation import pearson
from mammofed_shared.evaluation.discrimination import Labelled, discrimination_numbers
from mammofed_shared.evaluation.histogram import score_histograms
from mammofed_shared.evaluation.operating_point import sensitivity_at
from mammofed_shared.evaluation.statistics import Values, estimated, ranking
from mammofed_shared.evaluation.survival import FollowUp, Mask, brier, concordance, follow_up_of
from mammofed_shared.evaluation.zero_shot import Evaluation, ExamScore
from mammofed_shared.exam import Exam

CANCER = "cancer"
"""Label of an exam of which nothing but cancer, now, is known; the risk of one year stands for it."""

_PRIORITY = ("year5", "year1", "year2", "year3", "year4", OUTCOME)
"""In which order cells are told until a difference would be of too few patients (``cells.py``)."""
_GRID_LOGITS = 12.0
"""Risks of 6 in a million and less, and their mirror image, share the outermost cells of the histograms' grid."""

_FAMILIES: dict[str, Callable[[Exam], str | None]] = {
    "density": lambda exam: f"density-{exam.density.lower()}" if exam.density else None,
    "age": lambda exam: AGE_WORDS[exam.age_band] if exam.age_band else None,
    "vendor": lambda exam: vendor_group(exam),
}


def evaluate_risk(exams: Sequence[Exam], risk_NT: Values, least_cell: int) -> Evaluation:
    """The numbers of ``config/risk_metrics.py`` that may leave the site, and each exam's risks, which stay.

    Args:
        exams: at least one; those without outcome, label and teacher count in ``num_exams`` alone.
        risk_NT: cumulative risks of 1 to 5 years, 0..1.
        least_cell: the site's; numbers of fewer patients are not among those that may leave.
    """
    numbers = {"num_exams": float(len(exams))}
    numbers |= outcome_numbers(exams, risk_NT, least_cell)
    numbers |= proxy_numbers(exams, risk_NT, least_cell)
    numbers |= teacher_numbers(exams, risk_NT, least_cell)
    return Evaluation(numbers, exam_scores(exams, risk_NT))


def validation_numbers(exams: Sequence[Exam], risk_NT: Values, least_cell: int) -> dict[str, float]:
    """AUROC of each year that may be told, with interval and counts: the numbers of ``RISK_VALIDATION``."""
    follow_up, patients = follow_up_of(exams), [exam.patient for exam in exams]
    cells = [_year_cell(follow_up, name) for name in _PRIORITY if name != OUTCOME]
    numbers: dict[str, float] = {}
    for cell in told_cells(cells, patients, least_cell):
        labelled = _labelled(cell, risk_NT[:, YEARS.index(cell.name)], patients)
        numbers |= _named(discrimination_numbers(labelled, least_cell), cell.name)
    return numbers


def outcome_numbers(exams: Sequence[Exam], risk_NT: Values, least_cell: int) -> dict[str, float]:
    """Numbers of the exams whose patients were followed for a year at least, or in whom cancer was found.

    ``suppressed/…`` of what is not told; nothing at all where there is no such exam.
    """
    follow_up = follow_up_of(exams)
    has_outcome_N = follow_up.known_by(1)
    if not has_outcome_N.any():
        return {}
    exams, risk_NT = _chosen(exams, has_outcome_N), risk_NT[has_outcome_N]
    follow_up, patients = follow_up.of(has_outcome_N), [exam.patient for exam in exams]
    cells = [_year_cell(follow_up, name) for name in _PRIORITY]
    told = {cell.name: cell for cell in told_cells(cells, patients, least_cell)}
    numbers = {f"suppressed/{name}": 1.0 for name in _PRIORITY if name not in told}
    for name, cell in told.items():
        if name == OUTCOME:
            numbers |= _concordance_numbers(cell, follow_up, risk_NT, patients)
        else:
            numbers |= _year_numbers(cell, follow_up, risk_NT, patients)
    years = [name for name in YEARS if name in told]
    if years:
        last = _labelled(told[years[-1]], risk_NT[:, YEARS.index(years[-1])], patients)
        numbers |= _histograms(years[-1], last, least_cell)
        numbers |= _tenth_numbers(years[-1], follow_up, risk_NT, patients, least_cell)
        numbers |= _group_numbers(told[years[-1]], exams, risk_NT, least_cell)
    return numbers


def proxy_numbers(exams: Sequence[Exam], risk_NT: Values, least_cell: int) -> dict[str, float]:
    """How well the risk of one year tells exams labelled as cancer from the others, where no outcome is known."""
    is_proxy_N = np.array([CANCER in exam.labels for exam in exams]) & ~follow_up_of(exams).known_by(1)
    if not is_proxy_N.any():
        return {}
    labelled = Labelled()
    for exam, risk in zip(_chosen(exams, is_proxy_N), risk_NT[is_proxy_N, 0], strict=True):
        labelled.add(exam.labels[CANCER], float(risk), exam.patient)
    if not labelled.is_told(least_cell):
        return {f"suppressed/{PROXY}": 1.0}
    return _score_numbers(PROXY, labelled) | _histograms(PROXY, labelled, least_cell)


def teacher_numbers(exams: Sequence[Exam], risk_NT: Values, least_cell: int) -> dict[str, float]:
    """Pearson's r of each year's risk with the teacher's, over the exams that have one."""
    taught_N = np.array([exam.teacher is not None for exam in exams])
    patients = [exam.patient for exam in _chosen(exams, taught_N)]
    if not patients:
        return {}
    if len(set(patients)) < least_cell:
        return {f"suppressed/{TEACHER}": 1.0}
    teacher_NT = np.array([exam.teacher for exam in exams if exam.teacher is not None], np.float64)
    numbers = {f"num_exams/{TEACHER}": float(len(patients))}
    for year, name in enumerate(YEARS):
        found = pearson(risk_NT[taught_N, year], teacher_NT[:, year], patients)
        if found is not None:
            told = {"pearson": found.r, "pearson_low": found.interval.low, "pearson_high": found.interval.high}
            numbers |= _named(told, f"{TEACHER}/{name}")
    return numbers


def exam_scores(exams: Sequence[Exam], risk_NT: Values) -> list[ExamScore]:
    """Each exam's risk of each year, by the year's name; they stay at the site."""
    follow_up = follow_up_of(exams)
    scores: list[ExamScore] = []
    for year, name in enumerate(YEARS, 1):
        cancer_N, known_N = follow_up.cancers_by(year), follow_up.known_by(year)
        for place, exam in enumerate(exams):
            label = bool(cancer_N[place]) if known_N[place] else None
            scores.append(ExamScore(exam, name, label, float(risk_NT[place, year - 1])))
    return scores


def vendor_group(exam: Exam) -> str | None:
    """The vendor of an exam's machine; None where its images are of several."""
    vendors = {image.vendor for image in exam.images}
    return f"vendor-{vendors.pop()}" if len(vendors) == 1 else None


def on_the_grid(risk: float) -> float:
    """A risk as a place in [-1, 1], by its logit.

    Risks are small: most of a screening population's would share a dozen cells of a thousandth. An AUROC knows order
    only, so histograms may hold any rising function of a risk, the same at every site.
    """
    if not 0 < risk < 1:
        return 1.0 if risk >= 1 else -1.0
    return min(max(math.log(risk / (1 - risk)) / _GRID_LOGITS, -1.0), 1.0)


def _year_cell(follow_up: FollowUp, name: str) -> Cell:
    """Of a year; of ``OUTCOME`` all exams, and the cancers of all years that a risk is given for."""
    if name == OUTCOME:
        return Cell(name, follow_up.cancers_by(len(YEARS)), follow_up.known_by(1))
    year = YEARS.index(name) + 1
    return Cell(name, follow_up.cancers_by(year), follow_up.known_by(year))


def _year_numbers(cell: Cell, follow_up: FollowUp, risk_NT: Values, patients: Sequence[str]) -> dict[str, float]:
    year = YEARS.index(cell.name) + 1
    risk_N = risk_NT[:, year - 1]
    numbers = _score_numbers(cell.name, _labelled(cell, risk_N, patients))
    numbers |= _named(calibration_numbers(risk_N, follow_up, year, patients), cell.name)
    found = estimated("brier", patients, partial(brier, follow_up=follow_up, risk_N=risk_N, year=year))
    return numbers | _named(found, cell.name)


def _tenth_numbers(
    name: str, follow_up: FollowUp, risk_NT: Values, patients: Sequence[str], least_cell: int
) -> dict[str, float]:
    """By tenths, of the longest year that is told: where years rank exams alike, those of two could be subtracted."""
    year = YEARS.index(name) + 1
    numbers: dict[str, float] = {}
    for part, value in tenth_numbers(risk_NT[:, year - 1], follow_up, year, patients, least_cell).items():
        word, tenth = part.split("/")
        numbers[f"{word}/{name}/{tenth}"] = value
    return numbers


def _concordance_numbers(cell: Cell, follow_up: FollowUp, risk_NT: Values, patients: Sequence[str]) -> dict[str, float]:
    counts = {"num_positive": float(cell.cancers.sum()), "num_labelled": float(cell.known.sum())}
    found = estimated("c_index", patients, partial(concordance, follow_up=follow_up, risk_NT=risk_NT))
    return _named(counts | found, cell.name)


def _group_numbers(cell: Cell, exams: Sequence[Exam], risk_NT: Values, least_cell: int) -> dict[str, float]:
    """By density, age and vendor, of the longest year that is told: the years of a group could be subtracted."""
    risk_N, patients = risk_NT[:, YEARS.index(cell.name)], [exam.patient for exam in exams]
    numbers: dict[str, float] = {}
    for group_of in _FAMILIES.values():
        told, left_out = told_groups(cell, [group_of(exam) for exam in exams], patients, least_cell)
        numbers |= {f"suppressed/{cell.name}/{name}": 1.0 for name in sorted(left_out)}
        for name, group in told.items():
            found = discrimination_numbers(_labelled(group, risk_N, patients), least_cell)
            numbers |= _named(found, f"{cell.name}/{name}")
    return numbers


def _score_numbers(part: str, labelled: Labelled) -> dict[str, float]:
    """AUROC, sensitivities and counts of exams that may be told."""
    order, starts = ranking(labelled.scores)
    label_N = np.array(labelled.labels, np.bool_)[order]
    numbers = discrimination_numbers(labelled, least_cell=0)
    for word, specificity in SPECIFICITIES.items():

        def sensitivity(weight_RN: Values, specificity: float = specificity) -> Values:
            return sensitivity_at(specificity, weight_RN[:, order], label_N, starts)

        numbers |= estimated(word, labelled.patients, sensitivity)
    return _named(numbers, part)


def _histograms(part: str, labelled: Labelled, least_cell: int) -> dict[str, float]:
    """Of the longest year that is told, as tenths are and for the same reason, and of proxies."""
    on_grid = Labelled(labelled.labels, [on_the_grid(risk) for risk in labelled.scores], labelled.patients)
    return score_histograms(part, on_grid, least_cell)


def _labelled(cell: Cell, risk_N: Values, patients: Sequence[str]) -> Labelled:
    labelled = Labelled()
    for place in np.flatnonzero(cell.known).tolist():
        labelled.add(bool(cell.cancers[place]), float(risk_N[place]), patients[place])
    return labelled


def _chosen(exams: Sequence[Exam], chosen_N: Mask) -> list[Exam]:
    return [exams[place] for place in np.flatnonzero(chosen_N).tolist()]


def _named(numbers: dict[str, float], part: str) -> dict[str, float]:
    return {f"{word}/{part}": value for word, value in numbers.items()}
