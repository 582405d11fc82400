"""Two hospitals that protect themselves, each in its own way, in one run: real workers, no network."""

import json
from pathlib import Path

import numpy as np

from mammofed_server.run_state import RunState
from mammofed_shared.config.policy import PolicySettings
from mammofed_shared.config.privacy import PrivacySettings
from mammofed_shared.config.run import RunSettings
from mammofed_shared.protocol.payload import Payload, reference_of
from mammofed_simulation.simulate import simulate, simulated
from mammofed_site.privacy_ledger import read_spendings
from prepared import SMALL, TEXT_ENCODER, site_settings

NOISE = {"update_noise": {"clip_norm": 0.01, "noise_multiplier": 4.0, "largest_epsilon": 2.0}}
DP_SGD = {"dp_sgd": {"clip_norm": 0.5, "noise_multiplier": 1.0, "delta": 1e-3, "largest_epsilon": 30.0}}


def run_of(folder: Path) -> RunSettings:
    return RunSettings.model_validate(
        {
            "run": "text",
            "consortium": "hospitals",
            "seed": 3,
            "sites": ["central", "mayo"],
            "schedule": {"kind": "alternating", "rounds": 2},
            "on_failure": "skip",
            "quorum": 1,
            "evaluation": {"when": "end"},
            "preprocessing": SMALL.model_dump(),
            "task": {
                "name": "text",
                "text_encoder": {"weights": "none", "max_tokens": 64, "activation_checkpointing": False},
                "swapped_share": 0.0,
                "batch_size": 4,
                "precision": "fp32",
                "optimizer": {"learning_rate": 1e-3, "warmup_epochs": 0},
            },
            "text_encoder": str(TEXT_ENCODER),
            "server": {"folder": str(folder / "server"), "identity": str(folder / "identity")},
            "tracking": {"enabled": False},
        }
    )


def test_noise_and_dp_sgd_protect_what_leaves_and_a_spent_budget_ends_a_sites_part(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    wanted = {"central": DP_SGD, "mayo": NOISE}
    settings, sites = simulated(
        run,
        [
            site_settings(tmp_path / "hospitals" / site, site, seed).model_copy(
                update={"policy": PolicySettings(least_cell=2, privacy=PrivacySettings.model_validate(wanted[site]))}
            )
            for seed, site in enumerate(run.sites)
        ],
        tmp_path / "simulated",
    )

    finished = simulate(settings, sites)

    central, mayo = sites
    assert finished.last_turn() == 4
    told = {turn: finished.manifest(turn).contributions for turn in (1, 2, 3)}
    for turn, [contribution] in told.items():
        assert contribution.site == ("central", "mayo", "central")[turn - 1]
        assert {"num_exams", "num_steps"} <= set(contribution.metrics)
        assert not {"loss", "grad_norm", "num_samples", "mlm_loss", "samples_per_s"} & set(contribution.metrics)
    _each_central_visit_is_paid(central.folder)
    _mayo_sent_noise_and_no_more(finished, mayo.folder)
    [failure] = finished.manifest(4).failures
    assert (failure.site, failure.code) == ("mayo", "PRIVACY_BUDGET")


def _each_central_visit_is_paid(folder: Path) -> None:
    first, second = read_spendings(folder)
    assert {(item.mechanism, item.noise_multiplier, item.sample_rate, item.steps) for item in (first, second)} == {
        ("dp_sgd", 1.0, 0.5, 2)
    }
    assert 0 < first.epsilon < second.epsilon
    assert not list(folder.rglob("noise.secret")), "what noise was drawn from is gone with the visit"
    assert [event["epsilon"] for event in _audited(folder, "spent")] == [first.epsilon, second.epsilon]


def _mayo_sent_noise_and_no_more(finished: RunState, folder: Path) -> None:
    [paid] = read_spendings(folder)
    [released] = [event for event in _audited(folder, "released") if event["digest"]]
    assert released["filters"] == ["clipped 0.01", "gaussian-noise 4"]
    assert released["digest"] == reference_of(finished.state_path(2)).digest and paid.task == released["task"]
    with Payload(finished.state_path(1)) as before, Payload(finished.state_path(2)) as after:
        noise = np.concatenate([(after[name] - before[name]).reshape(-1) for name in after])
    assert abs(noise.std() / 0.04 - 1) < 0.02, "an update of norm 0.01 is next to nothing beside it"


def _audited(folder: Path, event: str) -> list[dict[str, object]]:
    lines = (folder / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == event]
