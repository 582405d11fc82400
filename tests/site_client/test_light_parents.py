"""The parents of both commands stay light: what they load, and how much memory they take when idle."""

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "timm", "mlflow", "albumentations", "cv2", "sklearn", "matplotlib")
LOOK = """
import json, sys
for name in sys.argv[1:]:
    __import__(name)
resident = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS"))
modules = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps({"modules": modules, "resident_mb": int(resident) / 1024}))
"""


@pytest.mark.parametrize(
    "modules",
    [
        pytest.param(["mammofed_site.cli", "mammofed_site.client", "mammofed_site.app"], id="site-client"),
        pytest.param(["mammofed_server.cli", "mammofed_server.serve", "mammofed_server.app"], id="fl-server"),
    ],
)
def test_a_parent_is_free_of_heavy_libraries(modules: list[str]) -> None:
    said = subprocess.run(
        [sys.executable, "-c", LOOK, *modules], capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(said.stdout)
    assert "grpc" in found["modules"], "the parent is whole"
    assert [name for name in HEAVY if name in found["modules"]] == []
    assert found["resident_mb"] < 130
