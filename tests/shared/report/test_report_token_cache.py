"""The token cache gives what the tokenizer gives, to threads and processes, whatever happened to its file."""

import gc
import logging
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mammofed_shared.report import token_cache, token_file
from mammofed_shared.report.prompts import prompts_of
from mammofed_shared.report.token_cache import CachedTokenizer
from mammofed_shared.report.tokenize import ReportTokenizer, Tokens

FOLDER = Path(__file__).parents[3] / "configs/text_encoder/demo"
TEXTS = [*prompts_of("mass"), "", "There is a mass.", "There is a mass."]
FILL = """
import sys
from pathlib import Path
from mammofed_shared.report.token_cache import CachedTokenizer
folder, cache, worker = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
tokenizer = CachedTokenizer(folder, 8, cache)
print("ready", flush=True)
for number in range(100_000):
    tokenizer([f"mass {worker if i % 2 else 'all'} {number} {i}" for i in range(32)])
    if number == 20:
        print("twenty", flush=True)
    if number == 60 and worker >= 0:
        break
"""


def same(one: Tokens, other: Tokens) -> bool:
    arrays = ((one.ids, other.ids), (one.mask, other.mask))
    return one.num_cut == other.num_cut and all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in arrays)


def file_of(cache: Path) -> Path:
    (path,) = cache.glob("tokens-*.sqlite")
    return path


def forbid_tokenizing(tokenizer: CachedTokenizer) -> None:
    tokenizer._tokenizer = None


@pytest.mark.parametrize("max_tokens", [8, 64])
def test_cold_and_warm_it_gives_what_the_tokenizer_gives(tmp_path: Path, max_tokens: int) -> None:
    plain = ReportTokenizer(FOLDER, max_tokens)(TEXTS)
    assert (plain.num_cut > 0) == (max_tokens == 8)
    cold = CachedTokenizer(FOLDER, max_tokens, tmp_path)

    assert same(cold(TEXTS), plain)
    forbid_tokenizing(cold)
    assert same(cold(TEXTS), plain)

    next_visit = CachedTokenizer(FOLDER, max_tokens, tmp_path)
    forbid_tokenizing(next_visit)
    assert same(next_visit(TEXTS), plain)
    assert same(next_visit([]), ReportTokenizer(FOLDER, max_tokens)([]))


def test_another_limit_or_tokenizer_has_a_file_of_its_own(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "tokenizer.json").write_text((FOLDER / "tokenizer.json").read_text().replace('"mass"', '"lump"'))
    plain = {"ids": ReportTokenizer(other, 64)(["mass"]).ids.tolist()}

    CachedTokenizer(FOLDER, 64, tmp_path / "cache")(TEXTS)
    CachedTokenizer(FOLDER, 8, tmp_path / "cache")(TEXTS)

    assert CachedTokenizer(other, 64, tmp_path / "cache")(["mass"]).ids.tolist() == plain["ids"]
    assert len(list((tmp_path / "cache").glob("tokens-*.sqlite"))) == 3


def test_without_a_folder_it_remembers_in_memory_only() -> None:
    tokenizer = CachedTokenizer(FOLDER, 64, None)
    tokens = tokenizer(TEXTS)
    forbid_tokenizing(tokenizer)

    assert same(tokenizer(TEXTS), tokens)


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "MOST_BYTES_IN_MEMORY", 3000)
    tokenizer = CachedTokenizer(FOLDER, 64, tmp_path)

    for text in TEXTS:
        tokenizer([text])

    assert 0 < len(tokenizer._memory) < 12
    assert same(tokenizer(TEXTS), ReportTokenizer(FOLDER, 64)(TEXTS))


def test_a_full_file_takes_no_more_and_the_rest_is_tokenised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_file, "MOST_BYTES", 10 * 4096)
    texts = [f"mass {number}" for number in range(4000)]
    tokenizer = CachedTokenizer(FOLDER, 64, tmp_path)

    for start in range(0, 4000, 100):
        tokenizer(texts[start : start + 100])

    assert file_of(tmp_path).stat().st_size <= 10 * 4096
    assert same(CachedTokenizer(FOLDER, 64, tmp_path)(texts), ReportTokenizer(FOLDER, 64)(texts))


def test_the_file_is_its_owners_and_holds_no_text(tmp_path: Path) -> None:
    CachedTokenizer(FOLDER, 64, tmp_path)(TEXTS)

    assert file_of(tmp_path).stat().st_mode & 0o077 == 0
    assert all(b"spiculated" not in path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize("harm", ["damaged", "version", "folder"])
def test_a_file_that_cannot_be_used_costs_time_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    CachedTokenizer(FOLDER, 64, tmp_path)(TEXTS[:5])
    gc.collect()  # a connection refers to itself, and SQLite mends a file while its log is there
    path = file_of(tmp_path)
    if harm == "damaged":
        path.write_bytes(b"no database" * 1000)
    elif harm == "version":
        with sqlite3.connect(path) as base:
            base.execute("PRAGMA user_version = 99")
    else:
        path.unlink()
        path.mkdir()

    with caplog.at_level(logging.WARNING):
        assert same(CachedTokenizer(FOLDER, 64, tmp_path)(TEXTS), ReportTokenizer(FOLDER, 64)(TEXTS))

    assert [record.message.count("delete it") for record in caplog.records] == [1]


def test_threads_share_it_and_a_copy_in_another_process_opens_its_own(tmp_path: Path) -> None:
    tokenizer = CachedTokenizer(FOLDER, 64, tmp_path)
    plain = ReportTokenizer(FOLDER, 64)
    batches = [[f"mass {(start + i) % 97}" for i in range(32)] for start in range(60)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(tokenizer, batches))

    assert all(same(one, plain(batch)) for one, batch in zip(found, batches, strict=True))
    copy = pickle.loads(pickle.dumps(tokenizer))
    forbid_tokenizing(copy)
    assert same(copy(batches[0]), found[0])


def test_processes_write_at_once_and_a_killed_one_leaves_whole_batches(tmp_path: Path) -> None:
    def start(worker: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", FILL, str(FOLDER), str(tmp_path), str(worker)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    workers = [start(0), start(1), start(-1)]
    killed = workers[-1]
    assert killed.stdout is not None
    assert [killed.stdout.readline().strip() for _ in range(2)] == ["ready", "twenty"]
    killed.send_signal(signal.SIGKILL)
    for worker in workers:
        worker.communicate(timeout=60)

    assert [worker.returncode for worker in workers] == [0, 0, -signal.SIGKILL]
    with sqlite3.connect(file_of(tmp_path)) as base:
        assert base.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert base.execute("SELECT count(*) FROM tokens").fetchone()[0] >= 61 * 16 * 3
    warm = CachedTokenizer(FOLDER, 8, tmp_path)
    texts = [f"mass {1 if i % 2 else 'all'} 7 {i}" for i in range(32)]
    forbid_tokenizing(warm)
    assert same(warm(texts), ReportTokenizer(FOLDER, 8)(texts))
