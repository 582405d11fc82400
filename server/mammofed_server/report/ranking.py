"""May sites be ranked by a figure? Pure.

Not where a site has few cancers, or where nothing but chance need be behind the order (docs/evaluation.md).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

from mammofed_server.combined import Estimate

FEWEST_POSITIVES = 20
"""With 20 cancers among 200 exams, the 95 % interval of an AUROC of 0.75 is 0.26 wide (Hanley and McNeil 1982)."""


def ranking(
    told: Mapping[str, Estimate], num_positive: Mapping[str, int | None], hidden: Sequence[str], positives: str
) -> str | None:
    """A sentence: which sites are apart, or why no site is ranked. None where no site told the figure.

    Args:
        told: site → figure and interval.
        num_positive: site → positives behind it, of the same sites.
        hidden: sites that suppressed the figure.
        positives: what the positives are called: "cancers".
    """
    if not told:
        return None
    if len(told) + len(hidden) < 2:
        return f"One site alone, {next(iter(told))}, told this: there is nothing to rank."
    short = [_few(site, num, positives) for site, num in sorted(num_positive.items()) if (num or 0) < FEWEST_POSITIVES]
    short += [f"{site} suppresses the figure" for site in sorted(hidden)]
    if short:
        return f"Not enough {positives} to rank sites: {'; '.join(short)}."
    apart = [
        (first, second) if told[first].low > told[second].high else (second, first)
        for first, second in combinations(sorted(told), 2)
        if are_apart(told[first], told[second])
    ]
    if not apart:
        return f"Not enough {positives} to rank sites: all 95 % intervals overlap."
    rest = "" if 2 * len(apart) == len(told) * (len(told) - 1) else "; other intervals overlap"
    return f"{'; '.join(f'{better} is above {worse}' for better, worse in apart)}{rest}."


def are_apart(first: Estimate, second: Estimate) -> bool:
    """Whether two intervals do not overlap."""
    return first.low > second.high or second.low > first.high


def _few(site: str, num: int | None, positives: str) -> str:
    return f"{site} has {'an unknown number' if num is None else num} (fewer than {FEWEST_POSITIVES})"
