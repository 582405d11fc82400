"""Plays the matrix: whatever goes wrong, the run ends in the weights of the undisturbed run, each contribution once.

`make test` plays what stands in ``QUICK``, `make faults` everything.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from faults.inject import warm_address
from faults.matrix import CASES, WITHOUT_IT, Case, is_quick
from faults.supervise import Stage, audit_of
from mammofed_server.entries import committed, key_of
from mammofed_server.run_state import RunState
from mammofed_server.tracking import evaluation_names, training_names
from mammofed_server.verify import verify_run
from mammofed_shared.ledger import FILE, Ledger
from mammofed_site.ledger_check import check_site
from whole_run import SITES, Hospitals

CALM = {
    "not connected",
    "connected",
    "ready",
    "fetching",
    "training",
    "evaluating",
    "submitting",
    "counting",
    "contributed",
}
"""What the coordinator may say of a site when nothing is wrong with it."""


@pytest.fixture(scope="session")
def warm() -> str:
    """Where the cases' sites fork their workers from: torch is loaded once, not for each site of each case."""
    return warm_address()


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.id, marks=[] if is_quick(case) else pytest.mark.faults) for case in CASES]
)
def test_the_run_ends_in_the_same_bits(
    tmp_path: Path, hospitals: Hospitals, warm: str, case: Case, record_property: Callable[[str, object], None]
) -> None:
    expected = hospitals.digest(case.schedule, case.processes)
    stage = Stage(tmp_path, hospitals, case, warm)
    stage.play()
    assert stage.what_did_not_happen() == [], stage.words()
    assert stage.restarts() == dict(case.restarts), stage.words()
    run = stage.run()
    assert run.ending() == "finished"
    if case.result == WITHOUT_IT:
        _the_missing_one_is_named(run, "mayo")
    else:
        assert run.manifest(run.last_turn()).state.digest == expected, stage.words()
        _every_contribution_counts_once(run, case)
    _the_ledger_has_each_thing_once(run)
    _everything_verifies(stage, hospitals)
    for site in SITES:
        _what_left_was_one_thing(run, tmp_path / site, site)
    _nothing_is_left_over(stage)
    for name in ("server", *SITES) if case.part != "disk" else ():
        assert "Traceback" not in stage.log(name), stage.log(name)
    if case.is_calm:
        for site in SITES:
            assert stage.states_seen[site] <= CALM
            assert "WARNING" not in stage.log(site).partition("takes part in run")[2], stage.log(site)
    if case.part == "tracking":
        _mlflow_has_each_number_once(run)
    record_property("restarts", sum(stage.restarts().values()))
    record_property("result", case.result)


def _every_contribution_counts_once(run: RunState, case: Case) -> None:
    manifests = [run.manifest(turn) for turn in range(1, run.last_turn() + 1)]
    assert all(not manifest.failures for manifest in manifests)
    told = [[item.site for item in manifest.contributions] for manifest in manifests]
    assert told == ([["central"], ["mayo"]] * 2 if case.schedule == "alternating" else [list(SITES)] * 2)
    ids = Counter(item.task_id for manifest in manifests for item in manifest.contributions)
    assert len(ids) == 4 and set(ids.values()) == {1}
    assert [manifest.previous for manifest in manifests] == [
        run.manifest(turn).state.digest for turn in range(run.last_turn())
    ]


def _the_missing_one_is_named(run: RunState, site: str) -> None:
    manifests = [run.manifest(turn) for turn in range(1, run.last_turn() + 1)]
    assert {item.site for manifest in manifests for item in manifest.contributions} == set(SITES) - {site}
    missed = [(item.site, item.code) for manifest in manifests for item in manifest.failures]
    assert missed == [(site, "ABSENT")] * 2
    assert run.evaluation(run.last_turn()) is not None


def _the_ledger_has_each_thing_once(run: RunState) -> None:
    entries = [line.entry for line in Ledger(run.folder / FILE).lines]  # which reads its chain
    keys = [key_of(entry) for entry in entries]
    assert len(set(keys)) == len(keys) and set(keys) >= set(committed(run))
    in_ledger = [item["task_id"] for entry in entries for item in entry.get("contributions", ())]
    manifests = [run.manifest(turn) for turn in range(1, run.last_turn() + 1)]
    assert in_ledger == [item.task_id for manifest in manifests for item in manifest.contributions]


def _everything_verifies(stage: Stage, hospitals: Hospitals) -> None:
    """By the commands `fl-server verify` and `site-client ledger`, up to the consortium's root."""
    ledgers = [stage.folder / site / FILE for site in SITES]
    found = verify_run(stage.server_folder, hospitals.consortium.root_fingerprint, ledgers)
    assert (found.verdict, found.ending, found.num_unsigned) == ("whole", "finished", 0), found.findings
    for site in SITES:
        assert check_site(stage.settings_of(site)).findings == []


def _mlflow_has_each_number_once(run: RunState) -> None:
    with closing(sqlite3.connect(run.folder / "mlflow.db")) as database:
        rows = database.execute("SELECT key, value, step FROM metrics").fetchall()
        [(status,)] = database.execute("SELECT status FROM runs").fetchall()
    held = run.quality()
    assert held is not None and status == "FINISHED"
    expected = {
        (f"query/{site}/{name}", value, 0) for site, told in held.counts.items() for name, value in told.items()
    }
    for turn in range(1, run.last_turn() + 1):
        manifest, evaluation = run.manifest(turn), run.evaluation(turn)
        numbers = {"failures": float(len(manifest.failures))}
        for item in manifest.contributions:
            numbers |= training_names(item.site, item.metrics)
        if evaluation is not None:
            numbers |= evaluation_names(evaluation.metrics)
        expected |= {(name, value, turn) for name, value in numbers.items()}
    assert Counter(rows) == Counter(expected)


def _what_left_was_one_thing(run: RunState, folder: Path, site: str) -> None:
    """However often a visit was released, it was the same update, and it is the one that counts."""
    events = list(audit_of(folder))
    for turn in range(1, run.last_turn() + 1):
        for item in run.manifest(turn).contributions:
            if item.site != site:
                continue
            own = [event for event in events if event.get("task") == item.task_id]
            assert {event["digest"] for event in own if event["event"] == "released"} == {item.update.digest}
            assert sum(event["event"] == "submitted" for event in own) <= 1
            assert not [event for event in own if event["event"] == "refused"]
            assert {event["code"] for event in own if event["event"] == "failed"} <= {"DISK_FULL"}


def _nothing_is_left_over(stage: Stage) -> None:
    left = [*stage.server_folder.glob("spool/*"), *stage.server_folder.rglob("*.writing")]
    left += [path for site in SITES for path in (stage.folder / site / "visits").rglob("*.writing")]
    left += [path for site in SITES for path in (stage.folder / site / "visits").rglob("*.part")]
    left += [path for site in SITES for path in (stage.folder / site / "visits").rglob("unfinished")]
    assert left == []
