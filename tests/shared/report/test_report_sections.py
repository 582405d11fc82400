import pytest

from mammofed_shared.exam import Report
from mammofed_shared.report.sections import split_report


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        ("FINDINGS: No masses.\nIMPRESSION: Negative.", "No masses.", "Negative."),
        ("Findings:\n No masses.\n\nConclusion:\n Negative.", "No masses.", "Negative."),
        ("FINDINGS\nNo masses.\nIMPRESSION\nNegative.", "No masses.", "Negative."),
        ("IMPRESSION: Negative.\nFINDINGS: No masses.", "No masses.", "Negative."),
        ("FINDINGS: No masses. IMPRESSION: Negative.", "No masses.", "Negative."),
        ("FINDINGS: A.\nIMPRESSION: B.\nRECOMMENDATION: C.", "A.", "B. C."),
        ("FINDINGS: A.\nBI-RADS: 1", "A.", "BI-RADS: 1"),
        ("IMPRESSION: Negative.", "", "Negative."),
        ("The breasts are dense. No masses.", "The breasts are dense. No masses.", ""),
        ("", "", ""),
    ],
)
def test_usual_headings_divide_a_report(text: str, findings: str, impression: str) -> None:
    assert split_report(text) == Report(findings, impression)


def test_boilerplate_before_and_a_signature_behind_are_dropped() -> None:
    text = (
        "PATIENT: Jane Roe\nMRN: 123\nHISTORY: Lump felt.\nTECHNIQUE: Digital.\nCOMPARISON: 2019.\n"
        "FINDINGS: No masses.\nIMPRESSION: Negative.\nElectronically signed by Dr. Poe\n555-1234"
    )
    assert split_report(text) == Report("No masses.", "Negative.")


def test_a_word_inside_a_sentence_is_no_heading() -> None:
    text = "FINDINGS: The previous findings - stable - and the summary of history are unchanged.\nIMPRESSION: Benign."
    assert split_report(text).findings == "The previous findings - stable - and the summary of history are unchanged."
