"""The processes that train one visit together, by ``accelerate``: NCCL between GPUs, gloo between CPUs.

Everything that they say to each other is here; what is said is the same for one process, where it costs nothing.
"""

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.training.hardware import Hardware

PATIENCE = timedelta(hours=24)
"""The site's parent ends the group when one of its processes dies; no process needs a clock of its own for that."""


class WorkerGroup:
    """This process's view of the group.

    Raises:
        VisitFailed: SETTINGS, where the machine has not what the site's YAML asks for.
    """

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        self.rank = hardware.rank
        self.size = hardware.num_processes
        self.device = _device(hardware)
        if self.size > 1 or hardware.distribution.startswith("zero"):  # DeepSpeed wants a group even of one
            self._meet(hardware)

    def gather_rows(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """The rows of all processes, in the order of rank; without gradient.

        Args:
            rows: this process's, (``sizes[rank]``, …).
            sizes: number of rows of every process.
        """
        if self.size == 1:
            return rows
        most = max(sizes)
        padded = rows.new_zeros((most, *rows.shape[1:]))
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(gathered, padded)
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    def sum(self, value: float) -> float:
        """The sum of a number over all processes."""
        if self.size == 1:
            return value
        total = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return float(total)

    def as_first_says(self, word: bool) -> bool:
        """The first process's word, for a decision that hangs on its clock or its disk."""
        if self.size == 1:
            return word
        said = torch.tensor([int(word)], device=self.device)
        dist.broadcast(said, 0)
        return bool(said)

    def wait_for_all(self) -> None:
        """Return when every process is here."""
        if self.size > 1:
            dist.barrier()

    def _meet(self, hardware: Hardware) -> None:
        if dist.is_initialized():
            return
        is_cpu = self.device.type == "cpu"
        # Everything between the processes stays on this machine.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
        os.environ.setdefault("OMP_NUM_THREADS", str(hardware.threads))  # accelerate would set threads otherwise
        place = {"RANK": self.rank, "LOCAL_RANK": self.rank, "WORLD_SIZE": self.size, "LOCAL_WORLD_SIZE": self.size}
        os.environ.update({name: str(value) for name, value in place.items()})
        # A file to meet in needs no free port, and nobody else can come.
        dist.init_process_group(
            "gloo" if is_cpu else "nccl",
            init_method=Path(hardware.rendezvous).absolute().as_uri(),
            rank=self.rank,
            world_size=self.size,
            timeout=PATIENCE,
        )


def shares_of(count: int, num_processes: int) -> tuple[int, ...]:
    """How many of ``count`` samples each process computes; they differ by at most one."""
    return tuple(count // num_processes + (rank < count % num_processes) for rank in range(num_processes))


def _device(hardware: Hardware) -> torch.device:
    wanted = hardware.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cpu":
        return torch.device("cpu")
    found = torch.cuda.device_count()
    if found < hardware.num_processes:
        raise VisitFailed(
            RefusalCode.SETTINGS,
            f"worker.processes is {hardware.num_processes}, but this machine shows {found} GPUs: lower it, or look at "
            "nvidia-smi and CUDA_VISIBLE_DEVICES",
        )
    device = torch.device("cuda", hardware.rank)
    torch.cuda.set_device(device)
    return device
