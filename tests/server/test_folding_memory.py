"""A fold's memory is flat: a process of its own folds many updates by every strategy and tells its peak."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

UPDATE_MB = 32
IN_A_FRESH_PROCESS = """
import json, sys
from pathlib import Path
from mammofed_server.folding import SiteUpdate, fold
from mammofed_server.schedule import make_schedule
from mammofed_shared.config.schedule import ScheduleSettings
from mammofed_shared.protocol.payload import PayloadWriter, reference_of
from mammofed_shared.protocol.task_spec import TaskSpec, TensorSpec
import numpy as np

folder, num_sites, values = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
tensors = {"w": TensorSpec(shape=(values,), dtype="F32", kind="parameter")}
spec = TaskSpec(task="pretrain", weight_key="num_exams", tensors=tensors)
state = folder / "state.safetensors"
header = {"w": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}
with PayloadWriter(state, header) as writer:
    for _ in range(16):
        writer.write(np.ones(values // 16, np.float32))

def peak_mb():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024

def fold_by(strategy):
    settings = {"kind": "fedavg", "rounds": 1, "weighting": "equal", "strategy": strategy}
    sites = tuple(f"site-{number}" for number in range(num_sites))
    turn = make_schedule(ScheduleSettings.model_validate(settings), sites).turns[0]
    updates = [SiteUpdate(site, state, reference_of(state), 1.0) for site in sites]
    fold(turn, folder, updates, spec, folder / "work")

idle = peak_mb()
found = {}
for strategy in json.loads(sys.argv[4]):
    fold_by(strategy)
    found[strategy["name"]] = peak_mb() - idle
print(json.dumps(found))
"""
STRATEGIES = [
    {"name": "fedavg"},
    {"name": "fedyogi", "server_learning_rate": 0.01, "clip_norm": 1.0},
    {"name": "trimmed-mean", "trim": 0.34},
]


@pytest.mark.parametrize("num_sites", [3, 12])
def test_no_strategy_holds_more_than_a_few_blocks_of_each_update(tmp_path: Path, num_sites: int) -> None:
    arguments = [str(tmp_path), str(num_sites), str(UPDATE_MB * 2**18), json.dumps(STRATEGIES)]
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, *arguments], capture_output=True, text=True, check=True
    )
    peaks_mb = json.loads(done.stdout)
    assert list(peaks_mb) == [strategy["name"] for strategy in STRATEGIES]
    # Updates: 3 MB each; sorted and stacked values of a trimmed mean: as much again; state, moments and their new ones.
    assert max(peaks_mb.values()) < 24 + 6 * num_sites, peaks_mb
    assert 24 + 6 * num_sites < UPDATE_MB * num_sites
