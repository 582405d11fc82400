"""Import profiles: what an archive does otherwise is written down in YAML, checked, and followed."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from dicom_fixtures import write_mammogram
from mammofed_shared.config.import_profile import ImportProfile
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.dicom.preprocess import Prepared, Recipe, Refusal, prepare_file
from mammofed_shared.dicom.profiles import load_profile
from mammofed_shared.errors import ConfigurationError

OWN = """
patterns:
  - {attribute: series_description, matches: 'BREAST_(?P<laterality>LEFT|RIGHT)_(?P<view>CC|MLO).*'}
  - {attribute: patient, matches: '[A-Z]+-(?P<patient>\\d+)-\\d+', otherwise: ignore}
refuse:
  - {attribute: series_description, matches: 'MAG', reason: view_modifier}
words: {LEFT: L, RIGHT: R}
study: accession
ignore: [view_position]
"""


def outcome(folder: Path, profile: str, **changes: object) -> Prepared | Refusal:
    (folder / "own.yaml").write_text(profile)
    recipe = Recipe(
        PreprocessingSettings(height=64, width=40), load_profile(str(folder / "own.yaml")), b"k" * 32, folder
    )
    return prepare_file(recipe, write_mammogram(folder / "in/a", **changes))


def test_side_view_patient_and_exam_are_taken_from_where_the_archive_keeps_them(tmp_path: Path) -> None:
    said = {"ImageLaterality": None, "ViewPosition": "OTHER", "SeriesDescription": "BREAST_LEFT_CC raw"}
    first = outcome(tmp_path, OWN, **said, PatientID="UPMC-17-1", StudyInstanceUID="1.5", AccessionNumber="A7")
    later = outcome(tmp_path, OWN, **said, PatientID="UPMC-17-2", StudyInstanceUID="1.6", AccessionNumber="A7")
    assert isinstance(first, Prepared)
    assert isinstance(later, Prepared)
    assert (first.laterality, first.laterality_from, first.view, first.view_from) == ("L", "profile", "CC", "profile")
    assert (first.patient, first.exam) == (later.patient, later.exam)


@pytest.mark.parametrize(
    ("description", "reason"),
    [("BREAST_LEFT_MAG", "view_modifier"), ("something else", "not_of_profile"), ("", "not_of_profile")],
)
def test_what_the_profile_does_not_know_is_refused(tmp_path: Path, description: str, reason: str) -> None:
    refused = outcome(tmp_path, OWN, SeriesDescription=description)
    assert isinstance(refused, Refusal)
    assert refused.reason == reason


def test_two_patterns_that_disagree_refuse_the_file(tmp_path: Path) -> None:
    profile = """
patterns:
  - {attribute: series_description, matches: '(?P<view>CC|MLO)'}
  - {attribute: view_position, matches: '(?P<view>CC|MLO)'}
"""
    refused = outcome(tmp_path, profile, SeriesDescription="CC", ViewPosition="MLO")
    assert isinstance(refused, Refusal)
    assert refused.reason == "contradicting_tags"


def test_a_profile_that_is_not_there_is_refused_with_the_shipped_names() -> None:
    with pytest.raises(ConfigurationError, match="cbis-ddsm, standard"):
        load_profile("cbis")


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("patterns: [{attribute: patient, matches: '(?P<patient>'}]", "no regular expression"),
        ("patterns: [{attribute: patient, matches: '(?P<name>.*)'}]", "named groups among"),
        ("patterns: [{attribute: patientname, matches: '(?P<patient>.*)'}]", "patterns.0.attribute"),
        ("paterns: []", "did you mean 'patterns'"),
    ],
)
def test_a_wrong_profile_is_refused_by_its_key(tmp_path: Path, profile: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        outcome(tmp_path, profile)


def test_a_pattern_without_groups_says_nothing_and_is_refused() -> None:
    with pytest.raises(ValidationError, match="found none"):
        ImportProfile.model_validate({"patterns": [{"attribute": "patient", "matches": ".*"}]})
