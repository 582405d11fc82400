"""Figures of a foundation model: how well sentences, or a probe, tell exams with a finding from those without."""

from collections.abc import Iterator, Sequence

from mammofed_server.pooled import pooled_aurocs
from mammofed_server.report.facts import Forest, Metrics, panel, shown

_POSITIVES = "exams with the finding"


def finding_forests(metrics: Metrics, findings: Sequence[str]) -> Iterator[Forest]:
    """Zero-shot AUROC of each finding, and that of the probe where one was fitted."""
    bounds = pooled_aurocs(metrics)
    yield Forest(
        "auroc",
        "Zero-shot AUROC by finding",
        "Of an exam with the finding and one without, how often the first is nearer to the sentences that say it. 0.5 "
        "is chance.",
        "AUROC",
        shown(
            panel(metrics, finding, "auroc", finding, bounds=bounds.get(finding), ranked=_POSITIVES)
            for finding in findings
        ),
        positives=_POSITIVES,
        reference=0.5,
    )
    if any(name.startswith("probe_auroc/") for numbers in metrics.values() for name in numbers):
        yield Forest(
            "probe",
            "AUROC of a linear probe by finding",
            "What the images hold, whatever the texts say: a logistic regression on the frozen features, fitted at "
            "each site to its own training exams.",
            "AUROC",
            shown(panel(metrics, finding, "probe_auroc", finding) for finding in findings),
            positives=_POSITIVES,
            reference=0.5,
        )
