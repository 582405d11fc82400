"""What `fl-server verify` found, for people."""

from collections.abc import Iterator

from rich.console import Console

from mammofed_server.contributors import contributors_table
from mammofed_server.verify import Report

_VERDICTS = {
    "whole": "WHOLE: everything that was written chains to this state",
    "incomplete": "INCOMPLETE: what is there holds, but something that belongs to it is missing",
    "tampered": "TAMPERED: something is not what was written",
}


def print_report(report: Report, console: Console) -> None:
    """Print the contributors, what was checked, each finding, and the verdict as the last line."""
    console.print(
        f"run {report.run}, turn {report.turn}, {report.ending or 'not ended'}", markup=False, highlight=False
    )
    console.print(f"state {report.state}", soft_wrap=True, highlight=False)
    console.print(contributors_table(report.contributors))
    for line in (_lines(report), *_computed(report), _signatures(report), _contributions(report)):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    for item in report.findings:
        console.print(f"{item.severity}: {item.where}: {item.what}", soft_wrap=True, highlight=False, markup=False)
    console.print(_VERDICTS[report.verdict], highlight=False)


def _lines(report: Report) -> str:
    gone = f"; {report.num_states_gone} states or updates are not here any more" if report.num_states_gone else ""
    return f"{report.num_lines} lines of the ledger, {report.num_files} files as they were sealed{gone}"


def _computed(report: Report) -> Iterator[str]:
    """What was computed again, and that the rest was not: its digests hold, and nothing else is known of it."""
    told = []
    if report.num_folded:
        told.append(f"{report.num_means} of {report.num_folded} means computed again")
    if report.num_sent:
        told.append(f"{report.num_decoded} of {report.num_sent} encoded updates decoded again")
    if report.num_encoded:
        told.append(f"{report.num_encoded} states encoded again, as sites received them")
    if report.num_means < report.num_folded or report.num_decoded < report.num_sent:
        told.append("of the others, updates or state before are not here (`checkpoints.keep_updates` keeps them)")
    if told:
        yield "; ".join(told)


def _signatures(report: Report) -> str:
    if not report.root:
        return "UNSIGNED: nobody had a key, as in a simulation; this shows accidents, not forgery"
    return f"signed up to the root {report.root}; compare it with the one that you were told by another channel"


def _contributions(report: Report) -> str:
    unsigned = f"; {report.num_unsigned} are UNSIGNED" if report.num_unsigned else ""
    return f"{report.num_statements} contributions are signed by their sites{unsigned}"
