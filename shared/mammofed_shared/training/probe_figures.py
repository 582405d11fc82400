"""What a probe has measured, as a file between worker and parent. Without torch: the parent reads it."""

from pydantic import Field

from mammofed_shared.config.base import Settings
from mammofed_shared.training.feature_figures import FeatureFigures

FIGURES_FILE = "probe.json"


class ProbeFigures(Settings):
    """Figures of one probe (``probe.py``). Times are in seconds, memory in GB (10⁹ bytes), sizes in bytes.

    Memory is a GPU's, or the machine's where there is none.
    """

    device: str
    """The device in words, such as `NVIDIA H100` or `CPU`."""
    is_gpu: bool
    memory_gb: float
    """All memory that one GPU, or the machine, has."""
    peak_memory_gb: tuple[float, ...]
    """Most memory that each process has held."""
    micro_batch: int
    """Most samples that a process computed at once."""
    num_steps: int = Field(ge=1)
    """Steps of one epoch."""
    num_samples: float
    """Of all timed steps together."""
    step_s: tuple[float, ...] = Field(min_length=1)
    """Length of each timed step, waiting for data included."""
    wait_s: float
    """Of all timed steps together, how long the process that waited most waited for data."""
    warm_up_s: float
    """How much longer the first steps took than later ones: first touch of the memory, compiling."""
    start_s: float
    """From a new process to a model that can be trained, the exams read."""
    model_s: float
    """To make the model alone."""
    checkpoint_s: float
    """To write a checkpoint."""
    validation_s: float
    """To validate once; 0 where there is nothing to validate."""
    features: FeatureFigures | None = None
    """What the task reads of the frozen model, where it reads any."""
    weights_bytes: int
    moments_bytes: int
    """0 where a site keeps none."""
    checkpoint_bytes: int
