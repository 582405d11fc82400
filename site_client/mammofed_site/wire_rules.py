"""All that a site may say, field by field: the allow-list of the gate, and of the table in docs/security.md.

A field that has no rule cannot leave; ``tests/site_client/test_gate.py`` asks for one for each field of the protocol.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from mammofed_shared.errors import RefusalCode
from mammofed_shared.pki.keys import MAX_REQUEST_BYTES, is_bare_request
from mammofed_shared.protocol import federation_pb2 as pb
from mammofed_shared.protocol.plan import TASK_ID
from mammofed_shared.protocol.statement import MAX_FILTERS
from mammofed_shared.protocol.wire import CHUNK_BYTES, LONG_POLL_S, PROTOCOL_VERSION, SOFTWARE_CONTRACT

MOST_NUMBERS = 50_000
"""Named numbers of one answer. Histograms of 100,000 exams with bins of ten take 20,000 for two findings."""
MOST_EPOCHS, MOST_STEPS = 10**5, 10**8
SIGNIFICANT_DIGITS = 4
"""Of the loss and the speed that a visit under way tells once a second."""
_NUMBER_NAME = re.compile(r"[a-z0-9_-]{1,64}(?:/[a-z0-9_-]{1,64}){0,3}")
_TASK = re.compile(TASK_ID)


@dataclass(frozen=True, slots=True)
class Rule:
    """What one field may hold: in words, with its bound, and as a test."""

    says: str
    bound: str
    allows: Callable[[Any], bool]
    message: str = ""
    """Name of the message type that it holds, if any: its own rules follow."""
    most: int = 1
    """How many of them."""


def _number(says: str, most: int, least: int = 0) -> Rule:
    return Rule(says, f"{least:,} to {most:,}", lambda value: least <= value <= most)


def _rounded(says: str) -> Rule:
    def allows(value: float) -> bool:
        return math.isfinite(value) and value == round_for_wire(value)

    return Rule(says, f"finite, {SIGNIFICANT_DIGITS} significant digits", allows)


def _word(says: str, pattern: str, bound: str) -> Rule:
    compiled = re.compile(pattern)
    return Rule(says, bound, lambda value: compiled.fullmatch(value) is not None)


def _one_of(says: str, words: tuple[str, ...]) -> Rule:
    numbers = {getattr(pb, word) for word in words}
    return Rule(says, f"one of: {', '.join(word.lower() for word in words)}", lambda value: value in numbers)


def _holds(message: str, says: str, most: int = 1) -> Rule:
    return Rule(says, "once" if most == 1 else f"at most {most}", lambda _: True, message, most)


def round_for_wire(value: float) -> float:
    """A number as a visit under way may tell it: a few digits are enough to see whether it goes well."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else 0.0


def _is_signature(value: bytes) -> bool:
    try:
        decode_dss_signature(value)
    except ValueError:
        return False
    return len(value) <= 72


def _are_numbers(value: Mapping[str, float]) -> bool:
    return len(value) <= MOST_NUMBERS and all(
        _NUMBER_NAME.fullmatch(name) is not None and math.isfinite(number) for name, number in value.items()
    )


def task_of(site: str) -> Callable[[str], bool]:
    """Whether a text is the id of a task of this site."""
    return lambda value: _TASK.fullmatch(value) is not None and value.split("/")[3] == site


_DIGEST = r"[0-9a-f]{64}"


def rules_of(site: str) -> dict[str, dict[str, Rule]]:
    """Message type → field → what a site of this name may put there."""
    is_own = task_of(site)
    task = Rule("the task in hand", "run/round/visit/own name/kind", is_own)
    task_or_none = Rule("the task in hand, or nothing", "run/round/visit/own name/kind", lambda v: not v or is_own(v))
    digest = _word("a SHA-256", _DIGEST, "64 hexadecimal digits")
    digest_or_none = _word("a SHA-256, or nothing", f"(?:{_DIGEST})?", "64 hexadecimal digits")
    codes = {code.value for code in RefusalCode}
    return {
        "HelloRequest": {
            "protocol_version": Rule("its version", str(PROTOCOL_VERSION), lambda value: value == PROTOCOL_VERSION),
            "software_contract": Rule("its version", SOFTWARE_CONTRACT, lambda value: value == SOFTWARE_CONTRACT),
            "site": Rule("its own name, as in its certificate", "that one word", lambda value: value == site),
            "num_training_exams": _number("exams", 10**8),
            "num_test_exams": _number("exams", 10**8),
            "data": digest_or_none,
            "code": digest_or_none,
        },
        "PollRequest": {
            "state": _one_of(
                "what it does",
                ("READY", "FETCHING", "TRAINING", "EVALUATING", "SUBMITTING", "COUNTING", "OUT_OF_HOURS", "VETOED"),
            ),
            "task_id": task_or_none,
            "epoch": _number("how far", MOST_EPOCHS),
            "step": _number("how far", MOST_STEPS),
            "num_steps": _number("how far", MOST_STEPS),
            "loss": _rounded("of the last step"),
            "samples_per_s": _rounded("speed"),
            "wait_s": _number("how long the coordinator may wait", LONG_POLL_S),
            "steps_per_s": _rounded("speed"),
            "protocol_version": _number("as in Hello", PROTOCOL_VERSION),
        },
        "FetchRequest": {"task_id": task, "offset": _number("bytes that are here", 2**40)},
        "OffsetRequest": {"task_id": task},
        "SubmitPart": {
            "header": _holds("SubmitHeader", "what follows"),
            "data": Rule(
                "the next bytes of the released file, compared with it", f"{CHUNK_BYTES:,} bytes", lambda _: False
            ),
        },
        "SubmitHeader": {
            "task_id": task,
            "payload": _holds("Payload", "the released file"),
            "metrics": Rule("the released numbers, and no other", f"at most {MOST_NUMBERS:,}, finite", _are_numbers),
            "offset": _number("bytes that the coordinator holds", 2**40),
            "statement": _holds("Statement", "what it says of its contribution, signed"),
        },
        "Payload": {
            "digest": _word("SHA-256 of the released file", _DIGEST, "64 hexadecimal digits"),
            "size": _number("its bytes", 2**40),
        },
        "Statement": {
            **dict.fromkeys(("previous", "state", "update", "ledger_head"), digest_or_none),
            **dict.fromkeys(("configuration", "code", "data", "metrics"), digest),
            "num_exams": _number("exams that were trained", 10**8),
            "filters": _holds("Filter", "what the update went through", MAX_FILTERS),
            "signature": Rule("its key's, over all this", "ECDSA in DER, at most 72 bytes", _is_signature),
        },
        "Filter": {
            "kind": _one_of("what was done", ("CLIPPED", "GAUSSIAN_NOISE", "DP_SGD", "ENCODED_BF16", "ENCODED_DELTA")),
            "value": Rule("its one number", "finite", math.isfinite),
        },
        "FailRequest": {
            "task_id": task,
            "refusal_code": Rule("why not", f"{len(codes)} codes of errors.RefusalCode", lambda value: value in codes),
        },
        "RenewRequest": {
            "certificate_request": Rule(
                "its next key, in a request that names nothing else",
                f"PEM, at most {MAX_REQUEST_BYTES:,} bytes",
                is_bare_request,
            )
        },
    }
