"""The project's 65 acceptance cases: synthetic phantom pixels; their manifest says how they were made."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.dicom.header import read_header
from mammofed_shared.dicom.preprocess import Prepared, Recipe, prepare_file
from mammofed_shared.dicom.profiles import load_profile
from mammofed_shared.dicom.read import decode, stored_values
from mammofed_shared.dicom.reasons import BY_WORD, Kind

CASES = Path(__file__).parent / "cases"
MANIFEST = json.loads((CASES / "manifest.json").read_text())["files"]


@pytest.mark.parametrize("case", MANIFEST, ids=lambda case: case["file"])
def test_every_case_is_answered_as_its_manifest_says(case: dict[str, Any], tmp_path: Path) -> None:
    recipe = Recipe(PreprocessingSettings(height=112, width=72), load_profile("standard"), b"k" * 32, tmp_path)
    outcome = prepare_file(recipe, CASES / case["file"])
    tolerated = {case["expect"], case.get("alt_expect")}
    if isinstance(outcome, Prepared):
        assert "accept" in tolerated
        assert outcome.laterality == (case.get("laterality") or "L")
        assert outcome.view == (case.get("view") or "MLO")
        assert outcome.inverted == case.get("invert", False)
        assert (tmp_path / outcome.path).stat().st_size == outcome.png_bytes
    else:
        kind = {Kind.SKIP: "skip", Kind.ERROR: "error"}[BY_WORD[outcome.reason].kind]
        assert kind in tolerated
        assert case["expect"] == "accept" or outcome.reason == case["reason"]


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in MANIFEST
        if case["expect"] == "accept" and "alt_expect" not in case and "max_abs_err" not in case
    ],
    ids=lambda case: case["file"],
)
def test_stored_values_are_exact(case: dict[str, Any]) -> None:
    with (CASES / case["file"]).open("rb") as opened:
        header, file = read_header(opened)
        values = stored_values(*decode(header, file))
    digest = hashlib.sha256(np.ascontiguousarray(values, "<i4").tobytes()).hexdigest()
    assert digest[:16] == case["pixels_sha"]
