"""The grammar's sentences, templates and prompts."""

from pathlib import Path

import pytest

from mammofed_shared.errors import ConfigurationError, DataError
from mammofed_shared.exam import Report
from mammofed_shared.report.demo_encoder import write_demo_encoder
from mammofed_shared.report.grammar import FINDINGS, StructuredFinding
from mammofed_shared.report.prompts import density_prompts, prompts_of
from mammofed_shared.report.templates import itemised_report, narrative_report, sentences_of
from mammofed_shared.report.tokenize import ReportTokenizer

FOLDER = Path(__file__).parents[3] / "configs/text_encoder/demo"
MASS = StructuredFinding("mass", True, "spiculated", "L", "upper", "anterior")
NO_CALCIFICATION = StructuredFinding("calcification", False)


def test_a_sentence_says_all_that_is_known() -> None:
    assert sentences_of([MASS, NO_CALCIFICATION]) == (
        "There is a spiculated mass in the upper left breast at anterior depth. There are no calcifications."
    )


@pytest.mark.parametrize(
    ("finding", "sentence"),
    [
        (StructuredFinding("mass", True), "There is a mass."),
        (StructuredFinding("mass", True, "obscured"), "There is an obscured mass."),
        (StructuredFinding("mass", True, laterality="R"), "There is a mass in the right breast."),
        (StructuredFinding("mass", True, position="lower"), "There is a mass in the lower breast."),
        (StructuredFinding("mass", True, depth="middle"), "There is a mass at middle depth."),
    ],
)
def test_what_is_unknown_is_left_out(finding: StructuredFinding, sentence: str) -> None:
    assert sentences_of([finding]) == sentence


def test_nothing_recorded_is_no_text() -> None:
    assert sentences_of([]) == ""


@pytest.mark.parametrize(
    "wrong", [{"finding": "cyst"}, {"subtype": "round"}, {"laterality": "left"}, {"position": "top"}, {"depth": "deep"}]
)
def test_words_outside_the_grammar_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(DataError, match="expected one of"):
        StructuredFinding(**({"finding": "mass", "present": True} | wrong))


def test_two_hospitals_write_the_same_exam_in_their_own_styles() -> None:
    findings = [MASS, NO_CALCIFICATION]

    assert narrative_report(findings, "C", 0) == Report(
        "The breasts are heterogeneously dense. There is a spiculated mass in the upper left breast at anterior depth. "
        "There are no calcifications.",
        "Spiculated mass in the left breast. Additional imaging is recommended. BI-RADS category 0.",
    )
    assert itemised_report(findings, "C", 0) == Report(
        "Composition: C. Masses: spiculated, left, upper, anterior depth. Calcifications: none.",
        "Finding: spiculated mass in the upper left breast at anterior depth. BI-RADS 0.",
    )


def test_a_report_without_findings_says_so() -> None:
    absent = [StructuredFinding("mass", False)]

    assert narrative_report(absent, None, 1).impression == (
        "No mammographic evidence of malignancy. Routine screening is recommended. BI-RADS category 1."
    )
    assert itemised_report(absent, None, None) == Report("Masses: none.", "Negative study.")


@pytest.mark.parametrize("finding", FINDINGS)
def test_prompts_are_all_combinations_and_as_many_for_each_side(finding: str) -> None:
    prompts = prompts_of(finding)

    assert len(set(prompts)) == len(prompts) == len(FINDINGS[finding].subtypes) * 2 * 3 * 2
    left = {prompt.replace(" left ", " right ") for prompt in prompts if " left " in prompt}
    assert left == {prompt for prompt in prompts if " right " in prompt}


def test_prompts_are_sentences_of_the_reports_grammar() -> None:
    assert sentences_of([MASS]) in prompts_of("mass")
    assert density_prompts("D")[0] in narrative_report([MASS], "D", 0).findings


def test_a_finding_without_prompts_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigurationError, match="'cyst'; known findings are mass"):
        prompts_of("cyst")


def test_the_demo_encoder_folder_is_what_its_function_writes(tmp_path: Path) -> None:
    write_demo_encoder(tmp_path)

    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["config.json", "tokenizer.json", "tokenizer_config.json"]
    for name in names:
        assert (tmp_path / name).read_text() == (FOLDER / name).read_text()


def test_the_demo_tokenizer_knows_every_word_of_prompts_and_reports() -> None:
    unknown = 1
    texts = [*prompts_of("mass"), *density_prompts("A"), itemised_report([MASS], "B", 0).findings]

    tokens = ReportTokenizer(FOLDER, 64)(texts)

    assert unknown not in tokens.ids[tokens.mask == 1]
    assert unknown in ReportTokenizer(FOLDER, 64)(["an elephant"]).ids


def test_long_texts_are_cut_with_their_closing_token_and_counted() -> None:
    tokenizer = ReportTokenizer(FOLDER, 8)

    tokens = tokenizer(["There is a mass.", "There is a spiculated mass in the upper left breast."])

    assert tokens.num_cut == 1
    assert tokens.ids.shape == (2, 8)
    assert tokens.ids[0, 0] == tokens.ids[1, 0] == 2  # [CLS]
    assert tokens.ids[1, -1] == 3  # [SEP]
    assert tokens.mask.sum(axis=1).tolist() == [7, 8]


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json"):
        ReportTokenizer(tmp_path, 8)
