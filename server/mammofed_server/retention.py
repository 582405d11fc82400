"""Which states of earlier turns stay on disk. Manifests stay always: they are the run's history."""

import logging
import shutil
from collections.abc import Callable

from mammofed_server.run_state import RunState
from mammofed_shared.checkpoint import UPDATES_FOLDER

logger = logging.getLogger(__name__)


def forget_states(run: RunState, is_pending: Callable[[int], bool]) -> None:
    """Remove states and kept updates as the run's settings say; never the first, the last or one that is still needed.

    Args:
        is_pending: whether the state of a turn must still be evaluated.
    """
    settings = run.checkpoints
    if settings.keep_last is None:
        return
    for turn in range(1, run.last_turn() - settings.keep_last + 1):
        is_kept = settings.keep_every is not None and turn % settings.keep_every == 0
        if not is_kept and not is_pending(turn):
            _forget(run, turn)


def _forget(run: RunState, turn: int) -> None:
    folder = run.checkpoint_folder(turn)
    states = list(folder.glob("*.safetensors"))
    if states:
        logger.info("turn %d: its state is no longer kept", turn)
    for path in states:
        path.unlink()
    shutil.rmtree(folder / UPDATES_FOLDER, ignore_errors=True)
