"""Writes a run's released numbers to MLflow, in a process of its own: ``python -m mammofed_server.tracking FOLDER``.

It reads checkpoints and evaluations as they are committed, so the coordinator neither loads MLflow nor waits for it,
and a tracker that died catches up. It ends when its standard input does and everything is written.
"""

import fcntl
import json
import logging
import select
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from mammofed_server.pooled import pooled_aurocs, without_histograms
from mammofed_server.run_state import RunState
from mammofed_shared.checkpoint import MANIFEST_FILE
from mammofed_shared.files import write_whole
from mammofed_shared.log import start_logging

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
_BEGUN = "mammofed.begun"
"""Tag by which a run of ours is found again in MLflow: when its run.json was written, in nanoseconds."""
MOST_AT_ONCE = 1000
"""Metrics that MLflow takes in one call."""


class Tracker:
    """One run's numbers in MLflow; ``tracking.json`` says up to which turn they are written."""

    def __init__(self, run: RunState) -> None:
        settings = run.record.settings
        self._run = run
        self._marker = run.folder / "tracking.json"
        self._client = MlflowClient(tracking_uri=settings.tracking.mlflow or _own_database(run.folder / "mlflow.db"))
        if self._marker.exists():
            state = {"told": [], **json.loads(self._marker.read_text(encoding="utf-8"))}
        else:
            state = {"mlflow_run": self._create(), "told": [], "trained": 0, "evaluated": -1}
        self._state: dict[str, Any] = state

    def _create(self) -> str:
        settings = self._run.record.settings
        found = self._client.get_experiment_by_name(settings.tracking.experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(settings.tracking.experiment)
        mark = {_BEGUN: str((self._run.folder / "run.json").stat().st_mtime_ns)}
        earlier = self._client.search_runs([experiment], f"tags.`{_BEGUN}` = '{mark[_BEGUN]}'")
        if earlier:  # by a tracker that was killed before it could note so
            run_id = str(earlier[0].info.run_id)
        else:
            run_id = str(self._client.create_run(experiment, run_name=settings.run, tags=mark).info.run_id)
        flat = _flat(settings.model_dump(mode="json", exclude={"server", "tracking"}))
        self._client.log_batch(run_id, params=[Param(name, value) for name, value in flat.items()])
        return run_id

    def catch_up(self) -> None:
        """Write what the sites hold, and every turn and evaluation, that is committed and not written yet."""
        held = self._run.quality()
        for site, counts in (held.counts if held is not None else {}).items():
            if site not in self._state["told"]:  # a newcomer tells its counts later than the others
                told = {f"query/{site}/{name}": value for name, value in counts.items()}
                self._log(told, 0, self._run.folder / "run.json")
                self._advance(told=[*self._state["told"], site])
        last = self._run.last_turn()
        while self._state["trained"] < last:
            turn = self._state["trained"] + 1
            manifest = self._run.manifest(turn)
            committed = self._run.checkpoint_folder(turn) / MANIFEST_FILE
            for item in manifest.contributions:
                self._log(training_names(item.site, item.metrics), turn, committed)
            self._log({"failures": float(len(manifest.failures))}, turn, committed)
            self._advance(trained=turn)
        while self._state["evaluated"] < last:
            turn = self._state["evaluated"] + 1
            record = self._run.evaluation(turn)
            if record is None and turn == last:
                break
            if record is not None:
                self._log(evaluation_names(record.metrics), turn, self._run.evaluation_path(turn))
            self._advance(evaluated=turn)

    def finish(self, ending: str | None) -> None:
        """Close the MLflow run if ours is over; otherwise it is gone on with after a restart."""
        if ending is not None:
            status = "FINISHED" if ending == "finished" else "KILLED"
            self._client.set_terminated(self._state["mlflow_run"], status=status)

    def _log(self, values: Mapping[str, float], turn: int, committed: Path) -> None:
        """Write numbers that were committed with a file: its time is theirs, so MLflow knows them when they come again
        after a kill, and keeps them once."""
        at_ms = committed.stat().st_mtime_ns // 10**6
        metrics = [Metric(name, value, at_ms, turn) for name, value in values.items()]
        for start in range(0, len(metrics), MOST_AT_ONCE):
            self._client.log_batch(self._state["mlflow_run"], metrics=metrics[start : start + MOST_AT_ONCE])

    def _advance(self, **changes: int | list[str]) -> None:
        self._state |= changes
        write_whole(self._marker, json.dumps(self._state))


def _own_database(path: Path) -> str:
    """The URI of a database of the run's own, made whole or not at all: MLflow opens none of which a tracker that was
    killed has made half of the tables."""
    if not path.exists():
        unfinished = path.with_name(f"{path.name}.writing")
        unfinished.unlink(missing_ok=True)
        MlflowClient(tracking_uri=f"sqlite:///{unfinished.resolve()}")  # which makes its tables
        unfinished.rename(path)
    return f"sqlite:///{path.resolve()}"


def training_names(site: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Numbers of a training visit as MLflow shows them.

    Those of the validation become the site's curve of forgetting: ``forgetting/mayo/received/auroc/mass/d1`` is how
    well the model that came to it does there, ``forgetting/mayo/sent/…`` the one that it gave back.
    """
    return {
        f"{'forgetting' if name.startswith(('received/', 'sent/')) else 'train'}/{site}/{name}": value
        for name, value in metrics.items()
    }


def evaluation_names(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Numbers of an evaluation (site → metric → value) as MLflow shows them, and the AUROC over all sites' exams.

    The bins of the histograms stand in the evaluation's record only.
    """
    names = {
        f"evaluate/{site}/{name}": value
        for site, told in metrics.items()
        for name, value in without_histograms(told).items()
    }
    for finding, pooled in pooled_aurocs(metrics).items():
        names |= {
            f"evaluate/pooled/auroc/{finding}": pooled.middle,
            f"evaluate/pooled/auroc_low/{finding}": pooled.low,
            f"evaluate/pooled/auroc_high/{finding}": pooled.high,
            f"evaluate/pooled/num_sites/{finding}": float(len(pooled.sites)),
        }
    return names


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat


def main(folder: Path) -> None:
    """Follow the run in ``folder`` until standard input ends."""
    start_logging(folder / "tracking.log", console=False)
    mlflow.set_tracking_uri("")  # nothing may fall back to a folder or server of the user's own
    run = RunState.open(folder)
    with _only_tracker(folder):
        tracker = Tracker(run)
        while True:
            tracker.catch_up()
            if select.select([sys.stdin], [], [], LOOK_EVERY_S)[0] and not sys.stdin.read():
                break
        tracker.catch_up()
        tracker.finish(run.ending())


@contextmanager
def _only_tracker(folder: Path) -> Iterator[None]:
    """Wait until no other tracker writes: that of a coordinator that was killed may still have something to do."""
    with (folder / "tracking.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    main(Path(sys.argv[1]))
