"""Zero-shot prompts of a finding: every way in which the grammar can say that it is there."""

from itertools import product

from mammofed_shared.errors import ConfigurationError
from mammofed_shared.report.grammar import (
    DEPTHS,
    FINDINGS,
    LATERALITIES,
    StructuredFinding,
    density_sentence,
    presence_sentence,
)

PROMPT_POSITIONS = ("upper", "lower")


def prompts_of(finding: str) -> tuple[str, ...]:
    """All sentences finding × subtype × position × depth × laterality (paper: Zero-shot evaluation, Fig. 6).

    Stored images all have the chest wall left, so laterality is invisible in them: both sides are in the list,
    and the mean over its embeddings averages laterality out.

    Raises:
        ConfigurationError: the grammar has no such finding.
    """
    if finding not in FINDINGS:
        raise ConfigurationError(f"task.findings: no prompts for {finding!r}; known findings are {', '.join(FINDINGS)}")
    combinations = product(FINDINGS[finding].subtypes, PROMPT_POSITIONS, DEPTHS, LATERALITIES)
    return tuple(
        presence_sentence(StructuredFinding(finding, True, subtype, laterality, position, depth))
        for subtype, position, depth, laterality in combinations
    )


def density_prompts(density: str) -> tuple[str, ...]:
    """Sentences that say a breast density, A to D."""
    return (density_sentence(density),)
