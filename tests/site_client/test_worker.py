"""What of a worker's failure may leave the site: a code, and which."""

import errno
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation import make_plan, small_state
from mammofed_shared.errors import DataError, RefusalCode
from mammofed_site import worker
from mammofed_site.visit import VisitOrder
from prepared import TEXT_ENCODER


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in before:
            handler.close()
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "no space left"), RefusalCode.DISK_FULL),
        (OSError(errno.EIO, "/pacs/MRN-4711.dcm"), RefusalCode.WORKER_DIED),
        (MemoryError(), RefusalCode.OUT_OF_MEMORY),
        (DataError("not prepared"), RefusalCode.NO_DATA),
        (RuntimeError("a bug that names MRN-4711"), RefusalCode.WORKER_DIED),
    ],
)
def test_a_failure_becomes_a_code_and_its_words_stay_in_the_sites_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: RefusalCode
) -> None:
    order = VisitOrder(
        plan=make_plan(small_state(tmp_path / "state")),
        datasets=(),
        text_encoder=TEXT_ENCODER,
        device="cpu",
        threads=1,
        log_file=tmp_path / "worker.log",
        moments=None,
    )
    (tmp_path / "visit.json").write_text(order.model_dump_json())

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(worker, "read_exams", fail)
    reported: list[object] = []

    assert worker.do_visit(str(tmp_path), str(tmp_path / "state"), str(tmp_path), reported.append) is code

    assert reported == []
    assert str(error) in (tmp_path / "worker.log").read_text()
    assert json.loads((tmp_path / "visit.json").read_text())["plan"]["site"] == "mayo"
