"""Configuration of a run: what the consortium lead writes and ``fl-server`` executes."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from mammofed_shared.config.base import Settings, Slug
from mammofed_shared.config.preprocessing import PreprocessingSettings
from mammofed_shared.config.schedule import ScheduleSettings
from mammofed_shared.config.tasks import TASKS, Model, TaskSettings
from mammofed_shared.config.transfer import CheckpointSettings, TransferSettings


class EvaluationSettings(Settings):
    """When and where the joint model is evaluated. Each site evaluates at home; only numbers travel."""

    when: Literal["visit", "end", "never"] = "visit"
    """`visit`: before the first and after each visit (or FedAvg round); `end`: after the last one only."""
    sites: tuple[Slug, ...] = ()
    """Sites that evaluate. Empty: all sites of the run."""


class ServerSettings(Settings):
    """Where the coordinator listens and keeps its state."""

    listen: str = "0.0.0.0:9443"
    """Address and port; sites connect to it, it never connects to them."""
    folder: Path
    """Everything of this run: spool, checkpoints, status, tracking."""
    identity: Path
    """Folder with the server's certificate, key and the consortium's root, made by `fl-server ca init`."""
    spool_quota_gb: Annotated[float, Field(gt=0)] | None = None
    """Disk that updates on their way may take, in GB (10⁹ bytes); it must hold those of one turn. A site whose update
    would go beyond waits. Empty: what the disk has."""


class TrackingSettings(Settings):
    """MLflow, written from released numbers only."""

    enabled: bool = True
    mlflow: str = ""
    """Tracking URI, e.g. `sqlite:///runs/demo/mlflow.db`. Empty: a sqlite file in the run's folder."""
    experiment: str = "mammofed"


class RunSettings(Settings):
    """One run of the federation."""

    run: Slug
    """Name of the run; part of every task's id."""
    consortium: Slug
    """Trust domain of the certificates: `spiffe://<consortium>/site/<name>`."""
    seed: int = Field(0, ge=0, le=2**31 - 1)
    sites: tuple[Slug, ...] = Field(min_length=1)
    """All sites of the run."""
    schedule: ScheduleSettings
    on_failure: Literal["skip", "stop"] = "stop"
    """What follows when a site's update is refused or its visit fails: go on without it as far as `quorum` allows, or
    stop the run."""
    on_absence: Literal["wait", "skip", "fallback"] = "wait"
    """What follows when a site whose turn it is falls silent for 100 s, or its steps no longer go on: `wait` for it,
    `skip` its visit as far as `quorum` allows, or give the visit to its substitute (`fallback`)."""
    substitutes: Mapping[Slug, Slug] = {}
    """`fallback` only: for a site that trains, the one that trains in its place, such as `mayo: emory`. A stand-by site
    stands in `sites`, not in `schedule.order`."""
    quorum: Annotated[int, Field(ge=1)] | None = None
    """How many sites a round needs: a visit that would leave it with fewer is waited for, or stops the run. Empty: all
    that train in it. No run is ever finished with fewer."""
    evaluation: EvaluationSettings = EvaluationSettings()
    preprocessing: PreprocessingSettings = PreprocessingSettings()
    transfer: TransferSettings = TransferSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    task: TaskSettings
    text_encoder: Path | None = None
    """Folder with the text encoder's configuration, tokenizer and weights, as each site has it too; or a name at
    huggingface.co such as `answerdotai/ModernBERT-base`, which is fetched once. For tasks that train one."""
    encoder: Path | None = None
    """Folder of the frozen Mammo-FM model, as `fl-server export` writes it and as each site has it too. For tasks that
    stand on one."""
    server: ServerSettings
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _sites_exist(self) -> "RunSettings":
        if len(set(self.sites)) != len(self.sites):
            raise ValueError(f"sites names a site twice: {', '.join(self.sites)}")
        for name in self.evaluation.sites:
            if name not in self.sites:
                raise ValueError(f"evaluation.sites names {name!r}, which is not one of sites: {', '.join(self.sites)}")
        self.schedule.check_sites(self.sites)
        self._check_rounds()
        return self

    @model_validator(mode="after")
    def _models_are_those_of_the_task(self) -> "RunSettings":
        for model in get_args(Model):
            is_needed, is_named = model in TASKS[self.task.name].needs, getattr(self, model) is not None
            if is_needed and not is_named:
                raise ValueError(f"{model}: missing; the task {self.task.name!r} needs its folder")
            if is_named and not is_needed:
                raise ValueError(f"{model}: the task {self.task.name!r} uses none; leave it out")
        return self

    def _check_rounds(self) -> None:
        num_sites = len(set(self.training_sites))
        if self.quorum is None and "skip" in (self.on_failure, self.on_absence):
            raise ValueError(
                f"quorum: say how many of the {num_sites} sites a round needs; otherwise nothing is skipped"
            )
        if self.quorum is not None and self.quorum > num_sites:
            raise ValueError(f"quorum is {self.quorum}, but {num_sites} sites train")
        self.schedule.check_quorum(self.quorum or num_sites)
        if bool(self.substitutes) != (self.on_absence == "fallback"):
            raise ValueError("substitutes and `on_absence: fallback` belong together: give both or neither")
        for site, substitute in self.substitutes.items():
            if site not in self.training_sites or substitute not in self.sites or substitute in self.training_sites:
                raise ValueError(
                    f"substitutes: {site}: {substitute}: the first must be one that trains, the second one of `sites` "
                    "that does not stand in `schedule.order`"
                )

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides the weights: a hospital's policy can name a run by it."""
        # The models' own digests are in each plan.
        decisive = self.model_dump_json(exclude={"server", "tracking", "checkpoints", *get_args(Model)})
        return hashlib.sha256(decisive.encode()).hexdigest()

    @property
    def training_sites(self) -> tuple[str, ...]:
        """Sites in the order in which they train within a round."""
        return self.schedule.training_sites(self.sites)

    @property
    def evaluation_sites(self) -> tuple[str, ...]:
        """Sites that evaluate the joint model."""
        return self.evaluation.sites or self.sites
