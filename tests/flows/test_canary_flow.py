"""A patient's number, planted wherever one can be, never comes to the coordinator; the site's record has each attempt.

The coordinator's side is recorded: each byte and header that it receives, its folder, its log, its tracking.
"""

import base64
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

import betrayers
import recording_server
from bare_site import bare_site
from betrayers import MRN, WAYS
from dicom_fixtures import breast_pixels, write_mammogram
from federation import coordinator, make_plan, small_state
from identities import make_consortium
from mammofed_server import gate as server_gate
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_site import visit
from mammofed_site.client import SiteClient
from mammofed_site.preprocess import preprocess
from prepared import SMALL, TEXT_ENCODER
from whole_run import free_port, run_settings

LONGEST_S = 240.0
FORMS = {
    "as it is": MRN.encode(),
    "its digits": MRN.removeprefix("MRN").encode(),
    "UTF-16": MRN.encode("utf-16-le"),
    "base64": base64.b64encode(MRN.encode()).rstrip(b"="),
    "hexadecimal": MRN.encode().hex().encode(),
    "as a float": np.float64(48151623).tobytes(),
    "as an integer": np.int64(48151623).tobytes(),
}
USER_AGENT = r"grpc-python/[0-9.]+ grpc-c/[0-9.]+ \(linux; chttp2\)"


def _found_in(data: bytes) -> set[str]:
    return {name for name, form in FORMS.items() if form in data}


def _found_below(folder: Path) -> dict[str, set[str]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files, "there is something to search"
    found = {str(path): _found_in(path.read_bytes()) | _found_in(str(path).encode()) for path in files}
    return {path: forms for path, forms in found.items() if forms}


def _events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


# ── a worker that betrays its data ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Path]:
    record = tmp_path / "received"
    answers = recording_server.record_into(record)
    yield record
    server_gate.Gate._answers = answers  # type: ignore[method-assign]


def test_whatever_a_worker_tries_the_coordinator_hears_a_code(
    tmp_path: Path, record: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(visit, "worker_entry", betrayers.ENTRY)
    consortium = make_consortium(tmp_path / "consortium", ["mayo"])
    state = small_state(tmp_path / "state")
    right = {"preprocessing": SMALL.digest, "text_encoder": folder_digest(TEXT_ENCODER)}
    with caplog.at_level(logging.DEBUG), coordinator(tmp_path / "spool", consortium, sites=("mayo",)) as server:
        settings = bare_site(tmp_path / "mayo", server=f"127.0.0.1:{server.port}", identity=consortium.sites["mayo"])
        client = SiteClient(settings, consortium.site_identity("mayo"))
        site = threading.Thread(target=client.run, daemon=True)
        heard = {}
        ways = [*WAYS, "a count's name", "a count's value"]
        for number, way in enumerate(ways, start=1):
            kind = "train" if way in WAYS else "query"
            (settings.folder / "behaviour").write_text(way)
            plan = make_plan(state if kind == "train" else None, visit=number, kind=kind).model_copy(update=right)
            server.mailbox.put(plan, tmp_path / "state" if kind == "train" else None)
            if not site.is_alive():
                site.start()
            (outcome,) = server.mailbox.wait([plan.task_id], LONGEST_S)
            heard[way] = outcome.refusal
        server.run_state = pb.FINISHED
        server.mailbox.close()
        site.join(LONGEST_S)
        client.close()
    assert heard == {way: code.name for way, (_, code) in WAYS.items()} | {
        "a count's name": "METRIC_NOT_ALLOWED",
        "a count's value": "METRIC_NOT_ALLOWED",
    }
    failed = [event["code"] for event in _events(settings.folder) if event["event"] == "failed"]
    assert failed == list(heard.values()), "each attempt stands in the site's record"
    assert b"Fail " in record.read_bytes() and _found_in(record.read_bytes()) == set()
    assert _found_below(tmp_path / "spool") == {}
    assert _found_in((settings.folder / "audit.jsonl").read_bytes()) == set()
    servers = [item.getMessage() for item in caplog.records if item.name.startswith("mammofed_server")]
    assert servers and _found_in("\n".join(servers).encode()) == set()


# ── a hospital whose files are full of it ───────────────────────────────────────────────────────────────────────


def _export(folder: Path) -> None:
    """Eight patients in whose headers, paths, reports and labels the number stands."""
    reports, labels = ["accession,report"], ["accession,mass,density"]
    for number in range(8):
        patient, study = f"{MRN}{number}", f"1.2.3.{number + 1}"
        for place, (side, view) in enumerate((side, view) for side in "LR" for view in ("CC", "MLO")):
            pixels = breast_pixels()
            pixels[30 + number : 70, 8:30] += np.uint16(60 * number + 9 * place)
            front = {"L": "A", "R": "P"}[side]
            write_mammogram(
                folder / "pacs" / patient / f"{patient}-{side}{view}.dcm",
                np.ascontiguousarray(pixels if side == "L" else pixels[:, ::-1]),
                PatientID=patient,
                PatientName=f"{MRN}^Anna",
                AccessionNumber=f"A{patient}",
                StudyInstanceUID=study,
                SOPInstanceUID=f"{study}.{place}",
                ImageLaterality=side,
                ViewPosition=view,
                PatientOrientation=[front, {"L": "FR", "R": "FL"}[side]] if view == "MLO" else [front, side],
                InstitutionName=f"Hospital of {MRN}",
            )
        reports.append(f'A{patient},"FINDINGS: A mass of {MRN} is seen. IMPRESSION: See {MRN}."')
        labels.append(f"A{patient},{number % 2},B")
    (folder / "reports.csv").write_text("\n".join(reports) + "\n")
    (folder / "labels.csv").write_text("\n".join(labels) + "\n")


def _burn_in(prepared: Path) -> int:
    """Let a row of each training image spell the number in its bytes."""
    images = sorted(prepared.rglob("*.png"))
    for path in images:
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        pixels[0, : len(MRN)] = np.frombuffer(MRN.encode(), np.uint8)
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    return len(images)


def _start(folder: Path, name: str, *command: str) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.out").open("wb") as out:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen([sys.executable, *command], stdout=out, stderr=subprocess.STDOUT, env=environment)


def _until_ended(processes: dict[str, subprocess.Popen[bytes]], folder: Path) -> None:
    end = time.monotonic() + LONGEST_S
    try:
        for name, process in processes.items():
            assert process.wait(max(0.0, end - time.monotonic())) == 0, (folder / f"{name}.out").read_text()
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def test_what_stands_in_headers_paths_reports_and_pixels_stays_at_the_hospital(tmp_path: Path) -> None:
    _export(tmp_path / "hospital")
    consortium = make_consortium(tmp_path / "consortium", ["mayo"])
    port = free_port()
    run = run_settings(tmp_path / "server", consortium.server, port, sites=["mayo"], tracking={"enabled": True})
    run["schedule"] = {"kind": "alternating", "rounds": 1}
    settings = SiteSettings.model_validate(
        {
            "site": "mayo",
            "consortium": "hospitals",
            "server": f"127.0.0.1:{port}",
            "folder": tmp_path / "mayo",
            "identity": consortium.sites["mayo"],
            "datasets": [
                {
                    "name": "screening",
                    "dicom": tmp_path / "hospital/pacs",
                    "reports": tmp_path / "hospital/reports.csv",
                    "reports_with_identifiers": "keep",
                    "labels": tmp_path / "hospital/labels.csv",
                }
            ],
            "split": {"train": 0.5, "test": 0.5},
            "preprocessing": SMALL.model_dump(),
            "text_encoder": TEXT_ENCODER,
            "worker": {"device": "cpu", "threads": 1, "preprocess_workers": 1},
            "policy": {"least_cell": 2},
        }
    )
    preprocess(settings, settings.datasets[0], b"k" * 32)
    prepared = settings.prepared_folder(settings.datasets[0])
    assert _burn_in(prepared) == 32
    assert {"as it is"} <= set.union(*_found_below(prepared).values()), "pixels and reports are full of it"
    for name, values in (("run", run), ("mayo", json.loads(settings.model_dump_json()))):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    record = tmp_path / "received"
    server = [recording_server.__file__, str(record), "--config", str(tmp_path / "run.yaml")]
    site = ["-m", "mammofed_site.cli", "--site", "mayo", "--config", str(tmp_path / "mayo.yaml")]
    _until_ended({"server": _start(tmp_path, "server", *server), "mayo": _start(tmp_path, "mayo", *site)}, tmp_path)

    received = record.read_bytes()
    assert all(f"{call} ".encode() in received for call in ("Hello", "Poll", "Fetch", "Offset", "Submit"))
    assert (tmp_path / "server/mlflow.db").stat().st_size > 0 and (tmp_path / "server/evaluations/00001.json").exists()
    assert _found_in(received) == set()
    assert _found_below(tmp_path / "server") == {} and _found_in((tmp_path / "server.out").read_bytes()) == set()
    assert _found_in((tmp_path / "mayo/audit.jsonl").read_bytes()) == set()


def test_a_connection_tells_the_software_and_no_name_of_a_machine_or_a_user(tmp_path: Path, record: Path) -> None:
    consortium = make_consortium(tmp_path / "consortium", ["mayo"])
    with coordinator(tmp_path / "spool", consortium, sites=("mayo",)) as server:
        link = server.link(consortium, "mayo")
        link.hello(1, 1)
        link.close()
    (line,) = [line for line in record.read_bytes().splitlines() if line.startswith(b"metadata ")]
    assert [key for key, _ in json.loads(line.removeprefix(b"metadata "))] == ["user-agent"]
    ((_, agent),) = json.loads(line.removeprefix(b"metadata "))
    assert re.fullmatch(USER_AGENT, agent)
