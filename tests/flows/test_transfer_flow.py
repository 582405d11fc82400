"""A federation that sends bfloat16 down and differences up: as good as the whole one, and as hard to disturb."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from identities import make_consortium
from mammofed_server.run_state import RunState
from mammofed_shared.config.run import RunSettings
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.protocol.plan import PayloadReference
from mammofed_simulation.simulate import simulate, simulated
from prepared import prepare_dataset, site_settings
from whole_run import SITES, free_port, run_settings, site_yaml

REPOSITORY = Path(__file__).parent.parent.parent
ENCODED = {"download": "bf16", "upload": "delta"}
LONGEST_S = 120


@dataclass(frozen=True)
class Runs:
    """Hospitals, and three runs over them in process."""

    hospitals: Path
    whole: RunState
    other_seed: RunState
    encoded: RunState


def _settings(folder: Path, seed: int, **replaced: object) -> dict[str, Any]:
    settings = run_settings(folder, folder, port=1, seed=seed, **replaced)
    settings["schedule"]["rounds"] = 3
    settings["task"]["optimizer"] = {"learning_rate": 2e-3}
    return settings


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root = tmp_path_factory.mktemp("runs")
    sites = [site_settings(root / "hospitals" / site, site, seed) for seed, site in enumerate(SITES)]
    for seed, site in enumerate(SITES):  # enough that masses and specks are learned
        prepare_dataset(root / "hospitals" / site / "datasets" / "screening", seed, num_training=40, num_test=60)

    def run(name: str, seed: int, **replaced: object) -> RunState:
        settings = RunSettings.model_validate(_settings(root / name, seed, **replaced))
        return simulate(*simulated(settings, sites, root / name))

    return Runs(root / "hospitals", run("whole", 1), run("other", 2), run("encoded", 1, transfer=ENCODED))


def _aurocs(run: RunState) -> dict[str, float]:
    record = run.evaluation(run.last_turn())
    assert record is not None
    told = {f"{site}/{name}": value for site, all_told in record.metrics.items() for name, value in all_told.items()}
    return {name: value for name, value in told.items() if "/auroc/" in name}


def test_the_auroc_is_unchanged_within_the_noise_of_seeds(runs: Runs) -> None:
    whole, other, encoded = _aurocs(runs.whole), _aurocs(runs.other_seed), _aurocs(runs.encoded)
    assert len(whole) == 4 and set(whole) == set(other) == set(encoded)
    assert np.mean(list(whole.values())) > 0.7, "something is learned that an encoding could spoil"
    noise = [abs(whole[name] - other[name]) for name in whole]
    change = [abs(whole[name] - encoded[name]) for name in whole]
    assert np.mean(change) < np.mean(noise) / 2, f"{change} by the encoding, {noise} by the seed"


def test_half_the_bytes_travel_and_what_is_kept_is_whole(runs: Runs) -> None:
    for turn in range(1, 7):
        [told] = runs.encoded.manifest(turn).contributions
        [before] = runs.whole.manifest(turn).contributions
        assert 0.49 < told.update.size / before.update.size < 0.52
        assert told.decoded == runs.encoded.manifest(turn).state
        assert told.decoded.size == before.update.size and before.decoded is None
    assert not (runs.encoded.folder / "delivered").exists()


def test_what_rounding_dropped_stays_at_the_site_beside_the_moments(runs: Runs) -> None:
    visits = runs.encoded.folder.parent / "sites" / "mayo" / "visits"
    last = visits / "flow_r0003_v00006_mayo_train" / "result"
    assert {path.name for path in last.iterdir()} >= {"moments.safetensors", "residual.safetensors"}
    assert not (last / "update.safetensors").exists() and not (last / "encoded.safetensors").exists()
    with Payload(last / "residual.safetensors") as residual:
        assert any(residual[name].any() for name in residual)


# ── real processes ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_killed_while_it_encodes_and_while_it_decodes_it_ends_in_the_same_bits(
    tmp_path: Path, runs: Runs, processes: list[subprocess.Popen[bytes]]
) -> None:
    consortium = make_consortium(tmp_path, list(SITES))
    port = free_port()
    settings = _settings(tmp_path / "server", 1, transfer=ENCODED)
    settings["server"] |= {"listen": f"127.0.0.1:{port}", "identity": str(consortium.server)}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    for site, identity in consortium.sites.items():
        (tmp_path / f"{site}.yaml").write_text(site_yaml(tmp_path, site, port, identity, runs.hospitals, {}))

    def start(who: str, kill_at: str | None = None) -> subprocess.Popen[bytes]:
        how = [str(REPOSITORY / "tests/faults/kill_at.py"), kill_at] if kill_at else ["-m"]
        module, config = ("mammofed_server.cli", "run") if who == "server" else ("mammofed_site.cli", who)
        options = ["--config", str(tmp_path / f"{config}.yaml"), *(() if who == "server" else ("--site", who))]
        with (tmp_path / f"{who}.out").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *how, module, *options], stdout=output, stderr=subprocess.STDOUT, cwd=REPOSITORY
            )
        processes.append(process)
        return process

    server = start("server", "mammofed_server.mailbox:decode@after#2")
    central = start("central", "mammofed_site.transfer:encode@after#2")
    mayo = start("mayo")
    assert server.wait(LONGEST_S) == -signal.SIGKILL
    server = start("server")
    assert central.wait(LONGEST_S) == -signal.SIGKILL
    central = start("central")
    ended = [process.wait(LONGEST_S) for process in (server, central, mayo)]
    assert ended == [0, 0, 0], (tmp_path / "server.out").read_text()
    run = RunState.open(tmp_path / "server")
    for turn in range(1, 7):
        assert run.manifest(turn).state == runs.encoded.manifest(turn).state
        assert _sent(run, turn) == _sent(runs.encoded, turn)


def _sent(run: RunState, turn: int) -> list[PayloadReference]:
    return [item.update for item in run.manifest(turn).contributions]
