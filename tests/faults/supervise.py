"""Plays one case of the matrix: starts coordinator and sites, restarts whoever ends, until the run is over."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import yaml

from faults.inject import LOOK_AGAIN_S, Fault, fired, is_told
from faults.matrix import NEVER, Case
from faults.proxy import Proxy
from mammofed_server.run_state import RunState
from mammofed_shared.config.loading import load
from mammofed_shared.config.site import SiteSettings
from whole_run import SITES, Hospitals, free_port, run_settings, site_yaml

REPOSITORY = Path(__file__).parent.parent.parent
LONGEST_S = 240
COORDINATOR = "server"
_CUT = {-signal.SIGKILL, 130}


@dataclass
class Process:
    """One command of the case, started as often as needed."""

    name: str
    module: str
    arguments: list[str]
    faults: tuple[Fault, ...]
    running: subprocess.Popen[bytes] | None = None
    codes: list[int] = field(default_factory=list)
    """How it ended, each time."""


class Stage:
    """The folders and processes of one case."""

    def __init__(self, folder: Path, hospitals: Hospitals, case: Case, warm: str) -> None:
        self.folder = folder
        self.case = case
        self.server_folder = folder / "server"
        self._warm = "" if case.is_cold else warm
        self._proxies: dict[str, Proxy] = {}
        self._port = free_port()
        self._stranger: socket.socket | None = None
        self.states_seen: dict[str, set[str]] = {site: set() for site in SITES}
        self._processes = self._prepare(hospitals)

    def _prepare(self, hospitals: Hospitals) -> dict[str, Process]:
        case, port = self.case, self._port
        if case.has_begun and not case.run:
            shutil.copytree(hospitals.begun(case.schedule), self.server_folder)
        run_yaml = self.folder / "run.yaml"
        consortium = hospitals.consortium
        values = run_settings(self.server_folder, consortium.server, port, case.schedule) | dict(case.run)
        run_yaml.write_text(yaml.safe_dump(values))
        processes = {
            COORDINATOR: Process(
                COORDINATOR, "mammofed_server.cli", ["--config", str(run_yaml), *case.server], case.faults_of("server")
            )
        }
        for site in SITES:
            site_port = port
            if site in case.lines:
                self._proxies[site] = Proxy(case.lines[site], ("127.0.0.1", port))
                site_port = self._proxies[site].port
            path = self.folder / f"{site}.yaml"
            worker = {"processes": 2, "distribution": "ddp"} if case.processes == 2 else {}
            identity = consortium.sites[site]
            path.write_text(site_yaml(self.folder, site, site_port, identity, hospitals.folder, worker))
            arguments = ["--site", site, "--config", str(path), *case.sites]
            processes[site] = Process(site, "mammofed_site.cli", arguments, case.faults_of(site))
        return processes

    # ── the play ────────────────────────────────────────────────────────────────────────────────────────────

    def play(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Until every process has ended well; ``meanwhile`` is called again and again."""
        until_s = time.monotonic() + LONGEST_S
        try:
            for process in self._processes.values():
                self._start(process)
            while not all(self._is_over(process) for process in self._processes.values()):
                assert time.monotonic() < until_s, f"not over after {LONGEST_S} s\n{self.words()}"
                self._look()
                meanwhile()
                time.sleep(LOOK_AGAIN_S)
        finally:
            self._end()

    def _is_over(self, process: Process) -> bool:
        is_gone_for_good = self.case.holds.get(process.name) == NEVER and process.running is None
        return bool(process.codes) and (process.codes[-1] == 0 or is_gone_for_good)

    def _start(self, process: Process) -> None:
        start = len(process.codes) + 1
        order = {"start": start, "warm": self._warm, "faults": [asdict(fault) for fault in process.faults]}
        path = self.folder / f"{process.name}.faults.json"
        path.write_text(json.dumps(order))
        # Each has a place of its own for what has happened: a fault's number is one of its process.
        own = self.folder / "done" / process.name
        own.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "faults.inject", str(own), str(path), process.module, *process.arguments]
        places = [str(REPOSITORY / "tests"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
        with (self.folder / f"{process.name}.out").open("ab") as output:
            process.running = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=REPOSITORY, env=environment
            )
        (self.folder / "done" / f"{process.name}.pid").write_text(str(process.running.pid))

    def _look(self) -> None:
        for process in self._processes.values():
            if process.running is None:
                self._restart_if_due(process)
            elif (code := process.running.poll()) is not None:
                process.running = None
                process.codes.append(code)
                expected = _CUT | {0, *self.case.ends.get(process.name, ())}
                assert code in expected, f"{process.name} ended with {code}\n{self.words()}"
            self._thaw(process)
        self._note_states()

    def _restart_if_due(self, process: Process) -> None:
        if process.codes[-1] == 0 or not self._is_told(self.case.holds.get(process.name)):
            return
        if process.name == COORDINATOR and self.case.is_port_taken:
            if self._stranger is None:
                self._stranger = socket.create_server(("127.0.0.1", self._port))
            else:
                self._stranger.close()
        self._start(process)

    def _is_told(self, event: str | None) -> bool:
        return event is None or is_told(self.folder / "done" / COORDINATOR, event)

    def _thaw(self, process: Process) -> None:
        for number, fault in enumerate(process.faults):
            if fault.does != "freeze":
                continue
            for path in (self.folder / "done" / process.name / "fired").glob(f"{number}.*"):
                pid = path.read_text()
                has_slept_s = time.time() - path.stat().st_mtime
                if pid and _is_frozen(int(pid)) and has_slept_s >= float(fault.what or 0):
                    os.kill(int(pid), signal.SIGCONT)

    def _note_states(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            status = json.loads((self.server_folder / "status.json").read_text())
            for line in status["sites"]:
                self.states_seen[line["site"]].add(line["state"])

    def _end(self) -> None:
        for process in self._processes.values():
            if process.running is not None:
                process.running.kill()
                process.running.wait()
        for line in self._proxies.values():
            line.close()
        if self._stranger is not None:
            self._stranger.close()

    # ── what came of it ─────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> RunState:
        """The coordinator's run."""
        return RunState.open(self.server_folder)

    def codes(self, name: str) -> list[int]:
        """How a process ended, each time."""
        return self._processes[name].codes

    def restarts(self) -> dict[str, int]:
        """Of each that was restarted."""
        return {process.name: len(process.codes) - 1 for process in self._processes.values() if len(process.codes) > 1}

    def what_did_not_happen(self) -> list[str]:
        """Faults and troubles of the case that did not come: then nothing was shown."""
        missing = [
            f"{process.name}: {fault}"
            for process in self._processes.values()
            for number, fault in enumerate(process.faults)
            if fired(self.folder / "done" / process.name, number) < fault.times
        ]
        missing += [f"{site}: {line.num_left()} troubles" for site, line in self._proxies.items() if line.num_left()]
        return missing

    def settings_of(self, site: str) -> SiteSettings:
        """What the hospital wrote."""
        return load(self.folder / f"{site}.yaml", SiteSettings, [])

    def log(self, name: str) -> str:
        """What a process said."""
        path = self.folder / f"{name}.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def words(self) -> str:
        """What all said, for a failed assertion."""
        logs = {name: self.log(name) for name in self._processes}
        for site in SITES:
            path = self.folder / site / "worker.log"
            logs[f"{site}'s workers"] = path.read_text() if path.exists() else ""
        return "\n".join(f"── {name}\n{text[-3000:]}" for name, text in logs.items())


def _is_frozen(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def audit_of(folder: Path) -> Iterator[dict[str, object]]:
    """The audit record of a site, event by event."""
    for line in (folder / "audit.jsonl").read_text().splitlines():
        yield json.loads(line)
