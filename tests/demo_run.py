"""What one turn of a run leaves on disk at the coordinator and at three sites, without any training."""

from pathlib import Path

from federation import METRICS, SMALL_SPEC, small_state
from mammofed_server.run_state import EvaluationRecord, RunRecord, RunState
from mammofed_shared.checkpoint import Contribution
from mammofed_shared.config.loading import load
from mammofed_shared.config.run import RunSettings

ROOT = Path(__file__).parents[1]
SITES = ("central", "mayo", "emory")
CSV = "exam,dataset,finding,label,score\n"


def small_run(tmp_path: Path) -> RunState:
    """A run in ``server`` with one committed turn, evaluated before and after it; its scores are in ``sites``."""
    folder = tmp_path / "server"
    settings = load(ROOT / "configs/run/demo.yaml", RunSettings, ["run=small", "seed=7", f"server.folder={folder}"])
    record = RunRecord(settings=settings, spec=SMALL_SPEC, text_encoder="0" * 64)
    state = tmp_path / "state.safetensors"
    run = RunState.begin(folder, record, state, small_state(state))
    update = tmp_path / "update.safetensors"
    reference = small_state(update, 2.0)
    metrics = {**METRICS, "num_steps": 15.0}
    contribution = Contribution(
        site="central", task_id="small/r0001/v00001/central/train", update=reference, metrics=metrics
    )
    run.commit(1, 1, (contribution,), (), (update, reference))
    for turn, round_number in ((0, 0), (1, 1)):
        released = {site: {"auroc/mass": 0.5 + 0.25 * turn, "density_accuracy": 0.5} for site in SITES}
        run.commit_evaluation(
            EvaluationRecord(turn=turn, round=round_number, state=run.manifest(turn).state.digest, metrics=released)
        )
        for site in SITES:
            result = tmp_path / f"sites/{site}/visits/small_r{round_number:04d}_v{turn:05d}_{site}_evaluate/result"
            result.mkdir(parents=True)
            (result / "scores.csv").write_text(CSV + f"a,d,mass,1,{0.5 + turn}\nb,d,mass,0,0.75\n")
    return run
