"""The one gate through which anything leaves: exactly the tensors that came, declared numbers, protected counts."""

from collections.abc import Collection, Mapping
from pathlib import Path

from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.protocol.payload import Payload, reference_of
from mammofed_shared.protocol.plan import Plan, Update
from mammofed_shared.protocol.release import check_metrics, check_tensors


def release(
    plan: Plan,
    state: Path | None,
    update: Path | None,
    metrics: Mapping[str, float],
    *,
    encoded: Collection[str] = frozenset(),
) -> Update:
    """Let an update leave.

    Args:
        plan: what was asked.
        state: the whole state that came, if any; names, shapes and dtypes of the update must be its own.
        update: payload file of a training visit; None for all others.
        metrics: numbers, each of which the task must declare; of a query, protected counts.
        encoded: names of tensors that leave as bfloat16, because the plan asks for it.

    Raises:
        Refused: something else than that would leave; nothing does.
    """
    check_metrics(plan, metrics)
    if update is None:
        return Update(task_id=plan.task_id, payload=None, metrics=dict(metrics))
    assert state is not None, "training starts from a state"
    if encoded and plan.upload == "fp32":
        raise Refused(RefusalCode.TENSOR_DTYPE, "the plan asks for whole tensors")
    with Payload(state) as came, Payload(update) as leaves:
        expected = {name: (entry.dtype, entry.shape) for name, entry in came.entries.items()}
        check_tensors(leaves, expected | {name: ("BF16", expected[name][1]) for name in encoded if name in expected})
    return Update(task_id=plan.task_id, payload=reference_of(update), metrics=dict(metrics))
