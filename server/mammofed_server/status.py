"""The state of a running coordinator in one file, and as a table. The file is all that `fl-server status` needs."""

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich.table import Table

from mammofed_server.pooled import without_histograms
from mammofed_server.run_state import RunState
from mammofed_server.sites import SiteBoard, SiteStatus
from mammofed_shared.checkpoint import Failure
from mammofed_shared.config.base import Settings
from mammofed_shared.errors import StateError
from mammofed_shared.files import is_full, write_whole
from mammofed_shared.pki import days_left

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 1.0
STALE_AFTER_S = 10.0
_MOST_SHOWN = 3

RunWord = Literal["starting", "running", "paused", "finished", "cancelled", "stopped", "interrupted"]


class SiteLine(Settings):
    """One site in the status."""

    site: str
    state: str
    kind: str
    round: int
    visit: int
    epoch: int
    step: int
    num_steps: int
    loss: float
    samples_per_s: float
    steps_per_s: float
    last_seen: float
    num_training_exams: int
    certificate_days: float | None = None
    """Days until the certificate that the site last came with ends; a running site renews it by itself."""


class RunStatus(Settings):
    """What a run looks like from outside."""

    run: str
    configuration: str = ""
    """Digest of the settings that touch the weights, by which a hospital's policy can name the run."""
    state: RunWord
    turn: int
    """Turns committed."""
    num_turns: int
    round: int
    num_rounds: int
    eta_s: float | None
    """Seconds until the last turn is committed; None while nothing is known."""
    written: float
    """Seconds since the epoch."""
    state_digest: str
    skipped: tuple[str, ...]
    """Visits that added nothing so far, as ``site, round n: CODE``; a run that skipped any says so."""
    sites: tuple[SiteLine, ...]
    evaluation: Mapping[str, Mapping[str, float]]
    """Site → metric → value, of the newest evaluation."""


class StatusWriter:
    """Writes ``status.json`` once a second while a run is going on."""

    def __init__(self, run: RunState, board: SiteBoard) -> None:
        self._run = run
        self._board = board
        self._begin_turn = run.last_turn()
        self._begin_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True, name="status")
        self._is_failing = False
        self.word: RunWord = "starting"

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self, word: RunWord) -> None:
        """Write a last time and end."""
        self.word = word
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._try_to_write()

    def _loop(self) -> None:
        while not self._stop.wait(WRITE_EVERY_S):
            self._try_to_write()

    def _try_to_write(self) -> None:
        """A status that cannot be written, as on a full disk, must not end the run or the statuses after it."""
        try:
            self.write()
        except OSError as error:
            if not self._is_failing:
                logger.error("status.json cannot be written (%s): see to the disk of the run's folder", error.strerror)
            self._is_failing = True
        else:
            self._is_failing = False

    def write(self) -> None:
        """Write the status as it is now; on a full disk the old one stays."""
        try:
            write_whole(self._run.folder / "status.json", self.read().model_dump_json(indent=1))
        except OSError as error:
            if not is_full(error):
                raise

    def read(self) -> RunStatus:
        """The status as it is now."""
        turn, num_turns = self._run.last_turn(), len(self._run.schedule().turns)
        manifest = self._run.manifest(turn)
        evaluation = self._run.evaluation(turn) or (self._run.evaluation(turn - 1) if turn else None)
        return RunStatus(
            run=self._run.record.settings.run,
            configuration=self._run.record.settings.digest,
            state=self.word,
            turn=turn,
            num_turns=num_turns,
            round=manifest.round,
            num_rounds=self._run.record.settings.schedule.rounds,
            eta_s=self._eta_s(turn, num_turns),
            written=time.time(),
            state_digest=manifest.state.digest,
            skipped=tuple(skipped_visit(item) for item in manifest.skipped),
            sites=tuple(_line(item) for item in self._board.snapshot()),
            evaluation={site: without_histograms(told) for site, told in evaluation.metrics.items()}
            if evaluation
            else {},
        )

    def _eta_s(self, turn: int, num_turns: int) -> float | None:
        done = turn - self._begin_turn
        if done < 1:
            return None
        return (time.monotonic() - self._begin_s) / done * (num_turns - turn)


def skipped_visit(item: Failure) -> str:
    """A visit that added nothing, in a few words."""
    return f"{item.site}, round {int(item.task_id.split('/')[1][1:])}: {item.code}"


def _few(items: Sequence[str]) -> str:
    return "; ".join(items[-_MOST_SHOWN:]) + (f"; and {len(items) - _MOST_SHOWN} more" if items[_MOST_SHOWN:] else "")


def _line(item: SiteStatus) -> SiteLine:
    parts = item.task_id.split("/")
    known = len(parts) == 5
    return SiteLine(
        site=item.site,
        state=item.state,
        kind=parts[4] if known else "",
        round=int(parts[1][1:]) if known else 0,
        visit=int(parts[2][1:]) if known else 0,
        epoch=item.epoch,
        step=item.step if known else 0,
        num_steps=item.num_steps if known else 0,
        loss=item.loss,
        samples_per_s=item.samples_per_s,
        steps_per_s=item.steps_per_s,
        last_seen=item.last_seen,
        num_training_exams=item.num_training_exams,
        certificate_days=round(days_left(item.certificate_until), 2) if item.certificate_until else None,
    )


def read_status(folder: Path) -> RunStatus:
    """The status in a run's folder; a coordinator that stopped writing without saying so was killed.

    Raises:
        StateError: no coordinator has ever run here.
    """
    path = folder / "status.json"
    try:
        status = RunStatus.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise StateError(f"{folder}: no coordinator has run here. Start one with `fl-server --config …`.") from error
    alive = status.state in ("starting", "running", "paused")
    if alive and time.time() - status.written > STALE_AFTER_S:
        return status.model_copy(update={"state": "interrupted"})
    return status


def status_table(status: RunStatus) -> Table:
    """The one live table: site, state, round, step, loss, samples/s, newest AUROCs; the run's ETA in the title."""
    eta = "–" if status.eta_s is None else _duration(status.eta_s)
    title = f"run {status.run} · {status.state} · turn {status.turn}/{status.num_turns} · ETA {eta}"
    if status.skipped:
        title += f" · WITHOUT {_few(status.skipped)}"
    table = Table(title=title, title_justify="left", expand=False)
    # auroc/mass, auroc/year1; not the groups of a year, which `fl-server report` shows
    told = {name for metrics in status.evaluation.values() for name in metrics}
    aurocs = sorted(name for name in told if name.startswith("auroc/") and name.count("/") == 1)
    headings = [
        "site",
        "state",
        "round",
        "step",
        "left",
        "loss",
        "samples/s",
        *(f"AUROC {n[6:]}" for n in aurocs),
        "certificate",
        "seen",
    ]
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("site", "state") else "right", no_wrap=True)
    for line in status.sites:
        busy = line.num_steps > 0
        metrics = status.evaluation.get(line.site, {})
        table.add_row(
            line.site,
            line.state,
            f"{line.round}/{status.num_rounds}" if line.kind else "",
            f"{line.step}/{line.num_steps}" if busy else "",
            f"{(line.num_steps - line.step) / line.num_steps:.0%}" if busy else "",
            f"{line.loss:.3f}" if line.loss else "",
            f"{line.samples_per_s:.1f}" if line.samples_per_s else "",
            *(f"{metrics[name]:.3f}" if name in metrics else "–" for name in aurocs),
            "" if line.certificate_days is None else f"{line.certificate_days:.0f} d",
            _ago(line.last_seen, status.written),
        )
    return table


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes}:{rest:02d} min"


def _ago(then: float, now: float) -> str:
    return "never" if not then else f"{max(0, round(now - then))} s ago"
