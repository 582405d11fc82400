"""What a site says of its contribution, signed with the key of its certificate, and what the coordinator makes of it.

A statement binds what was asked (configuration, state, the coordinator's ledger as the site saw it) to what was done
(code, data, exams, filters) and to what left (digests of the update and of its numbers). It holds no number that the
update's numbers do not hold, and no word.
"""

import base64
import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, ValidationError

from mammofed_shared.canonical import canonical, digest_of
from mammofed_shared.config.base import Digest, Settings
from mammofed_shared.errors import ProtocolError
from mammofed_shared.protocol import federation_pb2 as pb

FIRST_VERSION = 3
"""Of the protocol with statements; sites of earlier ones contribute unsigned."""
NUM_EXAMS = "num_exams"
"""The number of a visit that tells its exams, in every task."""
MAX_FILTERS = 16

FilterKind = Literal["clipped", "gaussian-noise", "dp-sgd", "encoded-bf16", "encoded-delta"]
_KIND_TO_WIRE: Mapping[FilterKind, "pb.FilterKind"] = MappingProxyType(
    {
        "clipped": pb.CLIPPED,
        "gaussian-noise": pb.GAUSSIAN_NOISE,
        "dp-sgd": pb.DP_SGD,
        "encoded-bf16": pb.ENCODED_BF16,
        "encoded-delta": pb.ENCODED_DELTA,
    }
)
_KIND_FROM_WIRE = {wire: kind for kind, wire in _KIND_TO_WIRE.items()}

Base64 = str


class Filter(Settings):
    """What was done to an update before it left, with its one number.

    ``clipped``: the largest norm that is left; ``gaussian-noise``, ``dp-sgd``: the noise multiplier; encodings: 0.
    """

    kind: FilterKind
    value: float = Field(0.0, ge=0, allow_inf_nan=False)


ENCODING_FILTERS: Mapping[str, FilterKind] = MappingProxyType({"bf16": "encoded-bf16", "delta": "encoded-delta"})
"""The filter that each encoding of ``Plan.upload`` is, besides fp32, which is none."""


class Statement(Settings):
    """A site's word on one contribution."""

    task_id: str
    previous: Digest | None
    """Digest of the site's statement before this one, of whichever run; None: the first."""
    configuration: Digest
    """Of the run's settings, as the plan said it."""
    code: Digest
    """Of the source that the site ran (``revision.source_digest``)."""
    data: Digest
    """Of the prepared tables that were used."""
    num_exams: int = Field(ge=0, lt=2**32)
    """As the visit's numbers tell them; 0 where they do not."""
    state: Digest | None
    """Of the state that the visit started from; a query has none."""
    update: Digest | None
    """Of the payload that left; None where numbers alone leave."""
    metrics: Digest
    """Of the numbers that left."""
    filters: tuple[Filter, ...] = Field((), max_length=MAX_FILTERS)
    ledger_head: Digest | None
    """Of the line of the coordinator's ledger that the plan named."""

    @property
    def text(self) -> bytes:
        """What is signed."""
        return canonical(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """SHA-256 of what is signed: the statement's name in both ledgers."""
        return hashlib.sha256(self.text).hexdigest()


class Signed(Settings):
    """A statement and its site's signature, in base64."""

    statement: Statement
    signature: Base64
    certificate: Digest
    """Of the site's certificate."""


class Countersigned(Signed):
    """A statement that the coordinator has checked and taken in."""

    taken: str
    """When, by the coordinator's clock: at this moment the site's certificate was valid."""
    receipt: Base64
    """The coordinator's signature over the statement's digest; the site has it, too."""
    receipt_certificate: Digest


def metrics_digest(metrics: Mapping[str, float]) -> str:
    """Digest of released numbers."""
    return digest_of({name: float(value) for name, value in metrics.items()})


def num_exams_of(metrics: Mapping[str, float]) -> int:
    """The exams of a visit, as its released numbers tell them."""
    return int(metrics.get(NUM_EXAMS, 0))


def statement_to_wire(signed: Signed) -> pb.Statement:
    """The protobuf form; the task stands in the header beside it."""
    said = signed.statement
    return pb.Statement(
        previous=said.previous or "",
        configuration=said.configuration,
        code=said.code,
        data=said.data,
        num_exams=said.num_exams,
        state=said.state or "",
        update=said.update or "",
        metrics=said.metrics,
        filters=[pb.Filter(kind=_KIND_TO_WIRE[item.kind], value=item.value) for item in said.filters],
        ledger_head=said.ledger_head or "",
        signature=base64.b64decode(signed.signature),
    )


def statement_from_wire(task_id: str, wire: Any) -> tuple[Statement, Base64]:
    """The statement in a message, validated but not believed, and its signature.

    Raises:
        ProtocolError: a field is not what ``Statement`` allows.
    """
    try:
        said = Statement(
            task_id=task_id,
            previous=wire.previous or None,
            configuration=wire.configuration,
            code=wire.code,
            data=wire.data,
            num_exams=wire.num_exams,
            state=wire.state or None,
            update=wire.update or None,
            metrics=wire.metrics,
            filters=tuple(Filter(kind=_KIND_FROM_WIRE[item.kind], value=item.value) for item in wire.filters),
            ledger_head=wire.ledger_head or None,
        )
    except (ValidationError, KeyError) as error:
        raise ProtocolError("a statement is not what the protocol allows") from error
    return said, base64.b64encode(wire.signature).decode("ascii")
