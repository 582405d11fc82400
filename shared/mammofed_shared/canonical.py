"""One way to write a record down, so that equal records have equal bytes, digests and signatures.

JSON with sorted keys, no spaces, UTF-8, and numbers as Python's ``repr`` gives them: the shortest that reads back as
the same float. It differs from RFC 8785 in how numbers look alone, and both ends are this code.
"""

import hashlib
import json
from typing import Any


def canonical(value: Any) -> bytes:
    """The canonical JSON of plain data (dictionaries, lists, strings, finite numbers, booleans, None).

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(value: Any) -> str:
    """SHA-256, hexadecimal, of the canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()
