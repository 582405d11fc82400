"""The demo's last words on the terminal: who tells cancers best, and whether the reasons are right."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from mammofed_shared.config.risk_metrics import YEARS
from mammofed_simulation.demo.page import NOTICE
from mammofed_simulation.demo_risk.discrimination import ALL
from mammofed_simulation.demo_risk.results import RiskResults


def print_summary(console: Console, results: RiskResults, path: Path) -> None:
    """Print the tables and the paths."""
    for place in (*results.sites, ALL):
        console.print()
        console.print(_table(results, place))
    console.print()
    variance = ", ".join(f"{site} {value:.2f}" for site, value in results.explained_variance.items())
    console.print(f"Autoencoder, shortest code: share of the features' variance that it gives back: {variance}")
    console.print(_reasons(results))
    console.print(f"page     {results.page}", soft_wrap=True)
    console.print(f"numbers  {path}", soft_wrap=True)
    minutes = ", ".join(f"{name} {value:.1f}" for name, value in results.minutes.items())
    console.print(f"minutes  {sum(results.minutes.values()):.1f} ({minutes})", soft_wrap=True)
    console.print(f"{NOTICE} The teacher is a stand-in: the phantoms' true risk, disturbed.")


def _table(results: RiskResults, place: str) -> Table:
    """AUROC of each year at one place; a hospital's own heads stand beside the joint ones there."""
    told = [results.rows[0].at(place, year) for year in YEARS]
    behind = ", ".join("–" if item is None else f"{item.num_cancers}/{item.num_exams}" for item in told)
    where = "all hospitals" if place == ALL else place
    table = Table(title=f"{where}: AUROC by year (cancers/exams {behind})", title_justify="left")
    table.add_column("model", no_wrap=True)
    for year in YEARS:
        table.add_column(year, justify="right")
    others = [site for site in results.sites if site != place and place != ALL]
    for row in results.rows:
        if not row.model.endswith(tuple(f"-{site}" for site in others)):
            cells = [row.at(place, year) for year in YEARS]
            words = ("–" if cell is None or cell.auroc is None else f"{cell.auroc:.2f}" for cell in cells)
            table.add_row(_label(row.model, results), *words)
    return table


def _label(model: str, results: RiskResults) -> str:
    site = next((site for site in results.sites if model.endswith(f"-{site}")), None)
    if model == "teacher":
        return "teacher"
    return f"{model}, joint" if site is None else f"{model.removesuffix(f'-{site}')}, {site} alone"


def _reasons(results: RiskResults) -> Table:
    found = results.reasons
    title = f"{found.num_exams} held-out masses, {found.num_reported} of them in exams with a report"
    table = Table(title=title, title_justify="left")
    for heading in ("", "reason", "by chance", "raw encoder"):
        table.add_column(heading, justify="left" if not heading else "right")
    pointing = (found.pointing, found.pointing_by_chance, found.pointing_of_encoder)
    table.add_row("the highest point is in the mass", *(f"{value:.2f}" for value in pointing))
    table.add_row("the sentence names the mass", f"{found.naming:.2f}", f"{found.naming_by_chance:.2f}", "")
    return table
