"""The bar of a visit: there for those who watch, silent elsewhere."""

import io
import time

from rich.console import Console

from mammofed_shared.protocol.plan import Progress
from mammofed_site.progress_bar import visit_shown
from mammofed_site.visit import Monitor


def shown(is_terminal: bool) -> str:
    written = io.StringIO()
    monitor = Monitor()
    with visit_shown(monitor, "round 2: train", Console(file=written, force_terminal=is_terminal, width=120)):
        monitor.progress = Progress(epoch=1, step=30, num_steps=120, loss=0.25, samples_per_s=4.0)
        time.sleep(1.2)
    return written.getvalue()


def test_who_watches_sees_steps_loss_and_speed() -> None:
    found = shown(is_terminal=True)

    assert "round 2: train" in found
    assert "30/120" in found
    assert "loss 0.250  4.0 samples/s" in found


def test_a_service_writes_no_bar() -> None:
    assert shown(is_terminal=False) == ""
