"""The exchanged tensors of the `paper` preset, by name and shape: 178.8 M fp32 parameters, written down without torch.

The image encoder is tf_efficientnet_b5 (39 inverted-residual blocks, and 0.17 M running statistics of batch norm), the
text encoder ModernBERT-base (22 layers). Names are ours; counts and sizes are what a transfer feels.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mammofed_shared.protocol.payload import PayloadReference, write_payload
from mammofed_shared.protocol.task_spec import TaskSpec, TensorSpec

Shape = tuple[int, ...]
BYTES_PER_VALUE = 4

_B5_STAGES = (
    # kernel, expansion, channels, blocks
    (3, 1, 24, 3),
    (3, 6, 40, 5),
    (5, 6, 64, 5),
    (3, 6, 128, 7),
    (5, 6, 176, 7),
    (5, 6, 304, 9),
    (3, 6, 512, 3),
)
_STEM, _HEAD = 48, 2048
_VOCABULARY, _WIDTH, _LAYERS, _GATED = 50368, 768, 22, 1152
_SHARED = 512


def paper_tensors() -> dict[str, Shape]:
    """Name → shape of every tensor."""
    return dict([*_image_encoder(), *_text_encoder(), *_projections()])


def _image_encoder() -> Iterator[tuple[str, Shape]]:
    yield from _convolution("image.stem", (_STEM, 3, 3, 3))
    channels, block = _STEM, 0
    for kernel, expansion, out, repeats in _B5_STAGES:
        for _ in range(repeats):
            name, wide = f"image.block{block}", channels * expansion
            squeezed = channels // 4
            if expansion > 1:
                yield from _convolution(f"{name}.expand", (wide, channels, 1, 1))
            yield from _convolution(f"{name}.depthwise", (wide, 1, kernel, kernel))
            yield f"{name}.squeeze.weight", (squeezed, wide, 1, 1)
            yield f"{name}.squeeze.bias", (squeezed,)
            yield f"{name}.excite.weight", (wide, squeezed, 1, 1)
            yield f"{name}.excite.bias", (wide,)
            yield from _convolution(f"{name}.project", (out, wide, 1, 1))
            channels, block = out, block + 1
    yield from _convolution("image.head", (_HEAD, channels, 1, 1))


def _convolution(name: str, shape: Shape) -> Iterator[tuple[str, Shape]]:
    """A convolution and its batch norm."""
    yield f"{name}.weight", shape
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.norm.{part}", shape[:1]


def _text_encoder() -> Iterator[tuple[str, Shape]]:
    yield "text.embedding", (_VOCABULARY, _WIDTH)
    for layer in range(_LAYERS):
        yield f"text.layer{layer}.attention.qkv", (3 * _WIDTH, _WIDTH)
        yield f"text.layer{layer}.attention.out", (_WIDTH, _WIDTH)
        yield f"text.layer{layer}.mlp.in", (2 * _GATED, _WIDTH)
        yield f"text.layer{layer}.mlp.out", (_WIDTH, _GATED)
        yield f"text.layer{layer}.norm1", (_WIDTH,)
        yield f"text.layer{layer}.norm2", (_WIDTH,)
    yield "text.norm", (_WIDTH,)


def _projections() -> Iterator[tuple[str, Shape]]:
    yield "image.projection", (_SHARED, _HEAD)
    yield "text.projection", (_SHARED, _WIDTH)
    yield "log_temperature", ()


def tensors_of_about(megabytes: float) -> dict[str, Shape]:
    """The paper's tensors while they fit into ``megabytes`` (10⁶ bytes); the last one is cut to fill them."""
    left = round(megabytes * 1e6) // BYTES_PER_VALUE
    chosen: dict[str, Shape] = {}
    for name, shape in paper_tensors().items():
        count = int(np.prod(shape))
        if count > left:
            chosen[name] = (left,)
            break
        chosen[name] = shape
        left -= count
    return chosen


def spec_of(tensors: dict[str, Shape]) -> TaskSpec:
    """The task's tensors, all of them fp32 parameters."""
    return TaskSpec(
        task="pretrain",
        weight_key="num_exams",
        tensors={name: TensorSpec(shape=shape, dtype="F32", kind="parameter") for name, shape in tensors.items()},
    )


def write_random(path: Path, tensors: dict[str, Shape], seed: int) -> PayloadReference:
    """A payload of these tensors with normally distributed values."""
    random = np.random.default_rng(seed)
    return write_payload(path, {name: random.standard_normal(shape, np.float32) for name, shape in tensors.items()})
