"""The report itself: facts and figures laid into one HTML file that needs no network and no script, and its PNGs."""

import base64
import shutil
from pathlib import Path

import jinja2

from mammofed_server.report import words
from mammofed_server.report.charts import PIXELS, calibration_png, forest_png
from mammofed_server.report.facts import Facts
from mammofed_server.report.ranking import FEWEST_POSITIVES
from mammofed_server.report.theme import DARK, LIGHT
from mammofed_shared.errors import StateError
from mammofed_shared.files import write_whole

PAGE_FILE = "report.html"
_TEMPLATE = "page.html.j2"


def write_report(facts: Facts, output: Path, *, replace: bool = False) -> Path:
    """Write ``report.html`` and a PNG of each figure, all or nothing; equal facts give equal bytes.

    Args:
        output: a folder that does not exist, unless it may be replaced.

    Returns:
        The page.

    Raises:
        StateError: the output exists.
    """
    if output.exists() and not replace:
        raise StateError(f"{output} exists; give --output a new folder")
    temporary = output.with_name(f".{output.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    pictures = _pictures(facts)
    for name, data in pictures.items():
        if not name.endswith("-dark"):
            write_whole(temporary / f"{name}.png", data)
    write_whole(temporary / PAGE_FILE, _page(facts, pictures))
    if output.exists():
        shutil.rmtree(output)
    temporary.rename(output)
    return output / PAGE_FILE


def _pictures(facts: Facts) -> dict[str, bytes]:
    """The PNG of each figure by its slug; `<slug>-dark` for dark screens."""
    pictures: dict[str, bytes] = {}
    for end, theme in (("", LIGHT), ("-dark", DARK)):
        pictures |= {f"{item.slug}{end}": forest_png(item, theme) for item in facts.forests}
        pictures |= {f"{item.slug}{end}": calibration_png(item, theme) for item in facts.calibrations}
    return pictures


def _page(facts: Facts, pictures: dict[str, bytes]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "words": words,
        "picture": lambda name: f"data:image/png;base64,{base64.b64encode(pictures[name]).decode()}",
        "width": lambda name: round(int.from_bytes(pictures[name][16:20], "big") / PIXELS),
        "light": LIGHT,
        "dark": DARK,
        "fewest": FEWEST_POSITIVES,
    }
    return environment.get_template(_TEMPLATE).render(facts=facts)
