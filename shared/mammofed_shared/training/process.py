"""What each process of a worker group does about itself: made deterministic first, its memory watched."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import torch
from accelerate.utils.memory import should_reduce_batch_size

from mammofed_shared.config.brought_models import IN_WORDS, MISMATCH, digest_of
from mammofed_shared.errors import ConfigurationError, RefusalCode, VisitFailed
from mammofed_shared.protocol.plan import Plan
from mammofed_shared.training.group import WorkerGroup
from mammofed_shared.training.hardware import Hardware
from mammofed_shared.training.site_data import SiteData


def prepare_process(plan: Plan, data: SiteData, hardware: Hardware) -> None:
    """Check that the site's models are the run's, and make this process deterministic.

    Raises:
        VisitFailed: TEXT_ENCODER_MISMATCH, ENCODER_MISMATCH.
    """
    for model, code in MISMATCH.items():
        asked, folder = getattr(plan, model), getattr(data, model)
        if asked is None:
            continue
        try:
            found = digest_of(model, folder) if folder is not None else "none"
        except ConfigurationError as error:
            raise VisitFailed(code, str(error)) from error
        if found != asked:
            raise VisitFailed(
                code,
                f"{IN_WORDS[model]}: expected files of digest {asked[:12]}, found {found[:12]}: "
                "copy the folder that the lead names, with nothing added",
            )
    make_deterministic(hardware)


def make_deterministic(hardware: Hardware) -> None:
    """Let equal work give equal bits in this process, as far as the hardware allows."""
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
