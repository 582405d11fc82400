"""The demo's page: one HTML file that needs no other, for a researcher and for a hospital's security officer."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from mammofed_simulation.demo.chart import ALL_COLOUR, COLOURS, Dot, Line, Mark, dot_plot, line_chart
from mammofed_simulation.demo.examples import Example
from mammofed_simulation.demo.html import cards, example_figure, figure, paragraph, section, table
from mammofed_simulation.demo.page_facts import departures_section, making_section, populations_section
from mammofed_simulation.demo.results import ALL, FINDINGS, Results, spread_text

NOTICE = "Phantoms are no clinical evidence."
_BAR = 0.90


def page(results: Results, examples: Sequence[Example], size: tuple[int, int], commands: Sequence[str]) -> str:
    """The whole page as HTML.

    Args:
        size: (height, width) of the example images.
        commands: that were run, in order.
    """
    body = (
        _head(results)
        + _curves(results)
        + _comparison(results)
        + _bar(results)
        + section(
            "What the images look like",
            paragraph(
                "Prepared images as the model sees them: cut to the breast, chest wall on the left, 8-bit grey. Boxes "
                "are drawn for you; the model never sees one."
            ),
            f'<div class="examples">{"".join(example_figure(example, size) for example in examples)}</div>',
        )
        + populations_section(results)
        + departures_section(results)
        + making_section(results, commands)
    )
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>mammofed demo, seed {results.seed}</title><style>{style}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def _head(results: Results) -> str:
    first, last, joint = results.points[0], results.points[-1], results.entry("joint").runs[0]
    lowest = min((last.auroc["mass"].get(site) or 0.0 for site in results.sites), default=0.0)
    verdict = "the bar is met" if results.is_bar_met else "the bar is missed"
    facts = cards(
        [
            (_number(last.auroc["mass"][ALL]), "mass AUROC of the joint model, held-out exams of all hospitals"),
            (_number(lowest), "at the hospital where it is lowest"),
            (_number(first.auroc["mass"][ALL]), "before training"),
            (f"{last.turn}", f"visits in {last.round} rounds, {joint.num_steps:,} optimizer steps"),
            (f"{sum(results.minutes.values()):.1f} min", "for everything on this page"),
        ]
    )
    return (
        "<header><h1>Three hospitals train one model</h1>"
        + paragraph(
            f"A demo of mammofed, seed {results.seed}, {results.date}. {len(results.sites)} phantom hospitals "
            f"trained an "
            "image–text model together over mutual TLS, each on its own exams and reports, in separate processes.",
            "lead",
        )
        + f'<span class="verdict {"good" if results.is_bar_met else "bad"}">{verdict}</span>'
        + f'<p class="notice"><strong>{NOTICE}</strong>The patients are drawn by a program, with findings of clear '
        "contrast. The figures show that the system works from DICOM file to joint model; they say nothing about "
        "mammograms of people, about the Mammo-FM model, or about what it would do in a clinic.</p>"
        + facts
        + "</header>"
    )


def _curves(results: Results) -> str:
    charts = ""
    marks = []
    if results.interruption is not None:
        marks = [Mark(results.interruption.visit, f"{results.interruption.site} killed, restarted")]
    for finding in FINDINGS:
        lines = [
            Line(site, COLOURS.get(site, ALL_COLOUR), [point.auroc[finding].get(site) for point in results.points])
            for site in results.sites
        ]
        lines.append(Line(ALL, ALL_COLOUR, [point.auroc[finding].get(ALL) for point in results.points], is_bold=True))
        final = ", ".join(f"{line.name} {_number(line.values[-1])}" for line in lines)
        chart = line_chart(
            f"Zero-shot AUROC for {finding} after each visit. After the last: {final}.",
            lines,
            x_title="visit",
            bar=_BAR if finding == "mass" else None,
            marks=marks,
        )
        charts += figure(chart, finding.capitalize())
    order = ", ".join(results.points[index].trained[0] for index in range(1, 1 + len(results.sites)))
    return section(
        "The joint model after each visit",
        paragraph(
            f"Zero-shot AUROC at exam level on held-out patients. A visit is one epoch at one hospital, in the order "
            f"{order}; 0 is the untrained model, which gives every image the same vector and so 0.5, chance. The "
            "thick line takes the exams of all hospitals "
            "together. It needs the score of every exam: the demo may read them because it owns all three hospitals. A "
            "real coordinator cannot: it sees each hospital's AUROC, and bounds of that line."
        ),
        f'<div class="pair">{charts}</div>',
        _density(results),
    )


def _density(results: Results) -> str:
    found = results.points[-1].density_accuracy
    if not found:
        return ""
    before = results.points[0].density_accuracy
    words = "; ".join(f"{site} {found[site]:.2f} (untrained {before.get(site, 0):.2f})" for site in found)
    return paragraph(f"Breast density A–D, share of exams put into the right class of four: {words}.")


def _comparison(results: Results) -> str:
    plots = ""
    for finding in FINDINGS:
        dots = [Dot(entry.label, entry.spread(finding, ALL), entry.kind == "joint") for entry in results.entries]
        told = "; ".join(f"{dot.name} {spread_text(dot.value)}" for dot in dots)
        title = f"AUROC for {finding}, exams of all hospitals: {told}."
        plots += figure(dot_plot(title, dots, bar=_BAR if finding == "mass" else None), finding.capitalize())
    places = (*results.sites, ALL)
    tables = ""
    for finding in FINDINGS:
        rows = [
            [
                entry.label,
                str(len(entry.runs)) if entry.runs[0].seed is not None else "–",
                f"{entry.runs[0].num_steps:,}" if entry.runs[0].num_steps else "–",
                *(spread_text(entry.spread(finding, place)) for place in places),
            ]
            for entry in results.entries
        ]
        strong = [index for index, entry in enumerate(results.entries) if entry.kind == "joint"]
        tables += f"<h3>{finding.capitalize()}</h3>" + table(["", "runs", "steps", *places], rows, strong=strong)
    how = "".join(f"<li><strong>{escape(entry.label)}</strong>: {escape(entry.how)}</li>" for entry in results.entries)
    return section(
        "Beside it",
        paragraph(
            "Zero-shot AUROC of the last state of each way to a model. Where there are two runs, another seed "
            "gave other "
            "first weights and other batches on the same patients: the mean is shown, then the lowest and highest. Two "
            "runs are few: differences within these ranges mean nothing. A hospital alone trains as often as it "
            "does in "
            "the joint run, which has three hospitals and so three times the steps; pooled data has as many as "
            "the joint."
        ),
        f'<div class="pair">{plots}</div>',
        tables,
        f'<ul class="soft">{how}</ul>',
    )


def _bar(results: Results) -> str:
    rows = "".join(
        f'<tr><td>{escape(check.what)}</td><td class="n">{check.wanted:.2f}</td>'
        f'<td class="n">{_number(check.found)}</td>'
        f'<td class="{"met" if check.is_met else "missed"}">{"met" if check.is_met else "missed"}</td></tr>'
        for check in results.checks
    )
    return section(
        "The bar",
        paragraph("Set before the run; the command ends with exit code 8 if one line is missed."),
        '<div class="scroll"><table><thead><tr><th>figure</th><th class="n">at least</th><th class="n">found</th>'
        f"<th></th></tr></thead><tbody>{rows}</tbody></table></div>",
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
