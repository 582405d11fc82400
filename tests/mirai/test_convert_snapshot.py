"""The converter that users run in their own MIRAI environment, on snapshots of a small model of the same make."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mammofed_shared.config.mirai_teacher import is_calibrated, read_description
from mammofed_shared.models.mirai_weights import load_mirai

ROOT = Path(__file__).parents[2]
CONVERTER = ROOT / "deploy/mirai/convert_snapshot.py"
FAKE = ROOT / "tests/fake_mirai"
WRITE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import onconet
risk_factors = {"density": 4, "parous": 1, "race": 3}
for folder, pool, sizes in (("published", "Simple_AttentionPool", risk_factors), ("plain", "Simple_AttentionPool", {})):
    (Path(sys.argv[2]) / folder).mkdir()
    onconet.write_snapshots(Path(sys.argv[2]) / folder, 3, pool, 8, sizes)
onconet.write_calibrators(Path(sys.argv[2]) / "other.p", bend=2.0)
"""


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made in another process: this one must never know the classes that the pickles name."""
    folder = tmp_path_factory.mktemp("snapshots")
    subprocess.run([sys.executable, "-c", WRITE, str(FAKE), str(folder)], check=True, timeout=120)
    return folder


def convert(folder: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """In a bare environment, where nothing of mammofed can be imported."""
    command = [sys.executable, "-I", str(CONVERTER), "--mirai", str(FAKE), "--output", str(output)]
    command += ["--encoder", str(folder / "encoder.p"), "--transformer", str(folder / "transformer.p"), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)


@pytest.mark.parametrize("kind", ["published", "plain"])
def test_what_is_converted_gives_the_risks_that_mirai_gives(snapshots: Path, tmp_path: Path, kind: str) -> None:
    output = tmp_path / "mirai.safetensors"
    calibrator = ("--calibrator", str(snapshots / kind / "calibrators.p"))
    options = calibrator if kind == "published" else ("--image-size", "64", "96")

    done = convert(snapshots / kind, output, *options)

    assert done.returncode == 0, done.stderr
    assert ("WITHOUT calibration" in done.stdout) is (kind == "plain")
    told = read_description(output)
    assert (told.image_height, told.image_width) == ((2048, 1664) if kind == "published" else (96, 64))
    assert list(told.risk_factors) == (["density", "parous", "race"] if kind == "published" else [])
    assert is_calibrated(output) is (kind == "published")
    model = load_mirai(output, num_heads=told.num_heads, pool=told.pool, risk_factors=told.risk_factors)
    expected: dict[str, Any] = torch.load(snapshots / kind / "exam.pt", weights_only=True)
    view, side = torch.tensor([[0, 1, 0, 1]]), torch.tensor([[0, 0, 1, 1]])
    with torch.inference_mode():
        features = torch.stack([model.features(image) for image in expected["exam"]])[None]
        logit = model.transformer(features, torch.zeros_like(view), view, side)
    torch.testing.assert_close(logit, expected["logit"], rtol=1e-4, atol=1e-4)
    if kind == "published":
        torch.testing.assert_close(model.risks(logit), expected["risks"], rtol=1e-4, atol=1e-6)


def test_a_calibrator_that_is_another_function_is_refused(snapshots: Path, tmp_path: Path) -> None:
    done = convert(snapshots / "plain", tmp_path / "out", "--calibrator", str(snapshots / "other.p"))

    assert done.returncode != 0
    assert "the calibrator of year 1 gives" in done.stderr
    assert not (tmp_path / "out").exists()
