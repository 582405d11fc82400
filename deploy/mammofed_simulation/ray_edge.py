"""The edge to Flower's simulation engine: payload file → ``ArrayRecord`` → the same file, and the sites behind it.

Everywhere else a message carries the path of a file. Here it cannot: the process that plays a site (an actor of Ray)
may be on another machine than the coordinator. So weights cross as Flower's ``ArrayRecord``, and on either side a
file is made of it that must have the digest which the plan or the update names: no bit can get lost unnoticed.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import PayloadError, RefusalCode
from mammofed_shared.protocol.flower import become_flower_task, plan_message, plan_of, refusal_reply, update_of
from mammofed_shared.protocol.payload import Payload, PayloadWriter
from mammofed_shared.protocol.plan import PayloadReference, Update
from mammofed_site.app import SITE_KEY
from mammofed_site.app import app as site_app
from mammofed_site.visit import visit_folder

TENSORS = "tensors"
"""Name of the ``ArrayRecord`` in a message that brings weights."""
PARTITION_KEY = "partition-id"
"""Key of Flower's node configuration that numbers the engine's nodes from 0."""
NAME_QUERY = "name"
"""Flower's action for the query that a node answers with its site's name; every other query is a plan."""

_FLOWER_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "U8": "uint8",
}
_PAYLOAD_NAMES = {flower: ours for ours, flower in _FLOWER_NAMES.items()}


# ── weights ─────────────────────────────────────────────────────────────────────────────────────────────────────


def to_arrays(path: Path) -> ArrayRecord:
    """The tensors of a payload file, by name and in the file's order; bfloat16 as its 16-bit patterns.

    Raises:
        PayloadError: the file is not a payload.
    """
    record = ArrayRecord()
    with Payload(path) as payload:
        for name, entry in payload.entries.items():
            bits = Array(payload[name])
            record[name] = Array(_FLOWER_NAMES[entry.dtype], entry.shape, bits.stype, bits.data)
    return record


def to_file(record: ArrayRecord, path: Path, expected: PayloadReference) -> None:
    """Write the payload file that ``to_arrays`` read.

    Raises:
        PayloadError: MALFORMED_PAYLOAD, an array is not what its own description says; DIGEST_MISMATCH, the file would
            not be the one that ``expected`` names. There is no file then.
    """
    with PayloadWriter(path, _header(record)) as writer:
        for name, array in record.items():
            writer.write(_bits(name, array))
    if writer.reference != expected:
        path.unlink()
        raise PayloadError(
            f"expected weights with SHA-256 {expected.digest}, those that came have {writer.reference.digest}",
            RefusalCode.DIGEST_MISMATCH,
        )


def _header(record: ArrayRecord) -> dict[str, Any]:
    header: dict[str, Any] = {"__metadata__": {"numbers": "{}"}}  # states and updates hold tensors only
    offset = 0
    for name, array in record.items():
        if array.dtype not in _PAYLOAD_NAMES:
            raise PayloadError(f"{name}: dtype {array.dtype} cannot be in a payload")
        end = offset + math.prod(array.shape) * _dtype_of_bits(array).itemsize
        header[name] = {
            "dtype": _PAYLOAD_NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    return header


def _bits(name: str, array: Array) -> NDArray[Any]:
    try:
        bits = array.numpy()
    except (ValueError, TypeError, EOFError) as error:
        raise PayloadError(f"{name}: no array can be read from what came: {error}") from error
    expected, found = (_dtype_of_bits(array), tuple(array.shape)), (bits.dtype, bits.shape)
    if expected != found:
        raise PayloadError(f"{name}: expected {expected}, found {found}")
    return bits


def _dtype_of_bits(array: Array) -> np.dtype[Any]:
    return np.dtype("uint16" if array.dtype == "bfloat16" else array.dtype)


# ── messages ────────────────────────────────────────────────────────────────────────────────────────────────────


def edge_app(sites: Sequence[SiteSettings]) -> ClientApp:
    """A ClientApp for the engine's nodes: node i is ``sites[i]`` and says its name when asked for it."""
    behind = tuple(sites)
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return visit_site(behind, message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return visit_site(behind, message, context)

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return visit_site(behind, message, context)

    @app.query(NAME_QUERY)
    def name(message: Message, context: Context) -> Message:
        return Message(RecordDict({"site": ConfigRecord({"name": _site(behind, context).site})}), reply_to=message)

    return app


def visit_site(sites: Sequence[SiteSettings], message: Message, context: Context) -> Message:
    """Call the site's own ClientApp: weights in its folder before, the update's weights in the reply after."""
    site = _site(sites, context)
    plan, _ = plan_of(message)  # the path is the coordinator's and means nothing here
    state = visit_folder(site, plan.task_id) / "state.safetensors" if plan.state is not None else None
    own_context = Context(
        run_id=context.run_id,
        node_id=context.node_id,
        node_config={**context.node_config, SITE_KEY: site.model_dump_json()},
        state=context.state,
        run_config=context.run_config,
    )
    become_flower_task()  # the engine does it in the coordinator's process only
    try:
        if plan.state is not None and state is not None:
            to_file(_tensors(message), state, plan.state)
        reply = site_app(plan_message(plan, state, context.node_id), own_context)
        return _carried(reply, message)
    except PayloadError as error:
        return refusal_reply(message, error.code)
    finally:
        if state is not None:
            state.unlink(missing_ok=True)  # it comes again with the plan, should the visit be asked for again


def take_in(reply: Message, target: Path) -> tuple[Update, Path | None]:
    """The update in a reply of ``visit_site``, and the file that was made of its weights; None where there are none.

    Raises:
        PayloadError: the weights are missing, malformed, or not those that the update names.
    """
    update, _ = update_of(reply)  # the path is the site's and means nothing here
    if update.payload is None:
        return update, None
    to_file(_tensors(reply), target, update.payload)
    return update, target


def _site(sites: Sequence[SiteSettings], context: Context) -> SiteSettings:
    return sites[int(context.node_config[PARTITION_KEY])]


def _carried(reply: Message, message: Message) -> Message:
    """A site's reply as the reply to the engine's message, with the weights in it."""
    if reply.has_error():
        return Message(reply.error, reply_to=message)
    _, path = update_of(reply)
    content = reply.content
    if path is not None:
        content[TENSORS] = to_arrays(path)
    return Message(content, reply_to=message)


def _tensors(message: Message) -> ArrayRecord:
    if TENSORS not in message.content.array_records:
        raise PayloadError(f"a message that brings weights has an ArrayRecord named {TENSORS!r}, this one has none")
    return message.content.array_records[TENSORS]
