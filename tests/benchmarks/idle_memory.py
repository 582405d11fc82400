"""Memory of both parents while they wait: a real `fl-server` whose run has begun, a real `site-client` connected to it.

    .venv/bin/python tests/benchmarks/idle_memory.py [--seconds 20]

The run lists two sites and is paused, so no visit begins; the commands are started as a person starts them. Printed
for each process: RSS, and PSS, which counts a page that several processes share once; then what it has loaded of the
heavy libraries. The site's forkserver, from which workers are forked, holds torch and is listed beside its parent.
"""

import argparse
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import yaml

from identities import make_consortium
from mammofed_server.control import Control
from mammofed_server.status import read_status
from mammofed_shared.errors import StateError
from prepared import SMALL, TEXT_ENCODER, prepare_dataset

REPOSITORY = Path(__file__).parent.parent.parent
SITE = "mayo"
LONGEST_S = 180
HEAVY = ("torch", "transformers", "timm", "mlflow")


def _configure(folder: Path) -> tuple[list[str], list[str]]:
    """Write both configurations below ``folder``; gives the arguments of both commands."""
    consortium = make_consortium(folder, ["central", SITE])
    prepare_dataset(folder / "prepared", seed=1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    shared: dict[str, Any] = {
        "consortium": consortium.name,
        "preprocessing": SMALL.model_dump(),
        "text_encoder": str(TEXT_ENCODER),
    }
    run = {
        "run": "idle",
        "sites": ["central", SITE],
        "schedule": {"kind": "alternating", "rounds": 1},
        "task": {
            "name": "pretrain",
            "image_encoder": {"name": "mammofed_small_cnn", "weights": "none", "activation_checkpointing": False},
            "text_encoder": {"weights": "none", "max_tokens": 64},
            "precision": "fp32",
        },
        "server": {"listen": address, "folder": str(folder / "server"), "identity": str(consortium.server)},
        "tracking": {"enabled": False},
    }
    site = {
        "site": SITE,
        "server": address,
        "folder": str(folder / SITE),
        "identity": str(consortium.sites[SITE]),
        "datasets": [{"name": "screening", "prepared": str(folder / "prepared")}],
    }
    for name, settings in (("run", run), ("site", site)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**settings, **shared}))
    return (
        ["mammofed_server.cli", "--config", str(folder / "run.yaml")],
        ["mammofed_site.cli", "--site", SITE, "--config", str(folder / "site.yaml")],
    )


def _start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)


def _wait_until_connected(folder: Path) -> None:
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        try:
            found = read_status(folder)
        except StateError:
            found = None
        if found is not None and any(row.site == SITE and row.state == "ready" for row in found.sites):
            return
        time.sleep(0.2)
    raise TimeoutError(f"site {SITE} was not connected within {LONGEST_S} s")


def _memory(pid: int) -> str:
    """RSS and PSS of a process, and its mapped heavy libraries."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in rollup[1:] if line.endswith("kB")}
    maps = Path(f"/proc/{pid}/maps").read_text()
    loaded = [name for name in HEAVY if f"/{name}/" in maps]
    return f"RSS {found['Rss'] / 1e6:6.1f} MB  PSS {found['Pss'] / 1e6:6.1f} MB  loaded: {', '.join(loaded) or 'none'}"


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def main() -> None:
    """Start both commands, let them settle, print, and stop them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long both are left alone before the look")
    seconds = parser.parse_args().seconds
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="mammofed-idle-") as name:
        folder = Path(name)
        server, site = _configure(folder)
        try:
            (folder / "server").mkdir()
            Control(folder / "server").say("pause")
            processes = [_start(*server), _start(*site)]
            _wait_until_connected(folder / "server")
            time.sleep(seconds)
            for label, process in zip(("fl-server", "site-client"), processes, strict=True):
                print(f"{label:24s} {_memory(process.pid)}")
                for child in _children(process.pid):
                    command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                    role = next((word for word in ("forkserver", "resource_tracker") if word in command), "child")
                    print(f"{label} {role:>12s}  {_memory(child)}")
        finally:
            for process in processes:
                process.send_signal(signal.SIGINT)
                process.wait(timeout=LONGEST_S)


if __name__ == "__main__":
    main()
