"""Figures of a risk model: how well it tells who falls ill, and whether as many do as it says."""

from collections.abc import Iterator

from mammofed_server.combined import FISHER, LOG, Estimate, told_estimate
from mammofed_server.pooled import pooled_aurocs
from mammofed_server.report.facts import (
    Calibration,
    Forest,
    Metrics,
    Numbers,
    Panel,
    Tenth,
    count,
    panel,
    panel_of,
    shown,
)
from mammofed_shared.config.risk_metrics import GROUPS, OUTCOME, PROXY, SPECIFICITIES, TEACHER, TENTHS, YEARS

_AUROC_SENTENCE = (
    "Of an exam whose patient falls ill within the years and one whose patient does not, how often the first has the "
    "higher risk. 0.5 is chance."
)


def risk_forests(metrics: Metrics) -> Iterator[Forest]:
    """Every figure that sites may be compared by, those with nothing to show included."""
    bounds = pooled_aurocs(metrics)
    yield Forest(
        "auroc",
        "AUROC by year",
        _AUROC_SENTENCE,
        "AUROC",
        shown(
            panel(metrics, years_word(year), "auroc", year, bounds=bounds.get(year), ranked="cancers") for year in YEARS
        ),
        reference=0.5,
    )
    yield Forest(
        "c-index",
        "C-index",
        "Of two patients, how often the one who falls ill earlier has the higher risk; weighted for those who were "
        "lost (Uno). 0.5 is chance.",
        "C-index",
        shown([panel(metrics, "all years", "c_index", OUTCOME)]),
        reference=0.5,
    )
    for word, specificity in SPECIFICITIES.items():
        yield Forest(
            word,
            f"Sensitivity at a specificity of {specificity:.0%}",
            f"How many of the cancers are above the risk that {1 - specificity:.0%} of the others are above.",
            "sensitivity",
            shown(panel(metrics, years_word(year), word, year) for year in YEARS),
        )
    yield Forest(
        "observed-to-expected",
        "Observed to expected",
        "Cancers that were found (Kaplan–Meier) by cancers that the risks add up to. 1 is right; above 1 the model "
        "says too little. The interval holds what is unsure of the observed alone.",
        "observed / expected",
        shown(_ratio_panel(metrics, year) for year in YEARS),
        reference=1.0,
    )
    yield Forest(
        "brier",
        "Brier score",
        "Mean squared difference of risk and outcome; lower is better. It depends on how frequent cancer is, so sites "
        "differ by their patients alone.",
        "Brier score",
        shown(panel(metrics, years_word(year), "brier", year) for year in YEARS),
    )
    yield Forest(
        "teacher",
        "Correlation with the teacher",
        "Pearson's r of the model's risks with those of its teacher, whatever happened to the patients.",
        "Pearson's r",
        shown(_teacher_panel(metrics, year) for year in YEARS),
        reference=0.0,
    )
    yield from _group_forests(metrics)
    yield Forest(
        "label",
        "Against a label alone",
        "Exams of which no outcome is known but whether they are a cancer now; the risk of one year stands for it.",
        "share",
        shown(_proxy_panels(metrics)),
    )


def risk_calibrations(metrics: Metrics) -> Iterator[Calibration]:
    """Observed beside expected by tenths of risk, the longest year first."""
    for year in reversed(YEARS):
        sites = {site: tuple(_tenths(numbers, year)) for site, numbers in sorted(metrics.items())}
        if any(sites.values()):
            yield Calibration(
                f"calibration-{year}",
                f"Calibration, {years_word(year)}",
                "Exams in tenths of rising risk; neighbours are merged where a tenth holds too few patients. On the "
                "diagonal as many fall ill as the model says, above it more.",
                sites,
            )


def years_word(year: str) -> str:
    """`year1` → `1 year`."""
    number = YEARS.index(year) + 1
    return f"{number} year{'s' if number > 1 else ''}"


def _ratio_panel(metrics: Metrics, year: str) -> Panel:
    estimates = {site: _ratio(numbers, year) for site, numbers in metrics.items()}
    return panel_of(metrics, years_word(year), estimates, year, LOG)


def _ratio(numbers: Numbers, year: str) -> Estimate | None:
    observed, expected = told_estimate(numbers, "observed", year), numbers.get(f"expected/{year}", 0.0)
    if observed is None or not expected > 0:
        return None
    return Estimate(observed.value / expected, observed.low / expected, observed.high / expected)


def _teacher_panel(metrics: Metrics, year: str) -> Panel:
    return panel(metrics, years_word(year), "pearson", f"{TEACHER}/{year}", FISHER, counted=TEACHER)


def _proxy_panels(metrics: Metrics) -> Iterator[Panel]:
    bounds = pooled_aurocs(metrics).get(PROXY)
    yield panel(metrics, "AUROC", "auroc", PROXY, bounds=bounds, ranked="cancers")
    for word, specificity in SPECIFICITIES.items():
        yield panel(metrics, f"sensitivity at specificity {specificity:.0%}", word, PROXY)


def _group_forests(metrics: Metrics) -> Iterator[Forest]:
    """Each site tells groups of the longest year that it may tell."""
    for family, groups in GROUPS.items():
        parts = [(group, f"{year}/{group}", year) for year in YEARS for group in groups]
        yield Forest(
            f"auroc-by-{family}",
            f"AUROC by {_FAMILY_WORDS[family]}",
            f"{_AUROC_SENTENCE} Told of the longest year that a site may tell.",
            "AUROC",
            tuple(
                panel(metrics, f"{group_word(group)}, {years_word(year)}", "auroc", part)
                for group, part, year in parts
                if any(f"{word}/{part}" in told for told in metrics.values() for word in ("auroc", "suppressed"))
            ),
            reference=0.5,
        )


_FAMILY_WORDS = {"density": "breast density", "age": "age", "vendor": "manufacturer"}


def group_word(group: str) -> str:
    """`age-40-49` → `age 40–49`, `density-a` → `density A`."""
    family, _, word = group.partition("-")
    if family == "density":
        return f"density {word.upper()}"
    if family == "age" and word[0].isdigit():
        return f"age {word.replace('-plus', '+').replace('-', '–')}"
    return f"{family} {word.replace('-', ' ')}"


def _tenths(numbers: Numbers, year: str) -> Iterator[Tenth]:
    begin = 1
    for place, name in enumerate(TENTHS, 1):
        part = f"{year}/{name}"
        observed, expected = told_estimate(numbers, "observed", part), numbers.get(f"expected/{part}")
        if observed is not None and expected is not None:
            cell = str(place) if begin == place else f"{begin}–{place}"
            labelled, positive = count(numbers, f"num_labelled/{part}"), count(numbers, f"num_positive/{part}")
            yield Tenth(cell, expected, observed, labelled, positive)
            begin = place + 1
