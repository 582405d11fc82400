"""What a worker does for an evaluation: a plan, a state and this site's test exams in; numbers and scores out.

out/metrics.json    numbers, name → value; leave the site after egress control
out/scores.csv      score of each exam; never leaves the site
"""

import csv
import io
import json
from collections.abc import Callable, Sequence

from mammofed_shared.evaluation.zero_shot import ExamScore
from mammofed_shared.files import write_whole
from mammofed_shared.protocol.plan import Plan, Progress
from mammofed_shared.training.feature_pass import features_before
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.process import out_of_memory_as_code, prepare_process
from mammofed_shared.training.site_data import SiteData
from mammofed_shared.training.state import load_state
from mammofed_shared.training.tasks import code_of
from mammofed_shared.training.visit import METRICS_FILE, VisitFiles

SCORES_FILE = "scores.csv"


def evaluate_visit(
    plan: Plan, files: VisitFiles, data: SiteData, hardware: Hardware, report: Callable[[Progress], None]
) -> None:
    """Score this site's test exams with a state; write released numbers and scores. One process does it.

    Args:
        report: called after each batch.

    Raises:
        VisitFailed: with the code of what went wrong; nothing was written then.
    """
    prepare_process(plan, data, hardware)
    group = WorkerGroup(hardware)
    code = code_of(plan.task)
    model = code.build_model(plan.task, data.text_encoder, False)
    load_state(model, files.state, has_controls=plan.control_variates)

    def batch_done(done: int, total: int) -> None:
        report(Progress(step=done, num_steps=total))

    with out_of_memory_as_code():
        features_before(plan.task, data, group, report)
        found = code.evaluate(plan.task, model.to(group.device), data, group.device, batch_done)
    write_whole(files.out / SCORES_FILE, _scores_csv(found.scores), mode=0o600)
    write_whole(files.out / METRICS_FILE, json.dumps(found.numbers))


def _scores_csv(scores: Sequence[ExamScore]) -> str:
    """Columns exam, dataset, finding, label (0, 1 or empty) and score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["exam", "dataset", "finding", "label", "score"])
    for row in scores:
        label = "" if row.label is None else int(row.label)
        writer.writerow([row.exam.exam, row.exam.dataset, row.finding, label, repr(row.score)])
    return text.getvalue()
