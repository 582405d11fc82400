"""What follows when a visit fails, and when the lead says pause, resume or cancel. Nothing is trained here."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from typer.testing import CliRunner

import fake_workers
from bare_site import bare_site
from federation import METRICS, SMALL_SPEC, small_state
from identities import make_consortium
from mammofed_server import cli
from mammofed_server.app import app as server_app
from mammofed_server.control import Control
from mammofed_server.grid import MailboxGrid
from mammofed_server.mailbox import Mailbox, Upload
from mammofed_server.run_state import RunState
from mammofed_server.sites import SiteBoard
from mammofed_server.status import read_status
from mammofed_shared.commands import ExitCode
from mammofed_shared.config.run import RunSettings
from mammofed_shared.errors import RunStopped
from mammofed_shared.protocol.flower import plan_of, update_reply
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.protocol.plan import Update
from mammofed_simulation import simulate as simulation
from mammofed_simulation.simulate import simulate
from runs import begin_small_run, small_run_settings
from small_counts import TOLD

LONGEST_S = 90.0
NAN = {"layer.weight": np.full((4, 3), np.nan, np.float32)}
SECOND = "test/r0001/v00002/mayo/train"


def _until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + LONGEST_S
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


class Sites:
    """Stands for the sites' ClientApp: adds 1 to the weights; the visits in ``bad`` give NaN, once each."""

    def __init__(self, folder: Path, bad: Iterable[str]) -> None:
        self.folder = folder
        self.bad = set(bad)
        self.asked: list[str] = []

    def __call__(self, message: Message, context: Context) -> Message:
        plan, state = plan_of(message)
        self.asked.append(plan.task_id)
        if state is None:
            return update_reply(message, Update(task_id=plan.task_id, payload=None, metrics=TOLD), None)
        with Payload(state) as payload:
            value = float(payload["layer.weight"][0, 0]) + 1
        path = self.folder / f"update-{plan.visit}"
        reference = small_state(path, value, **(NAN if plan.task_id in self.bad else {}))
        self.bad.discard(plan.task_id)
        return update_reply(message, Update(task_id=plan.task_id, payload=reference, metrics=METRICS), path)


def _simulate(folder: Path, sites: Sites, monkeypatch: pytest.MonkeyPatch, **settings: object) -> RunState:
    monkeypatch.setattr(simulation, "site_app", sites)
    monkeypatch.setattr(simulation, "warm_up", lambda: None)
    if not RunState.exists(folder / "server"):
        begin_small_run(folder / "server", **settings)
    run = small_run_settings(folder / "server", **settings)
    return simulate(run, [bare_site(folder / name, name) for name in run.sites])


def _weight(run: RunState) -> float:
    with Payload(run.state_path(run.last_turn())) as payload:
        return float(payload["layer.weight"][0, 0])


# ── a refused update ────────────────────────────────────────────────────────────────────────────────────────────


def test_with_skip_the_run_goes_on_and_its_manifest_names_the_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = Sites(tmp_path, bad=[SECOND])
    run = _simulate(tmp_path, sites, monkeypatch, on_failure="skip", quorum=1)
    assert run.ending() == "finished" and run.last_turn() == 4
    assert sites.asked.count(SECOND) == 1, "refused once, not asked again"
    manifest = run.manifest(2)
    assert [(item.site, item.task_id, item.code) for item in manifest.failures] == [("mayo", SECOND, "NOT_FINITE")]
    assert manifest.contributions == () and manifest.state == run.manifest(1).state
    assert manifest.moments == {"central": "test/r0001/v00001/central/train"}
    assert _weight(run) == 4.0, "1, and three of four visits added 1"


def test_with_skip_fedavg_takes_the_mean_of_those_that_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = {"kind": "fedavg", "rounds": 2}
    run = _simulate(
        tmp_path, Sites(tmp_path, bad=[SECOND]), monkeypatch, on_failure="skip", quorum=1, schedule=schedule
    )
    manifest = run.manifest(1)
    assert [item.site for item in manifest.contributions] == ["central"]
    assert [item.site for item in manifest.failures] == ["mayo"]
    assert _weight(run) == 3.0
    assert [item.site for item in run.manifest(2).contributions] == ["central", "mayo"]


def test_with_stop_the_run_stops_and_a_new_start_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites = Sites(tmp_path, bad=[SECOND])
    with pytest.raises(RunStopped, match="site mayo failed with NOT_FINITE"):
        _simulate(tmp_path, sites, monkeypatch, on_failure="stop")
    stopped = RunState.open(tmp_path / "server")
    assert stopped.last_turn() == 1 and stopped.ending() is None
    run = _simulate(tmp_path, sites, monkeypatch, on_failure="stop")
    assert run.ending() == "finished" and _weight(run) == 5.0
    assert sites.asked.count(SECOND) == 2


# ── with a real spool: the verdict outlives the coordinator until the lead says `resume` ────────────────────────


class Spool:
    """A coordinator's mailbox and strategy; sites hand in through the mailbox from a thread of their own."""

    def __init__(self, folder: Path) -> None:
        self.run = begin_small_run(folder / "server", on_failure="stop")
        self.config = folder / "run.yaml"
        self.config.write_text(self.run.record.settings.model_dump_json())
        self.handed_in: list[str] = []

    def start(self, bad: Iterable[str] = ()) -> None:
        """Run what is left; raises what the run raises."""
        mailbox = Mailbox(self.run.folder / "spool", SMALL_SPEC)
        sites = threading.Thread(target=self._serve_sites, args=(mailbox, set(bad)), daemon=True)
        sites.start()
        config = {"folder": str(self.run.folder)}
        context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config)
        try:
            names = self.run.record.settings.sites
            server_app(
                MailboxGrid(names, mailbox, Control(self.run.folder), SiteBoard(names), self.run.members()), context
            )
        finally:
            mailbox.close()
            sites.join(LONGEST_S)

    def _serve_sites(self, mailbox: Mailbox, bad: set[str]) -> None:
        while not mailbox._closed:
            for site in ("central", "mayo"):
                plan = mailbox.next_plan(site, 0.02)
                if plan is not None and plan.kind == "query":
                    mailbox.receive(site, Upload(plan.task_id, None, TOLD, 0), iter(()))
                elif plan is not None:
                    path = self.run.folder / "handed-in"
                    reference = small_state(path, 2.0, **(NAN if plan.task_id in bad else {}))
                    self.handed_in.append(plan.task_id)
                    mailbox.receive(site, Upload(plan.task_id, reference, METRICS, 0), iter([path.read_bytes()]))


def test_a_stopped_run_tries_again_only_after_resume(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(RunStopped):
        spool.start(bad=[SECOND])
    with pytest.raises(RunStopped):
        spool.start()
    assert spool.handed_in.count(SECOND) == 1, "the verdict stays: no site is asked again"
    said = CliRunner().invoke(cli.app, ["resume", "--config", str(spool.config)])
    assert said.exit_code == 0, said.output
    assert "1 failed visit(s) will be tried again" in said.output
    spool.start()
    assert spool.run.ending() == "finished"
    assert spool.handed_in.count(SECOND) == 2
    assert list((spool.run.folder / "spool").iterdir()) == [], "nothing is left in the spool"


# ── the lead's word, with real processes ────────────────────────────────────────────────────────────────────────


def _start(folder: Path, name: str, *command: str) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.out").open("wb") as out:
        return subprocess.Popen(
            [sys.executable, *command],
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )


def _settings(folder: Path) -> RunSettings:
    consortium = make_consortium(folder / "consortium", ["mayo"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    server = {"folder": str(folder / "server"), "identity": str(consortium.server), "listen": listen}
    settings = {"sites": ["mayo"], "schedule": {"kind": "alternating", "rounds": 500}, "server": server}
    run = begin_small_run(folder / "server", **settings)
    site = bare_site(folder / "mayo", server=listen, identity=consortium.sites["mayo"])
    (folder / "mayo.yaml").write_text(site.model_dump_json())
    (folder / "run.yaml").write_text(run.record.settings.model_dump_json())
    return run.record.settings


def test_a_run_is_paused_resumed_and_cancelled_by_the_lead(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    run = RunState.open(settings.server.folder)
    behaviour = tmp_path / "mayo/behaviour"
    behaviour.write_text("gives back what came")

    def say(word: str) -> None:
        said = CliRunner().invoke(cli.app, [word, "--config", str(tmp_path / "run.yaml")])
        assert said.exit_code == 0, said.output

    say("pause")
    server = _start(tmp_path, "server", "-m", "mammofed_server.cli", "--config", str(tmp_path / "run.yaml"))
    command = [fake_workers.__file__, "--site", "mayo", "--config", str(tmp_path / "mayo.yaml")]
    site = _start(tmp_path, "mayo", *command)
    try:
        _until(lambda: (run.folder / "status.json").exists() and read_status(run.folder).sites[0].last_seen > 0)
        _until(lambda: read_status(run.folder).state == "paused")
        assert run.last_turn() == 0, "no visit begins"
        say("resume")
        _until(lambda: run.last_turn() >= 2)
        behaviour.write_text("never ends")
        _until(
            lambda: read_status(run.folder).sites[0].state == "training" and read_status(run.folder).sites[0].step == 2
        )
        say("cancel")
        assert server.wait(LONGEST_S) == ExitCode.CANCELLED, (tmp_path / "server.out").read_text()
        assert site.wait(LONGEST_S) == ExitCode.CANCELLED, (tmp_path / "mayo.out").read_text()
    finally:
        for process in (server, site):
            process.kill()
            process.wait()
    assert run.ending() == "cancelled" and read_status(run.folder).state == "cancelled"
    last = max((tmp_path / "mayo/visits").iterdir(), key=lambda path: path.name)
    assert not Path(f"/proc/{(last / 'pid').read_text()}").exists(), "its worker was killed"
    assert "withdrawn" in (tmp_path / "mayo/audit.jsonl").read_text()
    again = subprocess.run(
        [sys.executable, "-m", "mammofed_server.cli", "--config", str(tmp_path / "run.yaml")],
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    assert again.returncode == ExitCode.CONFIGURATION
    assert "was cancelled; give a new run another" in again.stderr
