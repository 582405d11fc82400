"""Two hospitals adapt the text encoder together: the coordinator's and the sites' own apps, without a network."""

import json
from pathlib import Path

import numpy as np
import pytest

from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.site import PolicySettings
from mammofed_shared.protocol.payload import Payload
from mammofed_simulation.simulate import simulate, simulated
from prepared import SMALL, TEXT_ENCODER, site_settings


def test_two_sites_adapt_the_text_encoder_and_only_weights_and_numbers_leave(tmp_path: Path) -> None:
    run = RunSettings.model_validate(
        {
            "run": "text",
            "consortium": "hospitals",
            "seed": 3,
            "sites": ["central", "mayo"],
            "schedule": {"kind": "alternating", "rounds": 1},
            "evaluation": {"when": "end"},
            "preprocessing": SMALL.model_dump(),
            "task": {
                "name": "text",
                "text_encoder": {"weights": "none", "max_tokens": 64, "activation_checkpointing": False},
                "batch_size": 4,
                "precision": "fp32",
                "optimizer": {"learning_rate": 1e-3, "warmup_epochs": 0},
            },
            "text_encoder": str(TEXT_ENCODER),
            "server": {"folder": str(tmp_path / "server"), "identity": str(tmp_path / "identity")},
            "tracking": {"enabled": False},
        }
    )
    sites = [
        site_settings(tmp_path / "hospitals" / site, site, seed).model_copy(
            update={"policy": PolicySettings(least_cell=2)}
        )
        for seed, site in enumerate(run.sites)
    ]

    finished = simulate(*simulated(run, sites, tmp_path / "simulated"))

    assert finished.last_turn() == 2
    for turn, site in ((1, "central"), (2, "mayo")):
        [told] = finished.manifest(turn).contributions
        assert told.site == site and told.metrics["num_exams"] == 8 and told.metrics["num_steps"] == 2
        assert np.isfinite([told.metrics["loss"], told.metrics["mlm_loss"], told.metrics["pair_loss"]]).all()
        with Payload(finished.state_path(turn - 1)) as before, Payload(finished.state_path(turn)) as after:
            moved = {name for name in after if not np.array_equal(before[name], after[name])}
            assert moved == set(before)
    evaluated = json.loads((finished.folder / "evaluations/00002.json").read_text())["metrics"]
    for numbers in (evaluated["central"], evaluated["mayo"]):
        assert numbers["num_exams"] == 6
        assert numbers["mlm_loss"] == pytest.approx(np.log(128), rel=0.3)
        assert 0 <= numbers["mlm_accuracy"] <= 1 and 0 <= numbers["pair_accuracy"] <= 1
