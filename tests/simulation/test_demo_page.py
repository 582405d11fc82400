"""The demo's page and picture: complete without any other file, and honest about what they show."""

import re
import struct
from dataclasses import replace
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from demo_results import some_results
from mammofed_simulation.demo.chart import Dot, Line, Mark, dot_plot, line_chart
from mammofed_simulation.demo.examples import Box, Example, ExampleImage
from mammofed_simulation.demo.page import NOTICE, page
from mammofed_simulation.demo.poster import poster

SIZE = (64, 40)


@pytest.fixture
def examples() -> list[Example]:
    png = cv2.imencode(".png", np.arange(64 * 40, dtype=np.uint8).reshape(64, 40))[1].tobytes()
    image = ExampleImage("L CC", png, (Box("mass", 3, 4, 10, 12),))
    phantom = Example("mayo", "A phantom <exam>.", True, (image, replace(image, label="L MLO", boxes=())))
    return [phantom, Example("central", "Real ones.", False, (replace(image, boxes=()),))]


def test_page_needs_no_other_file(examples: list[Example]) -> None:
    html = page(some_results(), examples, SIZE, ["fl-server --config run.yaml"])
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []
    assert not re.search(r"url\(|@import|<script|<link|https?://", html)


def test_page_tells_notice_checksum_and_commands(examples: list[Example]) -> None:
    html = page(some_results(), examples, SIZE, ["fl-server --config run.yaml"])
    assert NOTICE in html
    assert "ab" * 32 in html
    assert "fl-server --config run.yaml" in html
    assert "at step 7 of 15 of its visit in round 3" in html
    assert "the bar is met" in html


def test_page_says_that_the_bar_is_missed(examples: list[Example]) -> None:
    results = some_results()
    checks = (results.checks[0].model_copy(update={"found": 0.5}), *results.checks[1:])
    html = page(results.model_copy(update={"checks": checks}), examples, SIZE, [])
    assert "the bar is missed" in html
    assert html.count('class="missed"') == 1


def test_page_escapes_what_it_is_given(examples: list[Example]) -> None:
    html = page(some_results(), examples, SIZE, ["echo <b>"])
    for raw, escaped in (("echo <b>", "echo &lt;b&gt;"), ("<exam>", "&lt;exam&gt;"), ("<test>", "&lt;test&gt;")):
        assert raw not in html
        assert escaped in html


def test_every_picture_of_the_page_has_words_for_who_cannot_see_it(examples: list[Example]) -> None:
    html = page(some_results(), examples, SIZE, [])
    pictures = re.findall(r"<svg [^>]*>", html)
    assert len(pictures) == 4 + 3
    assert all(re.search(r'role="img" aria-label="[^"]{20,}"', picture) for picture in pictures)
    assert "Phantom mammogram of mayo: left breast, CC view, a box around a mass." in html


def test_page_tells_that_nobody_was_killed(examples: list[Example]) -> None:
    html = page(some_results().model_copy(update={"interruption": None}), examples, SIZE, [])
    assert "No client was killed" in html
    assert "killed, restarted" not in html


def test_line_chart_is_svg_whose_lines_break_at_missing_values() -> None:
    chart = ElementTree.fromstring(
        line_chart("t", [Line("a & b", "#000", [0.5, 0.6, None, 0.7, 0.9])], x_title="visit", marks=[Mark(2, "here")])
    )
    lines = [item.get("points", "").split() for item in chart.iter("polyline")]
    assert [len(points) for points in lines] == [2, 2]
    heights = [float(point.split(",")[1]) for points in lines for point in points]
    assert heights == sorted(heights, reverse=True)


def test_line_chart_grows_downward_for_low_values() -> None:
    low = ElementTree.fromstring(line_chart("t", [Line("a", "#000", [0.12, 0.9])], x_title="visit"))
    points = next(low.iter("polyline")).get("points", "").split()
    assert all(0 < float(point.split(",")[1]) < 300 for point in points)
    assert "0.1" in [item.text for item in low.iter("text")]


def test_dot_plot_shows_mean_and_range() -> None:
    plot = ElementTree.fromstring(dot_plot("t", [Dot("joint", (0.9, 0.8, 1.0), is_bold=True), Dot("none", None)]))
    (dot,) = plot.iter("circle")
    whisker = next(line for line in plot.iter("line") if line.get("stroke-width") == "2")
    start, end = float(whisker.get("x1", "")), float(whisker.get("x2", ""))
    assert start < float(dot.get("cx", "")) < end
    assert {"joint", "none"} <= {item.text for item in plot.iter("text")}


def test_poster_is_a_png(examples: list[Example]) -> None:
    data = poster(some_results(), examples)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (1440, 984)
