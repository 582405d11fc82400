"""What each process of a worker group does about itself: made deterministic first, its memory watched."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import torch
from accelerate.utils.memory import should_reduce_batch_size

from mammofed_shared.config.text_encoder import folder_digest
from mammofed_shared.errors import RefusalCode, VisitFailed
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware


def prepare_process(plan: Plan, text_encoder: Path, hardware: Hardware) -> None:
    """Make this process deterministic and check that the text encoder is the run's."""
    found = folder_digest(text_encoder)
    if found != plan.text_encoder:
        raise VisitFailed(
            RefusalCode.TEXT_ENCODER_MISMATCH,
            f"text encoder: expected files of digest {plan.text_encoder[:12]}, found {found[:12]}: "
            "copy the folder that the lead names, with nothing added",
        )
    # Read by cuBLAS when it starts; without it deterministic algorithms are refused on a GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(hardware.threads)
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory that it did not write; filling it all first took 16 % of a small visit's time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # Images are read by our own threads; OpenCV's would only contend with torch's.
    cv2.setNumThreads(1)


@contextmanager
def out_of_memory_as_code() -> Iterator[None]:
    """Turns what torch says when memory runs out into an error with its code.

    Raises:
        VisitFailed: OUT_OF_MEMORY.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or should_reduce_batch_size(error)):
            raise
        raise VisitFailed(
            RefusalCode.OUT_OF_MEMORY, "lower task.batch_size, or turn on activation_checkpointing"
        ) from error


def peak_memory_gb(group: WorkerGroup) -> float:
    """Most memory that this process has held: of the GPU, or of the machine where there is none. In GB (10⁹ bytes)."""
    if group.device.type == "cuda":
        return torch.cuda.max_memory_allocated(group.device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
