"""What of a worker's failure may leave the site: a code, and which."""

import errno
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation import make_plan, small_state
from mammofed_shared.config.site import WorkerSettings
from mammofed_shared.errors import DataError, RefusalCode
from mammofed_shared.protocol.plan import Plan
from mammofed_site import worker
from mammofed_site.disclosure import Counts
from mammofed_site.visit import VisitOrder
from prepared import TEXT_ENCODER, prepare_dataset


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


def _order(folder: Path, plan: Plan, datasets: tuple[tuple[str, Path], ...] = ()) -> None:
    order = VisitOrder(
        plan=plan,
        datasets=datasets,
        text_encoder=TEXT_ENCODER,
        worker=WorkerSettings(device="cpu", threads=1),
        least_cell=2,
        data="0" * 64,
        caches=folder / "caches",
        log_file=folder / "worker.log",
        state=folder / "state",
        moments=None,
    )
    (folder / "unfinished").mkdir()
    (folder / "visit.json").write_text(order.model_dump_json())


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
    _order(tmp_path, make_plan(small_state(tmp_path / "state")))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(worker, "read_exams", fail)
    reported: list[object] = []

    assert worker.do_visit(str(tmp_path), 0, reported.append) is code

    assert reported == []
    assert str(error) in (tmp_path / "worker.log").read_text()
    assert json.loads((tmp_path / "visit.json").read_text())["plan"]["site"] == "mayo"


def test_a_query_counts_the_prepared_tables(tmp_path: Path) -> None:
    prepare_dataset(tmp_path / "screening", seed=1)
    _order(tmp_path, make_plan(None, kind="query"), (("screening", tmp_path / "screening"),))
    assert worker.do_visit(str(tmp_path), 0, lambda _: None) is None
    counts = Counts.model_validate_json((tmp_path / "unfinished/counted.json").read_text())
    assert (counts.num_images, counts.num_exams, counts.num_patients) == (56, 14, 14)


def test_a_query_of_tables_that_are_not_there_gives_a_code(tmp_path: Path) -> None:
    _order(tmp_path, make_plan(None, kind="query"), (("screening", tmp_path / "screening"),))
    assert worker.do_visit(str(tmp_path), 0, lambda _: None) is RefusalCode.NO_DATA
