"""A hospital's own rules on what it takes part in and what leaves it (docs/operate/policy.md)."""

from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from mammofed_shared.config.base import Digest, Settings, Slug
from mammofed_shared.config.hours import read_window
from mammofed_shared.config.privacy import PrivacySettings
from mammofed_shared.config.tasks import TASKS


def _known_task(name: str) -> str:
    if name not in TASKS:
        raise ValueError(f"tasks: {name!r} is no task; there are {', '.join(TASKS)}")
    return name


def _window(text: str) -> str:
    read_window(text)
    return text


def _time_zone(name: str) -> str:
    try:
        if name:
            ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("time_zone: unknown here; write one such as Europe/Rome, or leave it out") from error
    return name


Pattern: TypeAlias = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9._/*?#\[\]!-]+$")]
"""A name in which ``*`` stands for anything, ``?`` for one character."""


class PolicySettings(Settings):
    """What this site takes part in and lets out; the coordinator cannot loosen it. A rule that is left out allows all.

    A text in its place is the path of a YAML file that holds it.
    """

    file: Path | None = None
    """YAML file with the whole policy, which may belong to somebody else in the hospital. It is read again at every
    decision. Nothing else stands beside it."""
    tasks: Annotated[tuple[Annotated[str, AfterValidator(_known_task)], ...] | None, Field(min_length=1)] = None
    """Tasks that may be trained and evaluated here, such as `pretrain`."""
    runs: Annotated[tuple[Slug, ...] | None, Field(min_length=1)] = None
    """Names of the runs that this site takes part in."""
    configurations: Annotated[tuple[Digest, ...] | None, Field(min_length=1)] = None
    """Digests of the runs' settings, as `fl-server` prints them: whatever the lead changes makes another digest. Where
    `runs` stands there too, both must fit."""
    hours: Annotated[tuple[Annotated[str, AfterValidator(_window)], ...] | None, Field(min_length=1)] = None
    """When anything may run here or leave, such as `mon-fri 20:00-06:00`, by the clock of `time_zone`."""
    time_zone: Annotated[str, AfterValidator(_time_zone)] = ""
    """Such as `Europe/Rome`. Empty: the machine's."""
    max_rounds: Annotated[int, Field(ge=1)] | None = None
    """Last round in which this site takes part, by the number that the coordinator tells."""
    max_visits: Annotated[int, Field(ge=1)] | None = None
    """Most updates that leave for one run, by this site's own count."""
    smallest_cohort: int = Field(1, ge=1)
    """Fewest sites whose updates are folded together. At 2 or more this site trains in no alternating schedule, where
    its update becomes the next state as it is. The coordinator tells the number; this site cannot see the others."""
    tensors: Annotated[tuple[Pattern, ...] | None, Field(min_length=1)] = None
    """Patterns of the names of tensors that may leave, such as `image_encoder.*`. A visit that would bring others is
    refused before it trains."""
    largest_update_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Largest L2 norm of the difference between what leaves and what came, over all weights that are trained (running
    statistics and counters are not). This is no protection of privacy."""
    metrics: Annotated[tuple[Pattern, ...] | None, Field(min_length=1)] = None
    """Patterns of the names of numbers that may leave, such as `loss` or `auroc/*`. Others are left out. The number
    by which updates are weighed, `num_exams`, must be among them."""
    least_cell: int = Field(10, ge=2, le=1000)
    """What fewer patients than this stand behind is not told: cells of the counts before the first turn
    (docs/operate/quality.md), and figures and histogram bins of evaluations (docs/evaluation.md)."""
    privacy: PrivacySettings = PrivacySettings()
    """Clipping and noise on what is trained here, and the budget (docs/privacy.md)."""

    @model_validator(mode="before")
    @classmethod
    def _a_text_is_a_path(cls, value: Any) -> Any:
        return {"file": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _a_file_holds_it_all(self) -> Self:
        beside = sorted(self.model_fields_set - {"file"})
        if self.file is not None and beside and self != PolicySettings(file=self.file):
            raise ValueError(f"policy: the file holds all of it; move {', '.join(beside)} there")
        return self
