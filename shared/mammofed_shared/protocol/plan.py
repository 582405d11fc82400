"""What the coordinator asks of a site, and what the site may answer, as records without torch, gRPC or Flower."""

from typing import Literal

from pydantic import Field, model_validator

from mammofed_shared.config.base import Digest, Settings, Slug
from mammofed_shared.config.tasks import TASKS, TaskSettings
from mammofed_shared.protocol.statement import Countersigned, Filter

TASK_ID = r"^[a-z0-9-]{1,32}/r[0-9]{4,6}/v[0-9]{5,8}/[a-z0-9-]{1,32}/(train|evaluate|query)$"
"""run/round/visit/site/kind; safe as the name of a folder."""


class PayloadReference(Settings):
    """A payload file, by what it holds."""

    digest: Digest
    size: int = Field(ge=0)


Encoding = Literal["fp32", "bf16", "delta"]
"""How a payload's parameters travel: whole, as bfloat16, or as bfloat16 of the difference to the plan's state."""


class Plan(Settings):
    """One visit as the coordinator asks for it, or (``query``) what data the site holds: counts, before the first turn.

    ``task_id`` is deterministic (run/round/visit/site/kind), so that a plan delivered twice is one visit.
    Progress of the run before the visit is ``epochs_before / epochs_total``; learning rates depend on nothing else.
    ``moments_from`` is the task whose optimizer moments the site shall go on from; None: start with fresh ones.
    """

    task_id: str = Field(pattern=TASK_ID)
    run: Slug
    round: int = Field(ge=0)
    visit: int = Field(ge=0)
    site: Slug
    kind: Literal["train", "evaluate", "query"]
    epochs: int = Field(ge=0)
    epochs_before: int = Field(ge=0)
    epochs_total: int = Field(ge=1)
    seed: int = Field(ge=0)
    moments_from: str | None = None
    task: TaskSettings
    preprocessing: Digest
    text_encoder: Digest | None = None
    encoder: Digest | None = None
    """Of the frozen model, where the task stands on one."""
    state: PayloadReference | None
    """What the visit starts from; a query has none."""
    configuration: Digest
    """Of the run's settings, by which a hospital can name a run that it allows."""
    rounds_total: int = Field(ge=1)
    num_sites: int = Field(ge=1)
    """Updates that are folded together with this visit's; 1: the update becomes the next state as it is."""
    proximal_mu: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Weight of FedProx's term (Li et al. 2020, eq. 2); 0: none."""
    control_variates: bool = False
    """Whether the state brings SCAFFOLD's control variates and the update shall bring their change."""
    download: Encoding = "fp32"
    upload: Encoding = "fp32"
    ledger_head: Digest | None = None
    """Of the line of the coordinator's ledger that tells of the state (for a query: that the run began). What stands
    before that line is bound by it, and the plan is the same after a restart."""

    @model_validator(mode="after")
    def _a_visit_has_a_state(self) -> "Plan":
        if (self.state is None) != (self.kind == "query"):
            raise ValueError("state: a visit starts from one, a query has none")
        if self.download == "delta":
            raise ValueError("download: a state is whole or bfloat16, for it is a difference to nothing")
        return self

    @model_validator(mode="after")
    def _names_the_models_of_its_task(self) -> "Plan":
        for model in sorted(TASKS[self.task.name].needs):
            if getattr(self, model) is None:
                raise ValueError(f"{model}: the task {self.task.name!r} needs its digest")
        return self


class Update(Settings):
    """What a visit gives back: tensors in a payload file (only training has any), and released numbers."""

    task_id: str
    payload: PayloadReference | None
    metrics: dict[str, float]
    filters: tuple[Filter, ...] = ()
    """What was done to the tensors before they left, in this order; how they are encoded is in the plan."""
    signed: Countersigned | None = None
    """The site's statement, where the coordinator has taken one in."""
    decoded: PayloadReference | None = None
    """At the coordinator: the whole update that it made of an encoded payload; None: the payload is whole itself."""


class Progress(Settings):
    """How far a visit is; goes into every poll."""

    epoch: int = 0
    step: int = 0
    num_steps: int = 0
    loss: float = 0.0
    samples_per_s: float = 0.0
    steps_per_s: float = 0.0
