"""Moments as the ledgers write them down."""

from datetime import UTC, datetime

_FORM = "%Y-%m-%dT%H:%M:%SZ"


def utc_now() -> str:
    """This moment by this machine's clock, to the second: `2026-03-01T12:00:00Z`."""
    return datetime.now(UTC).strftime(_FORM)


def moment_of(text: str) -> datetime:
    """The moment that ``utc_now`` wrote.

    Raises:
        ValueError: it is not of that form.
    """
    return datetime.strptime(text, _FORM).replace(tzinfo=UTC)
