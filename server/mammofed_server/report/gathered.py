"""The facts of a report from a run's committed records."""

from collections.abc import Iterator, Sequence

from mammofed_server.report.facts import Facts, Forest, Metrics, count
from mammofed_server.report.finding_facts import finding_forests
from mammofed_server.report.risk_facts import risk_calibrations, risk_forests
from mammofed_server.run_state import EvaluationRecord, RunState
from mammofed_shared.config.pretrain import PretrainSettings
from mammofed_shared.config.risk import RiskSettings
from mammofed_shared.errors import StateError
from mammofed_shared.protocol.histogram import is_histogram

_DRAWN = ("auroc", "probe_auroc", "sensitivity80", "sensitivity90", "observed", "brier", "c_index", "pearson")
_IN_FIGURES = {f"{word}{end}" for word in _DRAWN for end in ("", "_low", "_high")}
_IN_FIGURES |= {"expected", "num_labelled", "num_positive", "suppressed"}


def evaluated_turn(run: RunState, turn: int | None) -> EvaluationRecord:
    """The evaluation of a turn's checkpoint; None: the last one that was made.

    Raises:
        StateError: it was not made; the message says which were.
    """
    made = sorted(int(path.stem) for path in (run.folder / "evaluations").glob("*.json") if path.stem.isdigit())
    if not made:
        raise StateError(
            f"{run.folder}: no checkpoint of run {run.record.settings.run!r} was evaluated yet. Its setting "
            f"evaluation.when is {run.record.settings.evaluation.when!r}; `fl-server status` shows how far it is."
        )
    record = run.evaluation(made[-1] if turn is None else turn)
    if record is None:
        turns = ", ".join(str(number) for number in made)
        raise StateError(f"{run.folder}: turn {turn} was not evaluated; there are evaluations of the turns {turns}")
    return record


def gather(run: RunState, record: EvaluationRecord) -> Facts:
    """Everything that the report of one evaluation says.

    Raises:
        StateError: no site told a number.
    """
    metrics = record.metrics
    if not metrics:
        raise StateError(f"{run.folder}: no site told a number of turn {record.turn}; there is nothing to draw")
    settings = run.record.settings
    is_risk = isinstance(settings.task, RiskSettings)
    failed = {failure.site: failure.code for failure in record.failures}
    absent = sorted({*failed, *settings.sites} - set(metrics))
    return Facts(
        run=settings.run,
        task=settings.task.name,
        turn=record.turn,
        round=record.round,
        state=record.state,
        code=run.manifest(record.turn).code,
        num_exams={site: count(numbers, "num_exams") for site, numbers in sorted(metrics.items())},
        without=tuple(f"{site}: {failed[site]}" if site in failed else site for site in absent),
        forests=_with_something(tuple(_forests(run, metrics))),
        calibrations=tuple(risk_calibrations(metrics)) if is_risk else (),
        others=tuple(_others(metrics)),
    )


def _with_something(forests: Sequence[Forest]) -> tuple[Forest, ...]:
    """Those of which a site tells something; where no site tells anything, the first says what is suppressed."""
    told = tuple(forest for forest in forests if forest.is_told)
    return told or tuple(forest for forest in forests[:1] if forest.panels)


def _forests(run: RunState, metrics: Metrics) -> Iterator[Forest]:
    task = run.record.settings.task
    if isinstance(task, RiskSettings):
        yield from risk_forests(metrics)
    if isinstance(task, PretrainSettings):
        yield from finding_forests(metrics, task.findings)


def _others(metrics: Metrics) -> Iterator[tuple[str, tuple[float | None, ...]]]:
    """Numbers that no figure shows, of the sites in alphabetical order."""
    names = sorted({name for numbers in metrics.values() for name in numbers if not is_histogram(name)})
    for name in names:
        if name.split("/")[0] not in _IN_FIGURES:
            yield name, tuple(numbers.get(name) for _, numbers in sorted(metrics.items()))
