"""A whole run with real processes: fl-server and two site-clients over mutual TLS.

It ends in the same weights, to the bit, as the undisturbed run in process. What goes wrong on the way is played in
tests/faults.
"""

import json
import os
import signal
from pathlib import Path

from faults.matrix import Case
from faults.supervise import COORDINATOR, Stage
from mammofed_server.pooled import pooled_aurocs
from mammofed_server.run_state import RunState
from whole_run import SITES, Hospitals


def test_over_mutual_tls_a_run_ends_in_the_same_bits_as_in_process(tmp_path: Path, hospitals: Hospitals) -> None:
    stage = Stage(tmp_path, hospitals, Case("nothing", "flow", is_cold=True), "")
    stage.play()

    assert stage.restarts() == {}
    digest, run = hospitals.digest(), stage.run()
    assert run.ending() == "finished" and run.manifest(run.last_turn()).state.digest == digest
    assert digest in stage.log(COORDINATOR), "fl-server says the digest in which the run ended"
    released = json.loads((stage.server_folder / "evaluations/00004.json").read_text())["metrics"]
    assert set(released) == {"central", "mayo"}
    assert released["mayo"]["suppressed/mass"] == 1, "one of six test exams has no mass"
    low, area, high = (released["mayo"][f"{word}/calcification"] for word in ("auroc_low", "auroc", "auroc_high"))
    assert 0 <= low <= area <= high <= 1
    pooled = pooled_aurocs(released)["calcification"]
    assert pooled.sites == ("central", "mayo") and 0 <= pooled.low <= pooled.high <= 1
    (kept,) = (tmp_path / "mayo/released-evaluations").iterdir()
    assert kept.name == f"{digest}.json", "and is told no second time otherwise"
    events = [json.loads(line)["event"] for line in (tmp_path / "mayo/audit.jsonl").read_text().splitlines()]
    assert events[:4] == ["permitted", "counted", "released", "submitted"]
    assert events[4:] == ["fetched", "permitted", "released", "submitted"] * 3
    counts = json.loads((stage.server_folder / "quality.json").read_text())["counts"]
    assert counts["mayo"]["num_images"] == 55 and counts["mayo"]["num_patients"] == 15, "56 and 14, rounded"
    assert counts["mayo"]["num_images_by_view/cc"] == 30, "28, rounded"
    assert "images by vendor" in stage.log(COORDINATOR)


def test_ctrl_c_ends_both_sides_cleanly_and_a_restart_goes_on(tmp_path: Path, hospitals: Hospitals) -> None:
    stage = Stage(tmp_path, hospitals, Case("nothing", "flow", is_cold=True), "")
    is_due = [True]

    def interrupt_once() -> None:
        if is_due and RunState.open(stage.server_folder).last_turn() == 1:
            is_due.clear()
            for name in (COORDINATOR, "mayo"):
                os.kill(int((tmp_path / "done" / f"{name}.pid").read_text()), signal.SIGINT)

    stage.play(meanwhile=interrupt_once)

    assert not is_due
    assert stage.codes(COORDINATOR) == stage.codes("mayo") == [130, 0] and stage.codes("central") == [0]
    for name in (COORDINATOR, *SITES):
        assert "Traceback" not in stage.log(name)
    run = stage.run()
    assert run.manifest(run.last_turn()).state.digest == hospitals.digest()
