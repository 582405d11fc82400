"""A whole federation of two phantom hospitals: its configuration, and in which bits it ends undisturbed."""

import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from identities import Consortium, make_consortium
from mammofed_server.initial import begin_run
from mammofed_server.run_state import RunState
from mammofed_shared.config.run import RunSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_simulation.simulate import make_in_fork, simulate, simulated
from prepared import SMALL, TEXT_ENCODER, site_settings

SITES = ("central", "mayo")


def run_settings(
    server_folder: Path, identity: Path, port: int, schedule: str = "alternating", **replaced: Any
) -> dict[str, Any]:
    """What the lead writes; ``replaced`` lays other top-level values over it."""
    return {
        "run": "flow",
        "consortium": "hospitals",
        "seed": 3,
        "sites": list(SITES),
        "schedule": {"kind": schedule, "rounds": 2},
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
        **replaced,
    }


def site_yaml(folder: Path, site: str, port: int, identity: Path, hospitals: Path, worker: Mapping[str, Any]) -> str:
    """What a hospital writes."""
    return yaml.safe_dump(
        {
            "site": site,
            "consortium": "hospitals",
            "server": f"127.0.0.1:{port}",
            "folder": str(folder / site),
            "identity": str(identity),
            "datasets": [{"name": "screening", "prepared": str(hospitals / site / "datasets" / "screening")}],
            "preprocessing": SMALL.model_dump(),
            "text_encoder": str(TEXT_ENCODER),
            "worker": {"device": "cpu", "threads": 1, **worker},
            "policy": {"least_cell": 2},
        }
    )


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Hospitals:
    """Two hospitals with prepared data, their certificates, and the runs that they could take part in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.consortium: Consortium = make_consortium(root / "consortium", list(SITES))
        self.folder = root / "hospitals"
        self._sites = [site_settings(self.folder / site, site, seed) for seed, site in enumerate(SITES)]
        self._digests: dict[tuple[str, int], str] = {}

    def begun(self, schedule: str = "alternating") -> Path:
        """Folder of a run of this schedule that has just begun."""
        settings = self._settings(schedule)
        if not RunState.exists(settings.server.folder):
            begin_run(settings, make_in_fork)
        return settings.server.folder

    def digest(self, schedule: str = "alternating", processes: int = 1) -> str:
        """Of the weights in which the run ends when nothing disturbs it and each site trains with so many processes."""
        key = schedule, processes
        if key not in self._digests:
            sites = [self._with_processes(site, processes) for site in self._sites]
            moved = self.root / f"undisturbed-{schedule}-{processes}"
            moved_run, moved_sites = simulated(self._settings(schedule), sites, moved)
            shutil.copytree(self.begun(schedule), moved_run.server.folder)
            undisturbed = simulate(moved_run, moved_sites)
            self._digests[key] = undisturbed.manifest(undisturbed.last_turn()).state.digest
        return self._digests[key]

    def _settings(self, schedule: str) -> RunSettings:
        folder = self.root / f"begun-{schedule}"
        return RunSettings.model_validate(run_settings(folder, self.consortium.server, 1, schedule))

    @staticmethod
    def _with_processes(site: SiteSettings, processes: int) -> SiteSettings:
        if processes == 1:
            return site
        changes = {"processes": processes, "distribution": "ddp"}
        return site.model_copy(update={"worker": site.worker.model_copy(update=changes)})
