"""A whole run with real processes: fl-server and two site-clients over mutual TLS, killed at every awkward moment.

Every run here must end in the same weights, to the bit, as the undisturbed run in process.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from identities import Consortium, make_consortium
from mammofed_server.pooled import pooled_aurocs
from mammofed_server.run_state import RunState
from mammofed_server.serve import open_or_begin
from mammofed_shared.config.run import RunSettings
from mammofed_simulation.simulate import simulate, simulated
from prepared import SMALL, TEXT_ENCODER, site_settings

REPOSITORY = Path(__file__).parent.parent.parent
LONGEST_S = 240


@dataclass
class Federation:
    """One run's folder, its commands and their processes."""

    folder: Path
    run_yaml: Path
    site_yaml: dict[str, Path]
    server_folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def server(self, *overrides: str, kill_at: str | None = None) -> subprocess.Popen[bytes]:
        return self._start("server", "mammofed_server.cli", ["--config", str(self.run_yaml), *overrides], kill_at)

    def site(self, site: str, *overrides: str, kill_at: str | None = None) -> subprocess.Popen[bytes]:
        arguments = ["--site", site, "--config", str(self.site_yaml[site]), *overrides]
        return self._start(site, "mammofed_site.cli", arguments, kill_at)

    def _start(self, name: str, module: str, arguments: list[str], kill_at: str | None) -> subprocess.Popen[bytes]:
        how = [str(REPOSITORY / "tests/faults/kill_at.py"), kill_at] if kill_at else ["-m"]
        with (self.folder / f"{name}.out").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *how, module, *arguments], stdout=output, stderr=subprocess.STDOUT, cwd=REPOSITORY
            )
        self.processes.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.out").read_text()

    def digest(self) -> str:
        run = RunState.open(self.server_folder)
        assert run.ending() == "finished"
        return run.manifest(run.last_turn()).state.digest


def _ends(process: subprocess.Popen[bytes]) -> int:
    return process.wait(timeout=LONGEST_S)


def _run_settings(server_folder: Path, identity: Path, port: int) -> dict[str, Any]:
    return {
        "run": "flow",
        "consortium": "hospitals",
        "seed": 3,
        "sites": ["central", "mayo"],
        "schedule": {"kind": "alternating", "rounds": 2},
        "evaluation": {"when": "end"},
        "preprocessing": SMALL.model_dump(),
        "task": {
            "name": "pretrain",
            "image_encoder": {
                "name": "mammofed_small_cnn",
                "weights": "none",
                "pooling": "avgmax",
                "activation_checkpointing": False,
            },
            "text_encoder": {"weights": "none", "max_tokens": 64},
            "projection_dim": 32,
            "batch_size": 4,
            "precision": "fp32",
            "optimizer": {"learning_rate": 1e-3},
        },
        "text_encoder": str(TEXT_ENCODER),
        "server": {"listen": f"127.0.0.1:{port}", "folder": str(server_folder), "identity": str(identity)},
        "tracking": {"enabled": False},
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def consortium(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return make_consortium(tmp_path_factory.mktemp("consortium"), ["central", "mayo"])


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, consortium: Consortium) -> tuple[Path, Path, str]:
    """Prepared hospitals, a run that has just begun, and the digest in which it ends when nothing disturbs it."""
    root = tmp_path_factory.mktemp("reference")
    sites = [site_settings(root / "hospitals" / site, site, seed) for seed, site in enumerate(["central", "mayo"])]
    run = RunSettings.model_validate(_run_settings(root / "begun", consortium.server, 1))
    begun = open_or_begin(run).folder
    moved_run, moved_sites = simulated(run, sites, root / "undisturbed")
    shutil.copytree(begun, moved_run.server.folder)
    undisturbed = simulate(moved_run, moved_sites)
    return root / "hospitals", begun, undisturbed.manifest(undisturbed.last_turn()).state.digest


@pytest.fixture
def federation(tmp_path: Path, consortium: Consortium, reference: tuple[Path, Path, str]) -> Iterator[Federation]:
    hospitals, begun, _ = reference
    port = _free_port()
    server_folder = tmp_path / "server"
    shutil.copytree(begun, server_folder)
    run_yaml = tmp_path / "run.yaml"
    run_yaml.write_text(yaml.safe_dump(_run_settings(server_folder, consortium.server, port)))
    site_yaml = {}
    for site, identity in consortium.sites.items():
        site_yaml[site] = tmp_path / f"{site}.yaml"
        site_yaml[site].write_text(
            yaml.safe_dump(
                {
                    "site": site,
                    "consortium": "hospitals",
                    "server": f"127.0.0.1:{port}",
                    "folder": str(tmp_path / site),
                    "identity": str(identity),
                    "datasets": [{"name": "screening", "prepared": str(hospitals / site / "datasets" / "screening")}],
                    "preprocessing": SMALL.model_dump(),
                    "text_encoder": str(TEXT_ENCODER),
                    "worker": {"device": "cpu", "threads": 1},
                    "policy": {"least_cell": 2},
                }
            )
        )
    running = Federation(tmp_path, run_yaml, site_yaml, server_folder)
    yield running
    for process in running.processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_over_mutual_tls_a_run_ends_in_the_same_bits_as_in_process(
    federation: Federation, reference: tuple[Path, Path, str]
) -> None:
    processes = [federation.server(), federation.site("central"), federation.site("mayo")]
    assert [_ends(process) for process in processes] == [0, 0, 0], federation.log("server")
    assert federation.digest() == reference[2]
    assert reference[2] in federation.log("server"), "fl-server says the digest in which the run ended"
    released = json.loads((federation.server_folder / "evaluations/00004.json").read_text())["metrics"]
    assert set(released) == {"central", "mayo"}
    assert released["mayo"]["suppressed/mass"] == 1, "one of six test exams has no mass"
    low, area, high = (released["mayo"][f"{word}/calcification"] for word in ("auroc_low", "auroc", "auroc_high"))
    assert 0 <= low <= area <= high <= 1
    pooled = pooled_aurocs(released)["calcification"]
    assert pooled.sites == ("central", "mayo") and 0 <= pooled.low <= pooled.high <= 1
    (kept,) = (federation.folder / "mayo/released-evaluations").iterdir()
    assert kept.name == f"{reference[2]}.json", "and is told no second time otherwise"
    events = [json.loads(line)["event"] for line in (federation.folder / "mayo/audit.jsonl").read_text().splitlines()]
    assert events[:4] == ["permitted", "counted", "released", "submitted"]
    assert events[4:] == ["fetched", "permitted", "released", "submitted"] * 3
    counts = json.loads((federation.server_folder / "quality.json").read_text())["counts"]
    assert counts["mayo"]["num_images"] == 55 and counts["mayo"]["num_patients"] == 15, "56 and 14, rounded"
    assert counts["mayo"]["num_images_by_view/cc"] == 30, "28, rounded"
    assert "images by vendor" in federation.log("server")


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("mammofed_server.mailbox:check_metrics@before#2", id="one site has told its counts"),
        pytest.param("mammofed_server.mailbox:check_tensors@before#2", id="an update is whole but not judged"),
        pytest.param("mammofed_server.run_state:RunState.commit@before#2", id="an update is accepted, no checkpoint"),
        pytest.param("mammofed_shared.checkpoint:link_state@after#2", id="a checkpoint is being written"),
        pytest.param("mammofed_server.run_state:RunState.commit@after#3", id="a checkpoint is committed"),
    ],
)
def test_a_killed_server_goes_on_to_the_same_bits(
    federation: Federation, reference: tuple[Path, Path, str], point: str
) -> None:
    server = federation.server(kill_at=point)
    sites = [federation.site("central"), federation.site("mayo")]
    assert _ends(server) == -signal.SIGKILL
    server = federation.server()
    assert [_ends(process) for process in (server, *sites)] == [0, 0, 0], federation.log("server")
    assert federation.digest() == reference[2]


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("mammofed_site.visit:_note_progress@before#2", id="in the middle of an epoch"),
        pytest.param("mammofed_site.app:tell_once@after#1", id="counted, nothing sent"),
        pytest.param("mammofed_site.app:release@after#2", id="trained, nothing sent"),
        pytest.param("mammofed_site.link:_parts@item#2", id="in the middle of the upload"),
    ],
)
def test_a_killed_site_goes_on_to_the_same_bits(
    federation: Federation, reference: tuple[Path, Path, str], point: str
) -> None:
    server, central = federation.server(), federation.site("central")
    assert _ends(federation.site("mayo", kill_at=point)) == -signal.SIGKILL
    mayo = federation.site("mayo")
    assert [_ends(process) for process in (server, central, mayo)] == [0, 0, 0], federation.log("mayo")
    assert federation.digest() == reference[2]


def test_ctrl_c_ends_both_sides_cleanly_and_a_restart_goes_on(
    federation: Federation, reference: tuple[Path, Path, str]
) -> None:
    server, central, mayo = federation.server(), federation.site("central"), federation.site("mayo")
    until = time.monotonic() + LONGEST_S
    while RunState.open(federation.server_folder).last_turn() < 1 and time.monotonic() < until:
        time.sleep(0.05)
    for process in (server, mayo):
        os.kill(process.pid, signal.SIGINT)
    assert [_ends(server), _ends(mayo)] == [130, 130]
    assert "Traceback" not in federation.log("server") + federation.log("mayo")
    server, mayo = federation.server(), federation.site("mayo")
    assert [_ends(process) for process in (server, central, mayo)] == [0, 0, 0]
    assert federation.digest() == reference[2]
