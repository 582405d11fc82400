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


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        ("## Findings\n- No mass\n\n**Impression:** Negative", "- No mass", "Negative"),
        ("**FINDINGS:**\nNo mass.\n__Impression__\nNegative.", "No mass.", "Negative."),
        ("1. FINDINGS: No mass.\n2. IMPRESSION: Negative.", "No mass.", "Negative."),
        ("I. Findings\nNo mass.\nII. Impression\nNegative.", "No mass.", "Negative."),
        ("[FINDINGS]\nNo mass.\n[IMPRESSION]\nNegative.", "No mass.", "Negative."),
        ("FINDINGS AND IMPRESSION: No mass. Negative.", "No mass. Negative.", ""),
        ("Clinical details: Lump.\nReport: No mass.\nOpinion: Normal.", "No mass.", "Normal."),
        ("HISTORY: Screening  FINDINGS: No mass  IMPRESSION: Negative", "No mass", "Negative"),
        ("FINDINGS: A.\r\nIMPRESSION: B.\r\nADDENDUM #1: C.", "A.", "B. C."),
        ("Findings: A.<br>Impression: B.", "A.", "B."),
        ("FINDINGS: A. BI-RADS 4A: Suspicious.", "A.", "BI-RADS 4A: Suspicious."),
        ("FINDINGS: A.\nASSESSMENT: 2", "A.", "Assessment: 2"),
        ("FINDINGS: A.\nBI-RADS CATEGORY 2: Benign", "A.", "BI-RADS CATEGORY 2: Benign"),
    ],
)
def test_headings_are_found_as_hospitals_write_them(text: str, findings: str, impression: str) -> None:
    assert split_report(text) == Report(findings, impression)


def test_headings_inside_of_the_findings_stay_text_and_end_a_dropped_part() -> None:
    text = (
        "TECHNIQUE: Digital.\nRight breast: A mass.\nLeft breast: Normal.\n"
        "IMPRESSION: 1. A mass.\n2. Left breast: normal.\nRIGHT BREAST: BI-RADS 0."
    )
    assert split_report(text) == Report(
        "Right breast: A mass. Left breast: Normal.",
        "1. A mass. 2. Left breast: normal. RIGHT BREAST: BI-RADS 0.",
    )


def test_sentences_before_the_impression_are_findings_where_no_heading_says_so() -> None:
    text = "MAMMOGRAM\nThere are scattered densities. No mass is seen.\nIMPRESSION: Negative."
    assert split_report(text) == Report("MAMMOGRAM There are scattered densities. No mass is seen.", "Negative.")
    assert split_report("Mammogram screening\nIMPRESSION: Negative.") == Report("", "Negative.")


def test_lines_about_a_person_are_dropped_without_any_other_heading() -> None:
    text = "Patient: Jane Roe\nMRN: 123\nDOB: 1.2.1950\nNo masses. Benign calcifications.\nDr. Poe, radiologist"
    assert split_report(text).findings == "No masses. Benign calcifications. Dr. Poe, radiologist"


@pytest.mark.parametrize(
    "signature",
    [
        "\nElectronically signed by: Jane Poe, MD 01/02/2019\nWorkstation: ABC-12345",
        " Electronically signed by Jane Poe on 01/02/2019.",
        "\nThis report was electronically signed by Jane Poe",
        "\nDictated by: Jane Poe\nTranscribed by: JP",
        "\nReported by Dr Jane Poe, Consultant Radiologist",
        "\nInterpreting physician: Jane Poe",
        "\nKind regards,\nJane Poe",
        "\nD: 01/02/2019 T: 01/03/2019\nJP/kl",
    ],
)
def test_a_signature_is_dropped(signature: str) -> None:
    assert split_report(f"FINDINGS: No mass.\nIMPRESSION: Negative.{signature}") == Report("No mass.", "Negative.")
    assert split_report(f"No mass. Negative.{signature}") == Report("No mass. Negative.", "")


def test_an_addendum_behind_the_signature_is_kept() -> None:
    text = "FINDINGS: A.\nIMPRESSION: Suspicious.\nElectronically signed by Jane Poe\nADDENDUM: Benign. BI-RADS 2."
    assert split_report(text) == Report("A.", "Suspicious. Benign. BI-RADS 2.")


def test_a_line_that_only_wraps_to_such_a_word_is_no_signature() -> None:
    text = "FINDINGS: The mass was\nverified by ultrasound. No calcifications.\nIMPRESSION: Benign."
    assert split_report(text) == Report("The mass was verified by ultrasound. No calcifications.", "Benign.")


@pytest.mark.parametrize(
    "sentence",
    [
        "Computer-aided detection (CAD) was used in the interpretation of this exam.",
        "The images were reviewed with the aid of CAD.",
        "The study was interpreted with computer aided detection.",
        "This report was generated using voice recognition software.",
        "The images and report were reviewed by the attending radiologist.",
        "I, the attending, have personally reviewed the images.",
        "A letter in lay terms will be sent to the patient.",
        "The patient will be notified of these results by mail.",
        "The patient was entered into a reminder system with a target date.",
        "This facility is certified by the FDA under MQSA.",
        "Your mammogram shows that your breast tissue is dense.",
        "Dense breast tissue is common and is not abnormal.",
        "A negative mammogram should not delay biopsy of a palpable lump.",
        "Approximately 10% of breast cancers are not detected by mammography.",
        "Management of palpable findings should be based on clinical grounds.",
    ],
)
def test_a_sentence_that_stands_in_every_report_is_dropped(sentence: str) -> None:
    assert split_report(f"FINDINGS: A mass. {sentence} No calcifications.").findings == "A mass. No calcifications."
    assert split_report(f"FINDINGS: A mass\n{sentence}\nNo calcifications").findings == "A mass No calcifications"


@pytest.mark.parametrize(
    "sentence",
    [
        "The breasts are heterogeneously dense, which may obscure small masses.",
        "A mass in the left breast marked by CAD is unchanged.",
        "The lesions are not seen on the mediolateral view.",
        "There is no change from the previous exam, which was reviewed.",
        "The palpable lump corresponds to a cyst.",
        "R: 2 cm mass.",
    ],
)
def test_a_sentence_about_the_images_stays(sentence: str) -> None:
    assert split_report(f"FINDINGS: {sentence}").findings == sentence


def test_a_legend_of_the_categories_is_dropped_and_the_category_stays() -> None:
    legend = (
        "BI-RADS Categories: 0 - Incomplete, need additional imaging; 1 - Negative; 2 - Benign; 3 - Probably benign; "
        "4 - Suspicious; 5 - Highly suggestive of malignancy; 6 - Known malignancy."
    )
    report = split_report(f"FINDINGS: A cyst.\nIMPRESSION: BI-RADS 2: Benign.\n{legend}")
    assert report == Report("A cyst.", "BI-RADS 2: Benign.")


def test_any_text_is_divided_without_an_error() -> None:
    for text in (
        "",
        ":",
        "\n\n",
        ".",
        "FINDINGS:",
        "IMPRESSION",
        "*",
        "#" * 50,
        "A" * 10_000,
        ": " * 2_000,
        "\x00",
        "1." * 999,
    ):
        assert isinstance(split_report(text), Report)
