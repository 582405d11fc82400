"""How the parameters of a payload are written down: whole, as bfloat16, or as bfloat16 of the difference to a state.

    encode  v = w, or w − base (delta); to it what an earlier rounding dropped is added (error feedback; Seide et al.
            2014, Karimireddy et al. 2019); q = bfloat16(v) is written down, v − q is what is dropped now
    decode  w = q, or base + q (delta)

bfloat16 is the upper half of a float32, rounded to nearest, ties to even: 8 significant bits, the range of float32. All
is computed in float32 by blocks, so memory is flat, and equal inputs give equal bytes on every machine. Buffers and
counters are copied as they are. An encoded payload is a safetensors file whose encoded tensors are BF16.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mammofed_shared.errors import PayloadError, RefusalCode, Refused
from mammofed_shared.protocol.payload import Payload, PayloadWriter, header_of
from mammofed_shared.protocol.plan import Encoding, PayloadReference
from mammofed_shared.protocol.task_spec import TaskSpec

BLOCK_VALUES = 2**16
"""Values that are converted at once: 256 KB in float32, which stays in a core's cache."""

Tensor = tuple[str, tuple[int, ...]]
"""A tensor's dtype, as safetensors names it, and its shape."""


# ── what an encoding makes of a task's tensors ──────────────────────────────────────────────────────────────────


def encoded_names(spec: TaskSpec, encoding: Encoding) -> frozenset[str]:
    """Names of the tensors that are not written down whole."""
    if encoding == "fp32":
        return frozenset()
    return frozenset(name for name, item in spec.tensors.items() if item.kind == "parameter" and item.dtype == "F32")


def expected_tensors(spec: TaskSpec, encoding: Encoding) -> dict[str, Tensor]:
    """Name → dtype and shape of every tensor in a payload of this encoding."""
    encoded = encoded_names(spec, encoding)
    return {name: ("BF16" if name in encoded else item.dtype, item.shape) for name, item in spec.tensors.items()}


def payload_bytes(spec: TaskSpec, encoding: Encoding) -> int:
    """Bytes of the tensors in a payload of this encoding; its header comes on top."""
    encoded = encoded_names(spec, encoding)
    widths = {"F32": 4, "F64": 8, "I64": 8, "I32": 4}
    return sum(
        math.prod(item.shape) * (2 if name in encoded else widths[item.dtype]) for name, item in spec.tensors.items()
    )


# ── bfloat16 ────────────────────────────────────────────────────────────────────────────────────────────────────


def to_bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest bfloat16, ties to even; NaN stays NaN, and what is beyond its range becomes infinite."""
    bits = values.view(np.uint32)
    upper = bits >> np.uint32(16)
    rounded = (bits + (np.uint32(0x7FFF) + (upper & np.uint32(1)))) >> np.uint32(16)
    is_nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    if is_nan.any():  # adding to a NaN's bits may carry into its sign
        rounded = np.where(is_nan, upper | np.uint32(0x40), rounded)
    return rounded.astype(np.dtype(np.uint16))


def from_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The values that the bits of bfloat16 stand for, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def encode(
    source: Path,
    target: Path,
    names: Collection[str],
    *,
    base: Path | None = None,
    dropped: Path | None = None,
    keep_dropped: Path | None = None,
) -> PayloadReference:
    """Write a payload in which the named tensors are bfloat16; give its digest and size.

    Args:
        source: payload whose named tensors are F32.
        target: written whole or not at all, as is ``keep_dropped``.
        base: payload from which the named tensors are taken away first; None: they are encoded as they are.
        dropped: what an earlier ``encode`` wrote to ``keep_dropped``; it is added before rounding.
        keep_dropped: where what rounding drops now is written: the named tensors, F32.

    Raises:
        PayloadError: ``base`` or ``dropped`` has other tensors than are needed.
    """
    with ExitStack() as stack:
        whole = stack.enter_context(Payload(source))
        from_base = stack.enter_context(Payload(base)) if base is not None else None
        earlier = stack.enter_context(Payload(dropped)) if dropped is not None else None
        written = {name: ("BF16" if name in names else item.dtype, item.shape) for name, item in whole.entries.items()}
        residuals = {name: ("F32", shape) for name, (dtype, shape) in written.items() if name in names}
        for other, needed in ((from_base, residuals), (earlier, residuals)):
            _check_has(other, needed)
        header, order = header_of(written)
        writer = stack.enter_context(PayloadWriter(target, header))
        rest = None
        if keep_dropped is not None:
            rest = stack.enter_context(PayloadWriter(keep_dropped, header_of(residuals)[0]))
        for name in order:
            if name in names:
                _encode_tensor(name, whole, from_base, earlier, writer, rest)
            else:
                _copy_tensor(name, whole, writer)
    return writer.reference


def _encode_tensor(
    name: str,
    whole: Payload,
    base: Payload | None,
    earlier: Payload | None,
    writer: PayloadWriter,
    rest: PayloadWriter | None,
) -> None:
    for values, start, added in _together(name, whole, base, earlier):
        # What is not finite stays so, and the check of what leaves refuses it by name.
        with np.errstate(invalid="ignore", over="ignore"):
            exact = values if start is None else values - start
            exact = exact if added is None else exact + added
            bits = to_bfloat16(exact)
            writer.write(bits)
            if rest is not None:
                rest.write(exact - from_bfloat16(bits))


def decode(source: Path, target: Path, base: Path | None = None) -> PayloadReference:
    """Write a payload whose tensors are all whole: what is bfloat16 in ``source`` becomes F32. Whole or not at all.

    Args:
        base: payload to which the bfloat16 tensors are added (delta); None: they are the values themselves.

    Raises:
        PayloadError: ``base`` lacks a tensor that is needed.
        Refused: NOT_FINITE, when a sum is beyond the range of float32.
    """
    with ExitStack() as stack:
        sent = stack.enter_context(Payload(source))
        start = stack.enter_context(Payload(base)) if base is not None else None
        whole = {
            name: ("F32" if item.dtype == "BF16" else item.dtype, item.shape) for name, item in sent.entries.items()
        }
        _check_has(start, {name: whole[name] for name, item in sent.entries.items() if item.dtype == "BF16"})
        header, order = header_of(whole)
        writer = stack.enter_context(PayloadWriter(target, header))
        for name in order:
            if sent.entries[name].dtype == "BF16":
                _decode_tensor(name, sent, start, writer)
            else:
                _copy_tensor(name, sent, writer)
    return writer.reference


def _decode_tensor(name: str, sent: Payload, base: Payload | None, writer: PayloadWriter) -> None:
    for bits, start in _together(name, sent, base):
        values = from_bfloat16(bits)
        if start is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                values = start + values
            if not np.isfinite(values).all():
                raise Refused(
                    RefusalCode.NOT_FINITE, f"{name}: state and difference add up to a value that is not finite"
                )
        writer.write(values)


def _together(name: str, *payloads: Payload | None) -> Iterator[tuple[Any, ...]]:
    """Blocks of one tensor out of several payloads at once; None for a payload that is not there."""
    first = payloads[0]
    assert first is not None, "the first payload says how many blocks there are"
    num_blocks = -(-math.prod(first.entries[name].shape) // BLOCK_VALUES)
    # Strictly, so that each payload is asked once more at the end and gives back the pages of its last block.
    return zip(
        *(repeat(None, num_blocks) if item is None else item.blocks(name, BLOCK_VALUES) for item in payloads),
        strict=True,
    )


def _copy_tensor(name: str, source: Payload, writer: PayloadWriter) -> None:
    for block in source.blocks(name, BLOCK_VALUES):
        writer.write(block)


def _check_has(payload: Payload | None, needed: Mapping[str, Tensor]) -> None:
    if payload is None:
        return
    for name, expected in needed.items():
        entry = payload.entries.get(name)
        found = (entry.dtype, entry.shape) if entry is not None else None
        if found != expected:
            raise PayloadError(f"{name}: expected {expected} beside the encoded tensor, found {found}")
