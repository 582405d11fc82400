"""Two hospitals train by SCAFFOLD, which keeps something on both sides; a kill between two rounds changes no bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from mammofed_server.export import export_checkpoint
from mammofed_server.run_state import RunState
from mammofed_shared.checkpoint import Manifest
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.protocol.task_spec import CONTROL
from mammofed_simulation.simulate import simulate, simulated
from mammofed_site.visit import visit_folder
from prepared import SMALL, TEXT_ENCODER, site_settings

SITES = ("central", "mayo")
Train = Callable[..., tuple[RunState, list[SiteSettings]]]


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> list[SiteSettings]:
    root = tmp_path_factory.mktemp("hospitals")
    return [site_settings(root / site, site, seed) for seed, site in enumerate(SITES)]


@pytest.fixture
def train(tmp_path: Path, hospitals: list[SiteSettings], monkeypatch: pytest.MonkeyPatch) -> Train:
    """Runs a schedule to its end; ``cut_after`` is the turn after whose commit the coordinator is killed first."""

    def run_it(schedule: dict[str, Any], cut_after: int | None = None) -> tuple[RunState, list[SiteSettings]]:
        run, sites = simulated(_run(tmp_path, schedule), hospitals, tmp_path / f"cut-{cut_after}")
        if cut_after is not None:
            commit = RunState.commit

            def cut(state: RunState, turn: int, *given: Any, **named: Any) -> Manifest:
                manifest = commit(state, turn, *given, **named)
                if turn == cut_after:
                    raise KeyboardInterrupt
                return manifest

            with monkeypatch.context() as patched:
                patched.setattr(RunState, "commit", cut)
                with pytest.raises(KeyboardInterrupt):
                    simulate(run, sites)
        return simulate(run, sites), sites

    return run_it


def _run(folder: Path, schedule: dict[str, Any]) -> RunSettings:
    return RunSettings.model_validate(
        {
            "run": "text",
            "consortium": "hospitals",
            "seed": 3,
            "sites": SITES,
            "schedule": schedule,
            "evaluation": {"when": "end"},
            "transfer": {"download": "bf16", "upload": "delta"},
            "preprocessing": SMALL.model_dump(),
            "task": {
                "name": "text",
                "text_encoder": {"weights": "none", "max_tokens": 64, "activation_checkpointing": False},
                "batch_size": 4,
                "precision": "fp32",
                "optimizer": {"learning_rate": 1e-3, "warmup_epochs": 0},
            },
            "text_encoder": str(TEXT_ENCODER),
            "server": {"folder": str(folder / "server"), "identity": str(folder / "identity")},
            "tracking": {"enabled": False},
        }
    )


def test_scaffold_trains_two_hospitals_and_survives_a_kill(tmp_path: Path, train: Train) -> None:
    schedule = {"kind": "fedavg", "rounds": 2, "weighting": "equal", "strategy": {"name": "scaffold"}}
    whole, sites = train(schedule)
    cut, _ = train(schedule, cut_after=1)

    last = whole.manifest(2)
    assert [item.site for item in last.contributions] == list(SITES) and not last.failures
    assert cut.manifest(2).state == last.state
    own = [_read(visit_folder(site, last.moments[site.site]) / "result" / "control.safetensors") for site in sites]
    state = _read(whole.state_path(2))
    assert any(np.abs(own[0][name] - own[1][name]).max() > 1e-6 for name in own[0]), "the sites differ"
    for name in own[0]:
        expected = (own[0][name] + own[1][name]) / 2
        np.testing.assert_allclose(state[CONTROL + name], expected, rtol=1e-4, atol=1e-7)
    assert whole.evaluation(2) is not None
    export_checkpoint(whole.checkpoint_folder(2), TEXT_ENCODER, tmp_path / "exported")
    assert not any(name.startswith(CONTROL) for name in load_file(tmp_path / "exported" / "heads.safetensors"))


def _read(path: Path) -> dict[str, Any]:
    with Payload(path) as payload:
        return {name: np.array(payload[name]) for name in payload}
