"""Ten of the project's 65 acceptance cases; their manifest says where they come from."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.dicom.header import read_header
from mammofed_shared.dicom.preprocess import Prepared, Recipe, Refusal, prepare_file
from mammofed_shared.dicom.read import decode, stored_values
from mammofed_shared.dicom.reasons import BY_WORD, Kind

CASES = Path(__file__).parent / "cases"
MANIFEST = json.loads((CASES / "manifest.json").read_text())["files"]


@pytest.mark.parametrize("case", MANIFEST, ids=lambda case: case["file"])
def test_every_case_is_answered_as_its_manifest_says(case: dict[str, Any], tmp_path: Path) -> None:
    recipe = Recipe(PreprocessingSettings(height=112, width=72), "standard", b"k" * 32, tmp_path)
    outcome = prepare_file(recipe, CASES / case["file"])
    if case["expect"] == "accept":
        assert isinstance(outcome, Prepared)
        assert (outcome.laterality, outcome.view) == (case.get("laterality", "L"), case.get("view", "MLO"))
        assert (tmp_path / outcome.path).stat().st_size == outcome.png_bytes
    else:
        assert isinstance(outcome, Refusal)
        assert outcome.reason == case["reason"]
        assert BY_WORD[outcome.reason].kind is {"skip": Kind.SKIP, "error": Kind.ERROR}[case["expect"]]


@pytest.mark.parametrize(
    "case", [case for case in MANIFEST if case["expect"] == "accept"], ids=lambda case: case["file"]
)
def test_stored_values_are_exact(case: dict[str, Any]) -> None:
    with (CASES / case["file"]).open("rb") as opened:
        header, file = read_header(opened)
        values = stored_values(*decode(header, file))
    digest = hashlib.sha256(np.ascontiguousarray(values, "<i4").tobytes()).hexdigest()
    assert digest[:16] == case["pixels_sha"]
