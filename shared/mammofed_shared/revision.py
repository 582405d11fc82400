"""Which code this is: the version, and a digest of every source file of the packages that are installed here."""

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@cache
def software_version() -> str:
    """The version as `pip` knows it; `0` where mammofed runs from a source tree that was never installed."""
    try:
        return version("mammofed")
    except PackageNotFoundError:
        return "0"


@cache
def source_digest() -> str:
    """SHA-256: equal on two machines exactly when they run the same source of ``mammofed_shared``."""
    root = Path(__file__).parent
    sha = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        sha.update(f"{path.relative_to(root)}\0".encode())
        sha.update(path.read_bytes())
    return sha.hexdigest()


@cache
def code_revision() -> str:
    """`0.1.0+<12 hex digits>`: the version, and the beginning of ``source_digest``."""
    return f"{software_version()}+{source_digest()[:12]}"
