"""The hospital's last word, with real processes over mutual TLS: vetoes at awkward moments, and hours that end."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import fake_workers
from bare_site import bare_site
from identities import make_consortium
from mammofed_server.run_state import RunState
from mammofed_server.status import read_status
from mammofed_site import cli
from runs import begin_small_run

LONGEST_S = 90.0
STUCK = """
import sys, time
from pathlib import Path
import fake_workers
from mammofed_site import cli, link, visit
from mammofed_shared.protocol import federation_pb2 as pb

def parts(header, path):
    yield pb.SubmitPart(header=header)
    data = path.read_bytes()[header.offset:]
    yield pb.SubmitPart(data=data[:100])
    while Path(STUCK).exists():
        time.sleep(0.05)
    yield pb.SubmitPart(data=data[100:])

if __name__ == "__main__":
    STUCK = sys.argv.pop(1)
    visit.worker_entry = fake_workers.ENTRY
    link._parts = parts
    cli.main()
"""
"""A site-client whose upload stops after 100 bytes for as long as a file is there."""


def _until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + LONGEST_S
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@dataclass
class Federation:
    """One coordinator and two sites with fake workers, each a process."""

    folder: Path
    run: RunState
    processes: dict[str, subprocess.Popen[bytes]]

    def start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as out:
            self.processes[name] = subprocess.Popen(
                [sys.executable, *command],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )

    def start_site(self, site: str, *program: str) -> None:
        self.start(site, *program, "--site", site, "--config", str(self.folder / f"{site}.yaml"))

    def behave(self, site: str, behaviour: str) -> None:
        (self.folder / site / "behaviour").write_text(behaviour)

    def say(self, *words: str, site: str = "mayo") -> str:
        said = CliRunner().invoke(cli.app, [*words, "--site", site, "--config", str(self.folder / f"{site}.yaml")])
        assert said.exit_code == 0, said.output
        return said.output

    def state(self, site: str = "mayo") -> str:
        return next(line.state for line in read_status(self.run.folder).sites if line.site == site)

    def audit(self, site: str = "mayo") -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / site / "audit.jsonl").read_text().splitlines()]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.out").read_text()


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    consortium = make_consortium(tmp_path / "consortium", ["central", "mayo"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    server = {"folder": str(tmp_path / "server"), "identity": str(consortium.server), "listen": listen}
    schedule = {"kind": "alternating", "rounds": 2, "order": ["mayo", "central"]}
    run = begin_small_run(tmp_path / "server", schedule=schedule, server=server, on_absence="skip", quorum=1)
    for site in ("central", "mayo"):
        settings = bare_site(tmp_path / site, site, server=listen, identity=consortium.sites[site])
        (tmp_path / "policy.yaml").write_text("least_cell: 10\n")
        values = json.loads(settings.model_dump_json(exclude={"policy"}))
        (tmp_path / f"{site}.yaml").write_text(yaml.safe_dump(values | {"policy": str(tmp_path / "policy.yaml")}))
    (tmp_path / "run.yaml").write_text(run.record.settings.model_dump_json())
    running = Federation(tmp_path, run, {})
    running.behave("central", "gives back what came")
    running.behave("mayo", "gives back what came")
    yield running
    for process in running.processes.values():
        process.kill()
        process.wait()


def _start_all(federation: Federation, *mayo: str) -> None:
    federation.start("server", "-m", "mammofed_server.cli", "--config", str(federation.folder / "run.yaml"))
    federation.start_site("central", fake_workers.__file__)
    federation.start_site("mayo", *(mayo or (fake_workers.__file__,)))


def test_a_veto_in_mid_training_kills_the_worker_leaves_nothing_and_the_others_go_on(federation: Federation) -> None:
    federation.behave("mayo", "waits")
    _start_all(federation)
    visit = federation.folder / "mayo/visits/test_r0001_v00001_mayo_train"
    _until(lambda: (visit / "pid").exists() and (visit / "pid").read_text() != "")
    worker = Path(f"/proc/{(visit / 'pid').read_text()}")
    began = time.monotonic()
    federation.say("veto", "--reason", "we want to look at it first")
    _until(lambda: not worker.exists())
    assert time.monotonic() - began < 5, "within a second, and a slow machine's time"
    _until(lambda: federation.run.last_turn() >= 2)
    assert not visit.exists(), "nothing is left of the visit"
    first, second = federation.run.manifest(1), federation.run.manifest(2)
    assert [(item.site, item.code) for item in first.failures] == [("mayo", "VETOED")]
    assert [item.site for item in second.contributions] == ["central"], "the others go on"
    _until(lambda: federation.state() == "vetoed")
    assert "we want to look at it first" not in federation.log("server") + federation.log("mayo")
    asked, stopped = (event for event in federation.audit() if event["event"] in ("veto", "stopped"))
    assert set(asked) == {"time", "event", "by", "previous"} and stopped["code"] == "VETOED" and stopped["sent"] == 0


def test_a_veto_in_mid_upload_leaves_nothing_at_the_coordinator(federation: Federation) -> None:
    (federation.folder / "stuck").touch()
    (federation.folder / "stuck.py").write_text(STUCK)
    federation.behave("central", "waits")
    _start_all(federation, str(federation.folder / "stuck.py"), str(federation.folder / "stuck"))
    part = federation.run.folder / "spool/test_r0001_v00001_mayo_train/update.part"
    _until(lambda: part.exists() and part.stat().st_size == 100)
    federation.say("veto")
    _until(lambda: federation.run.last_turn() >= 1)
    assert not part.exists() and federation.run.manifest(1).contributions == ()
    assert [(item.site, item.code) for item in federation.run.manifest(1).failures] == [("mayo", "VETOED")]
    stopped = next(event for event in federation.audit() if event["event"] == "stopped")
    assert (stopped["task"], stopped["code"], stopped["sent"]) == ("test/r0001/v00001/mayo/train", "VETOED", 100)
    (federation.folder / "stuck").unlink()
    federation.say("veto", "--lift")
    federation.behave("central", "gives back what came")
    _until(lambda: federation.processes["server"].poll() is not None)
    assert [item.site for item in federation.run.manifest(3).contributions] == ["mayo"], "it rejoins"


def test_a_restart_stays_vetoed_until_the_veto_is_lifted_and_the_site_rejoins(federation: Federation) -> None:
    federation.say("veto")
    _start_all(federation)
    _until(lambda: (federation.run.folder / "status.json").exists() and federation.state() == "vetoed")
    federation.processes["mayo"].kill()
    federation.processes["mayo"].wait()
    federation.start_site("mayo", fake_workers.__file__)
    _until(lambda: federation.log("mayo").count("takes part in run") == 2)
    _until(lambda: federation.run.folder.joinpath("spool/test_r0000_v00000_central_query/outcome.json").exists())
    assert not (federation.folder / "mayo/visits").exists() and federation.run.quality() is None
    assert "VETOED by" in federation.say("policy")
    federation.say("veto", "--lift")
    _until(lambda: federation.processes["mayo"].poll() == 0)
    assert federation.run.ending() == "finished"
    assert {item.site for turn in (1, 2) for item in federation.run.manifest(turn).contributions} == {"central", "mayo"}
    assert len(list((federation.folder / "mayo/vetoes").iterdir())) == 1


def test_hours_that_end_stop_a_visit_and_it_goes_on_when_they_begin_again(federation: Federation) -> None:
    policy = federation.folder / "policy.yaml"
    closed = "hours: [mon 00:00-00:01]\n" if time.localtime().tm_wday else "hours: [wed 00:00-00:01]\n"
    policy.write_text(closed)
    federation.behave("mayo", "trains until it pauses")
    _start_all(federation)
    _until(lambda: (federation.run.folder / "status.json").exists() and federation.state() == "out of hours")
    assert not (federation.folder / "mayo/audit.jsonl").exists(), "it was asked for nothing"
    policy.write_text("least_cell: 10\n")
    visit = federation.folder / "mayo/visits/test_r0001_v00001_mayo_train"
    _until(lambda: (visit / "pid").exists())
    policy.write_text(closed)
    _until(lambda: federation.audit()[-1]["event"] == "stopped")
    _until(lambda: federation.state() == "out of hours")
    assert federation.audit()[-1]["code"] == "OUT_OF_HOURS"
    assert (visit / "checkpoint.safetensors").exists() and federation.run.last_turn() == 0
    federation.behave("mayo", "gives back what came")
    policy.write_text("least_cell: 10\n")
    _until(lambda: federation.processes["server"].poll() == 0)
    assert all(federation.run.manifest(turn).failures == () for turn in range(1, 5)), "nothing is lost"
    events = [event["event"] for event in federation.audit() if event.get("task") == "test/r0001/v00001/mayo/train"]
    assert events == ["fetched", "permitted", "stopped", "permitted", "released", "submitted"]
