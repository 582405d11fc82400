"""What came and what leaves, where a run sends parameters as bfloat16: decoded on arrival, encoded before the gate.

    visits/<task>/state.safetensors             what came
    visits/<task>/whole.safetensors             the state that is trained, all of it float32; from an encoded one only
    visits/<task>/result/update.safetensors     what training made
    visits/<task>/result/encoded.safetensors    what leaves of it
    visits/<task>/result/residual.safetensors   what rounding dropped; it stays here and is added to the next update

The plan names the visit whose residual is added (``moments_from``: this site's last accepted one), so a refused or
repeated visit never advances it, and a visit that is encoded again after a kill gives the same bytes.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.files import is_full
from mammofed_shared.protocol.encoding import decode, encode, encoded_names
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.protocol.task_spec import TaskSpec
from mammofed_site.privacy import is_protected_alike
from mammofed_site.visit import visit_folder

logger = logging.getLogger(__name__)

WHOLE_STATE_FILE = "whole.safetensors"
ENCODED_FILE = "encoded.safetensors"
RESIDUAL_FILE = "residual.safetensors"
SPEC_FILE = "spec.json"
"""Names and kinds of the update's tensors, written by the worker, which alone knows the model."""


def whole_state(settings: SiteSettings, plan: Plan, state: Path | None) -> Path | None:
    """The state that came, or the float32 file that was made of an encoded one.

    Raises:
        VisitFailed: DISK_FULL.
        PayloadError: what came is not a payload.
    """
    if state is None or plan.download == "fp32":
        return state
    whole = visit_folder(settings, plan.task_id) / WHOLE_STATE_FILE
    with _disk_full_as_code():
        decode(state, whole)
    return whole


def encode_update(settings: SiteSettings, plan: Plan, state: Path, update: Path) -> tuple[Path, frozenset[str]]:
    """The file that leaves, and the names of those of its tensors that are bfloat16.

    Args:
        state: what ``whole_state`` gave; a difference is taken to it.
        update: what training, and whatever filters came after it, have made: whole, in the folder of the result.

    Raises:
        VisitFailed: DISK_FULL.
        PayloadError: update and state are not of one model.
    """
    if plan.upload == "fp32":
        return update, frozenset()
    result = update.parent
    names = encoded_names(TaskSpec.model_validate_json((result / SPEC_FILE).read_text(encoding="utf-8")), plan.upload)
    base = state if plan.upload == "delta" else None
    target, residual = result / ENCODED_FILE, result / RESIDUAL_FILE
    with _disk_full_as_code():
        earlier = _earlier_residual(settings, plan)
        encode(update, target, names, base=base, dropped=earlier, keep_dropped=residual)
    return target, names


def _earlier_residual(settings: SiteSettings, plan: Plan) -> Path | None:
    if plan.moments_from is None:
        return None
    path = visit_folder(settings, plan.moments_from) / "result" / RESIDUAL_FILE
    if not path.exists():
        logger.warning("what rounding dropped of %s is not here; nothing is added to this update", plan.moments_from)
        return None
    if not is_protected_alike(settings, path.parent):
        logger.warning("what rounding dropped of %s has no noise on it; it is not added to this update's",
                       plan.moments_from)  # fmt: skip
        return None
    return path


@contextmanager
def _disk_full_as_code() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise VisitFailed(RefusalCode.DISK_FULL, "make room where this site's folder is") from error
