"""The policy that is in force now: the site's YAML, or a file of its own that is read again at every decision."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

from mammofed_shared.config.loading import load
from mammofed_shared.config.policy import PolicySettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import ConfigurationError, RefusalCode, Refused

_ATTEMPTS = 5
_AGAIN_AFTER_S = 0.2
"""An editor may be writing the file at this very moment."""


@dataclass(frozen=True, slots=True)
class InForce:
    """A site's settings with the policy in its place, and the SHA-256 by which the audit record names that policy."""

    settings: SiteSettings
    digest: str

    @property
    def policy(self) -> PolicySettings:
        """The rules."""
        return self.settings.policy


def policy_in_force(settings: SiteSettings) -> InForce:
    """The policy as it is now.

    Raises:
        Refused: POLICY, the file is missing, unreadable or wrong; until it is mended everything is refused.
    """
    path = settings.policy.file
    if path is None:
        return InForce(settings, hashlib.sha256(settings.policy.model_dump_json().encode()).hexdigest())
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            policy, digest = read_policy(path)
        except ConfigurationError as error:
            if attempt == _ATTEMPTS:
                raise Refused(
                    RefusalCode.POLICY,
                    f"the policy cannot be read, so everything is refused until it is mended or brought back: {error}",
                ) from error
            time.sleep(_AGAIN_AFTER_S)
        else:
            return InForce(settings.model_copy(update={"policy": policy}), digest)
    raise AssertionError("the last attempt raises")


def read_policy(path: Path) -> tuple[PolicySettings, str]:
    """A policy file's rules, and the SHA-256 of its bytes.

    Raises:
        ConfigurationError: it is missing, unreadable or wrong; the message says which key, and what would be right.
    """
    try:
        before = path.read_bytes()
        policy = load(path, PolicySettings)
        after = path.read_bytes()
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigurationError(f"{path}: cannot be read: {what}. `policy` in the site's YAML names it.") from error
    if before != after:
        raise ConfigurationError(f"{path}: is being written at this moment")
    if policy.file is not None:
        raise ConfigurationError(f"{path}: file: a policy file names no other; write the rules here")
    return policy, hashlib.sha256(after).hexdigest()
