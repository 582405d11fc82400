"""The numbers that a risk task may tell: a closed list, written out name by name (docs/evaluation.md).

A name is ``<word>/<part>``, where a part is a year, one of its groups, one of its tenths, or ``outcome`` (the C-index),
``proxy`` (exams of which nothing but a label is known) and ``teacher/<year>``.
"""

from collections.abc import Mapping

from mammofed_shared.config.vendors import VENDORS

YEARS = ("year1", "year2", "year3", "year4", "year5")
"""What the risk of so many years is called where it is released."""
OUTCOME, PROXY, TEACHER = "outcome", "proxy", "teacher"
TENTHS = tuple(f"q{number}" for number in range(1, 11))
"""A cell of the calibration is called by its last tenth and begins where the cell before it ends; q10 is the highest
risk."""

AGE_WORDS: Mapping[str, str] = {
    "<40": "age-under-40",
    "40-49": "age-40-49",
    "50-59": "age-50-59",
    "60-69": "age-60-69",
    "70+": "age-70-plus",
}
"""Band of ``exam.AGE_BANDS`` → its name outside: a name holds no sign but a hyphen."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "density": tuple(f"density-{letter}" for letter in "abcd"),
    "age": tuple(AGE_WORDS.values()),
    "vendor": tuple(f"vendor-{word}" for word in VENDORS),
}
"""Family → its groups; an exam is in one group of each family, or in none."""

FAMILY_OF: Mapping[str, str] = {group: family for family, groups in GROUPS.items() for group in groups}

SPECIFICITIES: Mapping[str, float] = {"sensitivity80": 0.8, "sensitivity90": 0.9}
"""Number → the specificity at which it is told."""


def with_interval(*words: str) -> tuple[str, ...]:
    """Each word with the ends of its 95 % interval: ``auroc``, ``auroc_low``, ``auroc_high``."""
    return tuple(f"{word}{end}" for word in words for end in ("", "_low", "_high"))


COUNTED = ("num_positive", "num_labelled")
"""Cancers, and the exams of which it is known whether they are one."""
_OF_SCORES = (*with_interval("auroc", *SPECIFICITIES), *COUNTED)
_OF_A_YEAR = (*_OF_SCORES, *with_interval("observed", "brier"), "expected")
_OF_A_TENTH = (*with_interval("observed"), "expected", *COUNTED)
_OF_A_GROUP = (*with_interval("auroc"), *COUNTED)
_HISTOGRAMS = ("histogram_positive", "histogram_negative")

RISK_SHARES = frozenset(with_interval(*SPECIFICITIES, "observed", "brier", "c_index")) | {"expected"}
"""Words of numbers from 0 to 1, beside those of other tasks."""
RISK_CORRELATIONS = frozenset(with_interval("pearson"))
"""Words of numbers from -1 to 1."""

RISK_VALIDATION = tuple(f"{word}/{year}" for word in _OF_A_GROUP for year in YEARS)
"""What is told of each data set of a validation."""

RISK_EVALUATION = frozenset(
    {
        "num_exams",
        "duration_s",
        *(f"suppressed/{part}" for part in (*YEARS, OUTCOME, PROXY, TEACHER)),
        *(f"{word}/{year}" for word in _OF_A_YEAR for year in YEARS),
        *(f"{word}/{part}/#" for word in _HISTOGRAMS for part in (*YEARS, PROXY)),
        *(f"{word}/{year}/{tenth}" for word in _OF_A_TENTH for year in YEARS for tenth in TENTHS),
        *(f"{word}/{year}/{group}" for word in (*_OF_A_GROUP, "suppressed") for year in YEARS for group in FAMILY_OF),
        *(f"{word}/{OUTCOME}" for word in (*with_interval("c_index"), *COUNTED)),
        *(f"{word}/{PROXY}" for word in _OF_SCORES),
        *(f"{word}/{TEACHER}/{year}" for word in with_interval("pearson") for year in YEARS),
        f"num_exams/{TEACHER}",
    }
)
"""What is told of an evaluation."""
