from pathlib import Path

import pytest

from mammofed_shared.errors import ConfigurationError
from mammofed_shared.report.exam_facts import ExamFacts, merged
from mammofed_shared.report.mapping import load_mapping, with_absent_findings
from mammofed_shared.report.rows import Counts
from mammofed_shared.report.templates import sentences_from_attributes


def facts(mapping: str, **cells: str) -> tuple[ExamFacts, dict[str, int]]:
    counts = Counts()
    said = load_mapping(mapping).facts_of(cells, counts)
    return said, dict(+counts)


def test_the_standard_mapping_takes_our_own_words() -> None:
    said, counts = facts(
        "standard", finding="Mass", value="positive", subtype="spiculated", laterality="Left", position="upper",
        depth="", density="c", birads="4", kind="Screening",
    )  # fmt: skip

    assert said.attributes == (
        {"finding": "mass", "value": "positive", "subtype": "spiculated", "laterality": "left", "position": "upper"},
    )
    assert (said.density, said.birads, said.kind) == ("C", 4, "screening")
    assert counts == {}


def test_a_value_outside_the_mapping_is_left_out_and_counted() -> None:
    said, counts = facts("standard", finding="mass", value="positive", depth="deep", density="dense", kind="other")

    assert said == ExamFacts(attributes=({"finding": "mass", "value": "positive"},))
    assert counts == {"unmapped_depth": 1, "unmapped_density": 1}
    assert facts("standard", finding="Jane Roe", value="positive") == (
        ExamFacts(attributes=()),
        {"unmapped_finding": 1},
    )
    assert facts("standard", finding="mass", value="perhaps") == (ExamFacts(attributes=()), {"unmapped_value": 1})


def test_embed_reads_a_mass_with_its_margin_side_place_and_depth() -> None:
    said, counts = facts(
        "embed", massshape="X", massmargin="S", side="L", location="W,", depth="P", tissueden="2.0", asses="S",
        desc="MG Diagnostic Bilateral", path_severity="1.0",
    )  # fmt: skip

    assert said.attributes == (
        {
            "finding": "mass",
            "value": "positive",
            "subtype": "spiculated",
            "laterality": "left",
            "position": "upper",
            "depth": "posterior",
        },
    )
    assert (said.density, said.birads, said.kind, said.labels) == ("B", 4, "diagnostic", {"cancer": True})
    assert counts == {}


@pytest.mark.parametrize(
    ("shape", "finding"),
    [
        ("G", {"finding": "mass"}),
        ("F", {"finding": "asymmetry", "subtype": "focal"}),
        ("B", {"finding": "asymmetry", "subtype": "global"}),
        ("V", {"finding": "asymmetry", "subtype": "developing"}),
        ("S", {"finding": "asymmetry"}),
        ("A", {"finding": "architectural_distortion"}),
        ("Q", None),
        ("N", None),
    ],
)
def test_embed_shapes_are_masses_asymmetries_and_distortions(shape: str, finding: dict[str, str] | None) -> None:
    # A circumscribed margin is no subtype of an asymmetry.
    said, counts = facts("embed", massshape=shape, massmargin="M", side="B")

    assert said.attributes == (() if finding is None else ({**finding, "value": "positive"},))
    assert counts == {}


@pytest.mark.parametrize(
    ("code", "subtype"), [("A", "amorphous"), ("K,V", "pleomorphic"), ("V,F", "suspicious"), ("G", None), ("V", "none")]
)
def test_embed_calcifications_count_unless_they_are_typically_benign(code: str, subtype: str | None) -> None:
    said, _ = facts("embed", calcfind=code)
    found = {"finding": "calcification", "value": "positive"} | ({"subtype": subtype} if subtype else {})

    assert said.attributes == (() if subtype == "none" else (found,))


@pytest.mark.parametrize(("letter", "birads"), [*zip("ANBPSMK", range(7), strict=True), ("X", None)])
def test_embed_assessments_are_categories(letter: str, birads: int | None) -> None:
    assert facts("embed", asses=letter) == (ExamFacts(attributes=(), birads=birads), {})


@pytest.mark.parametrize(
    ("description", "kind"),
    [
        ("MG Screening Bilateral w/CAD", "screening"),
        ("MG Diag Tomo Unilateral", "diagnostic"),
        ("US Breast Limited", None),
        ("MG Screening to Diagnostic", None),
    ],
)
def test_a_description_that_says_both_kinds_or_neither_says_none(description: str, kind: str | None) -> None:
    assert facts("embed", desc=description)[0].kind == kind


@pytest.mark.parametrize(
    ("severity", "labels"), [("0", {"cancer": True}), ("4.0", {"cancer": False}), ("6", {}), ("", {})]
)
def test_embed_pathology_labels_cancer(severity: str, labels: dict[str, bool]) -> None:
    assert facts("embed", path_severity=severity)[0].labels == labels


def test_a_negative_exam_is_said_to_have_no_finding() -> None:
    mapping = load_mapping("embed")
    negative = with_absent_findings(ExamFacts(attributes=(), birads=1), mapping.absent)

    assert negative.attributes is not None
    assert sentences_from_attributes(negative.attributes, density="A", seed=0).findings.count("There are no") == 4
    benign = ExamFacts(attributes=(), birads=2)
    without_table = ExamFacts(birads=1)
    with_a_mass = ExamFacts(attributes=({"finding": "mass", "value": "positive"},), birads=1)
    for other in (benign, without_table, with_a_mass):
        assert with_absent_findings(other, mapping.absent) is other
    assert with_absent_findings(ExamFacts(attributes=(), birads=1), None).attributes == ()


def test_rows_of_one_exam_are_judged_together() -> None:
    left, _ = facts("embed", massshape="O", side="L", asses="A")
    right, _ = facts("embed", side="R", asses="N")
    exam = merged([right, left])

    assert exam.birads == 0
    assert with_absent_findings(exam, load_mapping("embed").absent).attributes == left.attributes


def test_a_hospitals_own_mapping_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text(
        "accession: ' ACC '\n"
        "findings:\n  - finding: {column: Kind of Lesion, values: {Knoten: mass, 1: calcification}}\n"
    )
    mapping = load_mapping(str(path))

    assert mapping.columns().accession == "acc"
    assert mapping.finding_columns() == ("kind of lesion",)
    assert mapping.facts_of({"kind of lesion": "1.0"}, Counts()).attributes == (
        {"finding": "calcification", "value": "positive"},
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("accession: a\nfindings: []", "findings"),
        ("findings: [{finding: {column: f}}]", "accession or study"),
        ("accession: a\nfindings: [{finding: {colum: f}}]", "did you mean 'column'"),
        ("accession: a\nfindings: [{finding: {column: f, values: {x: lump}}}]", "finding, column f: expected .*mass"),
        ("accession: a\nfindings: [{finding: {column: f}}]\ndensity: {column: d, values: {1: 'E'}}", "density"),
        ("accession: a\nfindings: [{finding: {column: f}}]\nbirads: {column: b, values: {x: 7}}", "birads"),
        (
            "accession: a\nfindings: [{finding: {column: f}}]\nkind: {column: k, screening: '(', diagnostic: d}",
            "regular",
        ),
    ],
)
def test_a_wrong_mapping_is_refused_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match=said):
        load_mapping(str(path))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="embed, standard"):
        load_mapping("embd")
