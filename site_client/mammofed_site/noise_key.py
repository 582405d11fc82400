"""The key that a site's noise on updates is drawn from: made here, readable by its owner only, never shown or sent."""

import secrets
from pathlib import Path

from mammofed_shared.errors import RefusalCode, Refused
from mammofed_shared.files import write_whole
from mammofed_shared.noise import KEY_BYTES

KEY_FILE = "noise.key"


def noise_key(folder: Path) -> bytes:
    """The 32 bytes of ``<folder>/noise.key``, made at the first call. A lost one is made anew: what was released then
    counts as released anew, because another draw of its noise is another release.

    Raises:
        Refused: POLICY, it is not 32 bytes long, or others may read it.
    """
    path = folder / KEY_FILE
    if not path.exists():
        write_whole(path, secrets.token_bytes(KEY_BYTES), mode=0o600)
    key = path.read_bytes()
    if len(key) != KEY_BYTES or path.stat().st_mode & 0o077:
        raise Refused(
            RefusalCode.POLICY,
            f"{KEY_FILE}: expected {KEY_BYTES} bytes that only their owner may read, found {len(key)} bytes, mode "
            f"{path.stat().st_mode & 0o777:o}: bring it back from a backup, or run `chmod 600` on it",
        )
    return key
