"""Sites that disagree on what a training image is: nothing is trained, and once they agree a new start goes on."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import fake_workers
from bare_site import bare_site
from identities import make_consortium
from mammofed_server.run_state import RunState
from mammofed_shared.commands import ExitCode
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.data.prepared import PREPROCESSING_FILE
from mammofed_shared.errors import RunStopped
from mammofed_simulation.simulate import simulate
from mammofed_site import visit
from prepared import SMALL
from runs import begin_small_run
from small_counts import TOLD

KILL_AT = Path(__file__).parent.parent / "faults/kill_at.py"
LONGEST_S = 90.0
SITES = ("central", "mayo")
OTHER = PreprocessingSettings(height=SMALL.height, width=SMALL.width, window="voi")


def _prepare(site: SiteSettings, settings: PreprocessingSettings) -> None:
    path = site.prepared_folder(site.datasets[0]) / PREPROCESSING_FILE
    path.write_text(settings.model_dump_json())


def _visits(site: SiteSettings) -> set[str]:
    return {path.name for path in (site.folder / "visits").glob("*")}


def _has_told(run: RunState) -> None:
    record = run.quality()
    assert record is not None and record.counts == dict.fromkeys(SITES, TOLD)


def test_in_process_a_site_that_was_prepared_otherwise_stops_the_run_until_it_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visit, "worker_entry", fake_workers.ENTRY)
    central, mayo = sites = [bare_site(tmp_path / site, site) for site in SITES]
    for site in sites:
        (site.folder / "behaviour").write_text("gives back what came")
    _prepare(mayo, OTHER)
    run = begin_small_run(tmp_path / "server", schedule={"kind": "alternating", "rounds": 1})
    with pytest.raises(RunStopped, match="site mayo: PREPROCESSING_MISMATCH"):
        simulate(run.record.settings, sites)
    assert run.last_turn() == 0 and run.ending() is None
    assert _visits(central) == {"test_r0000_v00000_central_query"} and _visits(mayo) == set()
    _prepare(mayo, SMALL)
    simulate(run.record.settings, sites)
    assert run.ending() == "finished" and run.last_turn() == 2
    _has_told(run)


# ── real processes over mutual TLS, whose workers count and train nothing ───────────────────────────────────────


@dataclass
class Federation:
    """A run that has begun, its sites, and the three commands."""

    folder: Path
    run: RunState
    sites: dict[str, SiteSettings]

    def start(self, kill_server_at: str | None = None) -> list[int]:
        """Run all three commands and wait for their exit codes: the coordinator's, then the sites'.

        A coordinator that is to be killed is started again at once, as its sites wait for it.
        """
        arguments = ["mammofed_server.cli", "--config", str(self.folder / "run.yaml")]
        how = [str(KILL_AT), kill_server_at] if kill_server_at else ["-m"]
        server = self._start("server", [*how, *arguments])
        sites = [
            self._start(site, [fake_workers.__file__, "--site", site, "--config", str(self.folder / f"{site}.yaml")])
            for site in SITES
        ]
        try:
            if kill_server_at is not None:
                assert server.wait(LONGEST_S) == -signal.SIGKILL, self.said("server")
                server = self._start("server", ["-m", *arguments])
            return [process.wait(LONGEST_S) for process in (server, *sites)]
        finally:
            for process in (server, *sites):
                process.kill()
                process.wait()

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with (self.folder / f"{name}.out").open("ab") as out:
            return subprocess.Popen([sys.executable, *command], stdout=out, stderr=subprocess.STDOUT, env=environment)

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.out").read_text()

    def events(self, site: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in (self.folder / site / "audit.jsonl").read_text().splitlines()]


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    consortium = make_consortium(tmp_path / "consortium", list(SITES))
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    server = {"folder": str(tmp_path / "server"), "identity": str(consortium.server), "listen": listen}
    run = begin_small_run(tmp_path / "server", schedule={"kind": "alternating", "rounds": 1}, server=server)
    (tmp_path / "run.yaml").write_text(run.record.settings.model_dump_json())
    sites = {}
    for name in SITES:
        sites[name] = bare_site(tmp_path / name, name, server=listen, identity=consortium.sites[name])
        (tmp_path / f"{name}.yaml").write_text(sites[name].model_dump_json())
        (tmp_path / name / "behaviour").write_text("gives back what came")
    return Federation(tmp_path, run, sites)


def test_every_command_ends_as_stopped_and_a_new_start_goes_on(federation: Federation) -> None:
    _prepare(federation.sites["mayo"], OTHER)
    assert federation.start() == [ExitCode.STOPPED] * 3, federation.said("server")
    said = federation.said("server")
    assert "site mayo: PREPROCESSING_MISMATCH: make `preprocessing` in its YAML equal to the run's" in said
    assert "data set screening was prepared with other settings" in federation.said("mayo"), "words stay at the site"
    assert federation.run.last_turn() == 0 and federation.run.quality() is None
    assert not any(name.endswith("_train") for site in federation.sites.values() for name in _visits(site))
    assert [event["event"] for event in federation.events("mayo")] == ["failed"]

    _prepare(federation.sites["mayo"], SMALL)
    assert federation.start() == [ExitCode.OK] * 3, federation.said("server")
    assert federation.run.ending() == "finished"
    _has_told(federation.run)
    assert list((federation.run.folder / "spool").iterdir()) == []
    repeated = {site: [e["is_repeated"] for e in federation.events(site) if e["event"] == "counted"] for site in SITES}
    assert repeated == {"central": [False, True], "mayo": [False]}, "equal data are told once"


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("mammofed_server.run_state:RunState.commit_quality@before#1", id="all told, nothing committed"),
        pytest.param("mammofed_server.run_state:RunState.commit_quality@after#1", id="committed, spool still full"),
    ],
)
def test_a_server_killed_in_the_query_goes_on_and_asks_nobody_twice(federation: Federation, point: str) -> None:
    assert federation.start(kill_server_at=point) == [ExitCode.OK] * 3, federation.said("server")
    _has_told(federation.run)
    assert federation.run.ending() == "finished" and list((federation.run.folder / "spool").iterdir()) == []
    for site in SITES:
        assert [event["event"] for event in federation.events(site)].count("counted") == 1
