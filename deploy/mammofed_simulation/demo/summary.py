"""The demo's last words on the terminal: the comparison, the bar, and where everything is."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mammofed_simulation.demo.page import NOTICE
from mammofed_simulation.demo.results import ALL, FINDINGS, Results, range_text


def print_summary(console: Console, results: Results, paths: Mapping[str, Path]) -> None:
    """Print the tables and the paths."""
    console.print()
    for finding in FINDINGS:
        console.print(_comparison(results, finding))
    if found := results.points[-1].density_accuracy:
        words = ", ".join(f"{site} {value:.2f}" for site, value in found.items())
        console.print(f"Density A–D, share of exams in the right class: {words}")
    bar = Table("figure", title="The bar", title_justify="left")
    for heading in ("at least", "found", ""):
        bar.add_column(heading, justify="right")
    for check in results.checks:
        met = "[green]met[/green]" if check.is_met else "[bold red]missed[/bold red]"
        bar.add_row(check.what, f"{check.wanted:.2f}", "–" if check.found is None else f"{check.found:.3f}", met)
    console.print(bar)
    for name, path in paths.items():
        console.print(f"{name:8} {path}", soft_wrap=True)
    console.print(f"sha256   {results.model_sha256}", soft_wrap=True)
    minutes = ", ".join(f"{name} {value:.1f}" for name, value in results.minutes.items())
    console.print(f"minutes  {sum(results.minutes.values()):.1f} ({minutes})", soft_wrap=True)
    verdict = (
        "[bold green]The bar is met.[/bold green]" if results.is_bar_met else "[bold red]The bar is missed.[/bold red]"
    )
    console.print(f"{verdict} {NOTICE}")


def _comparison(results: Results, finding: str) -> Table:
    title = f"{finding.capitalize()}: zero-shot AUROC on held-out exams; over seeds: lowest–highest"
    table = Table(title=title, title_justify="left")
    table.add_column("model", no_wrap=True)
    for place in (*results.sites, ALL):
        table.add_column(place, justify="right", no_wrap=True)
    for entry in results.entries:
        places = (range_text(entry.spread(finding, place)) for place in (*results.sites, ALL))
        table.add_row(entry.label, *places, style="bold" if entry.kind == "joint" else "")
    return table
