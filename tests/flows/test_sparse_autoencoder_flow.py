"""Two hospitals train a sparse autoencoder on the frozen model: the coordinator's and the sites' own apps alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from frozen_encoders import write_frozen_encoder
from mammofed_shared.config.frozen_encoder import read_encoder
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.site import PolicySettings
from mammofed_shared.models.sparse_autoencoder import SparseAutoencoder
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.training.state import load_state
from mammofed_simulation.simulate import simulate, simulated
from prepared import SMALL, site_settings

LEVELS = (4, 16, 512)


@pytest.mark.parametrize("schedule", ["alternating", "fedavg"])
def test_two_sites_train_an_autoencoder_and_only_weights_and_numbers_leave(schedule: str, tmp_path: Path) -> None:
    encoder = write_frozen_encoder(tmp_path / "encoder")
    run = RunSettings.model_validate(
        {
            "run": "sae",
            "consortium": "hospitals",
            "seed": 3,
            "sites": ["central", "mayo"],
            "schedule": {"kind": schedule, "rounds": 1, "epochs": 4},
            "evaluation": {"when": "end"},
            "preprocessing": SMALL.model_dump(),
            "task": {
                "name": "sae",
                "encoder_features": read_encoder(encoder).num_channels,
                "num_neurons": LEVELS[-1],
                "levels": LEVELS,
                "patches_per_image": 8,
                "images_per_step": 8,
                "dead_after_epochs": 2,
                "optimizer": {"learning_rate": 3e-3, "weight_decay": 0, "warmup_epochs": 0},
            },
            "encoder": str(encoder),
            "server": {"folder": str(tmp_path / "server"), "identity": str(tmp_path / "identity")},
            "tracking": {"enabled": False},
        }
    )
    sites = [
        site_settings(tmp_path / "hospitals" / site, site, seed).model_copy(
            update={"policy": PolicySettings(least_cell=2), "encoder": encoder, "text_encoder": None}
        )
        for seed, site in enumerate(run.sites)
    ]

    finished = simulate(*simulated(run, sites, tmp_path / "simulated"))

    last = finished.last_turn()
    with Payload(finished.state_path(0)) as before, Payload(finished.state_path(last)) as after:
        moved = {name for name in after if not np.array_equal(before[name], after[name])}
        assert moved | {"heard"} == {"encoder", "encoder_bias", "decoder", "pre_bias", "heard"} == set(after)
        assert after["heard"].max() == 1, "fired in the last epoch"
    for turn in range(1, last + 1):
        for told in finished.manifest(turn).contributions:
            assert told.metrics["num_exams"] == 8 and told.metrics["num_steps"] == 16
            assert np.isfinite([told.metrics["loss"], told.metrics["code_l1"]]).all()
            assert told.metrics["relative_error"] > 0 and 0 <= told.metrics["silent_share"] < 1
    evaluated = json.loads((finished.folder / f"evaluations/{last:05d}.json").read_text())["metrics"]
    for numbers in (evaluated["central"], evaluated["mayo"]):
        assert numbers["num_exams"] == 6
        assert numbers["explained_variance/k4"] < numbers["explained_variance/k512"] < 1
        assert numbers["explained_variance/k512"] > 0.5
        for finding in ("mass", "calcification"):
            is_told = f"suppressed/{finding}" not in numbers
            assert [f"auroc/{finding}" in numbers, f"auroc_change/{finding}/k512" in numbers] == [is_told, is_told]
    assert any("auroc_change/calcification/k4" in numbers for numbers in evaluated.values())
    model = SparseAutoencoder(read_encoder(encoder).num_channels, LEVELS[-1], LEVELS)
    load_state(model, finished.state_path(last))
    torch.testing.assert_close(model.dictionary.norm(dim=1), torch.ones(LEVELS[-1]))
