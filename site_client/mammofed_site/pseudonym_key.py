"""The site's pseudonym key: made here, readable by its owner only, never copied into any output."""

import secrets
from pathlib import Path

from mammofed_shared.errors import DataError
from mammofed_shared.files import write_whole

KEY_NAME = "pseudonym.key"
_KEY_BYTES = 32


def load_or_create_key(folder: Path) -> bytes:
    """The 32 bytes of ``<folder>/pseudonym.key``, made at the first call.

    Raises:
        DataError: the file is not 32 bytes long, or others may read it. Without the old key all pseudonyms and splits
            change, so it is never replaced.
    """
    path = folder / KEY_NAME
    if not path.exists():
        write_whole(path, secrets.token_bytes(_KEY_BYTES), mode=0o600)
    if path.stat().st_mode & 0o077:
        raise DataError(f"{KEY_NAME} can be read by others than its owner: run `chmod 600` on it")
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise DataError(f"{KEY_NAME} has {len(key)} bytes instead of {_KEY_BYTES}: restore it from a backup")
    return key
