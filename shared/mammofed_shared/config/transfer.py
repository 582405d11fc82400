"""Configuration of what a run sends and keeps: encodings of payloads, states of earlier turns (docs/transfer.md)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mammofed_shared.config.base import Settings


class TransferSettings(Settings):
    """How a model's parameters travel. Buffers and counters are always whole, and so is the coordinator's own state."""

    download: Literal["fp32", "bf16"] = "fp32"
    """The state on its way to a site: whole, or rounded to bfloat16, which is half the bytes. Rounding never adds up:
    each state is rounded anew from the whole one."""
    upload: Literal["fp32", "bf16", "delta"] = "fp32"
    """The update on its way back: whole; rounded to bfloat16, which keeps 8 bits of each weight; or `delta`, the
    rounded difference to the state that was received, which keeps 8 bits of each change. Both are half the bytes, and
    the site adds what rounding dropped to its next update."""


class CheckpointSettings(Settings):
    """Which states of earlier turns stay on the coordinator's disk. Manifests always do."""

    keep_last: Annotated[int, Field(ge=1)] | None = None
    """How many of the newest states are kept. Empty: all."""
    keep_every: Annotated[int, Field(ge=1)] | None = None
    """Besides them the state of each turn that this number divides."""
    keep_updates: bool = False
    """Keep each update with the state that it made, so that `fl-server verify` can compute a mean again."""

    @model_validator(mode="after")
    def _every_option_has_an_effect(self) -> "CheckpointSettings":
        if self.keep_every is not None and self.keep_last is None:
            raise ValueError("keep_every has no effect without keep_last: all states are kept")
        return self
