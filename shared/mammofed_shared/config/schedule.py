"""Who trains when, and how the updates of a turn become the next state: the key ``schedule`` of a run.

The simple form is one phase: its keys stand in ``schedule`` itself. A hybrid schedule lists ``phases`` instead.
"""

import itertools
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from mammofed_shared.config.base import Settings, Slug
from mammofed_shared.config.strategy import (
    FedAvgSettings,
    FedProxSettings,
    ScaffoldSettings,
    StrategySettings,
    TrimmedMeanSettings,
)

Epochs = Annotated[int, Field(ge=1, le=1000)]
OrderWord = Literal["seeded", "by-size"]


def _list_or_word(order: object) -> object:
    if isinstance(order, str) and order not in ("seeded", "by-size"):
        raise ValueError("expected a list of sites, `seeded` or `by-size`")
    return order


Order = Annotated[tuple[Slug, ...] | OrderWord, BeforeValidator(_list_or_word)]


class PhaseSettings(Settings):
    """Rounds that all go the same way."""

    kind: Literal["alternating", "fedavg"] = "alternating"
    """`alternating`: one site after the other, the paper's schedule; `fedavg`: all sites at once, then one state of
    their updates, as `strategy` says."""
    rounds: int | None = Field(None, ge=1, le=100_000)
    """In a round every scheduled site trains once. May be left out in the last phase, which has the rest."""
    order: Order = ()
    """Sites that train, in this order; a site may stand in it twice (`alternating` only). Empty: all sites of the run,
    as listed. `seeded`: all, each round in another order, drawn from the run's seed. `by-size`: all, those that told
    the most exams before the first turn first."""
    epochs: Epochs | tuple[Epochs, ...] = 1
    """Local epochs of one visit; a list gives each entry of `order` its own (`alternating` only)."""
    weighting: Literal["exams", "equal"] = "exams"
    """Weight of a site's update in `fedavg`."""
    strategy: StrategySettings = FedAvgSettings()
    """How the updates of a round become the next state (`fedavg` only)."""

    @model_validator(mode="after")
    def _every_option_has_an_effect(self) -> "PhaseSettings":
        if self.kind == "alternating":
            if self.strategy != FedAvgSettings():
                raise ValueError(
                    f"strategy {self.strategy.name} needs kind: fedavg. In alternating epochs a site's update is the "
                    "next state as it is: there is no mean, and nothing to clip or to step from"
                )
            if isinstance(self.epochs, tuple) and isinstance(self.order, str):
                raise ValueError(f"epochs is a list, which belongs to a listed order, not to {self.order}")
            return self
        if isinstance(self.epochs, tuple):
            raise ValueError("epochs must be one number for fedavg: all sites train equally long")
        if isinstance(self.order, str):
            raise ValueError(f"order: {self.order} has no effect in fedavg: all sites train at once")
        if len(set(self.order)) != len(self.order):
            raise ValueError("order names a site twice, which fedavg cannot run at the same time")
        if isinstance(self.strategy, ScaffoldSettings | TrimmedMeanSettings) and self.weighting != "equal":
            raise ValueError(f"strategy {self.strategy.name} counts all sites alike: write weighting: equal")
        return self

    def visits(self, sites: tuple[str, ...], members: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        """Site and local epochs of each visit of a round, as listed; an order that changes is not applied here.

        Args:
            sites: all sites that the run began with.
            members: those that are in the run in this round; one that has joined since comes after the listed ones.
        """
        listed = self.order if isinstance(self.order, tuple) and self.order else sites
        each = self.epochs if isinstance(self.epochs, tuple) else (self.epochs,) * len(listed)
        joined = tuple((site, each[-1]) for site in members if site not in sites)
        return tuple(item for item in zip(listed, each, strict=True) if item[0] in members) + joined

    @property
    def proximal_mu(self) -> float:
        """Weight of FedProx's term; 0: none."""
        return self.strategy.mu if isinstance(self.strategy, FedProxSettings) else 0.0

    @property
    def has_controls(self) -> bool:
        """Whether the visits use SCAFFOLD's control variates."""
        return isinstance(self.strategy, ScaffoldSettings)


class ScheduleSettings(PhaseSettings):
    """Who trains when: one phase, or several one after the other."""

    rounds: int = Field(ge=1, le=100_000)
    """In a round every scheduled site trains once. With `phases`: of all phases together."""
    phases: tuple[PhaseSettings, ...] = ()
    """A hybrid schedule, such as ten rounds of `alternating` and then `fedavg`. Only `rounds` and `order` may stand
    beside it; an `order` holds for the phases that name none."""

    @model_validator(mode="after")
    def _phases_fill_the_rounds(self) -> "ScheduleSettings":
        if not self.phases:
            return self
        for name in ("kind", "epochs", "weighting", "strategy"):
            if getattr(self, name) != PhaseSettings.model_fields[name].default:
                raise ValueError(f"{name} has no effect beside phases: write it in each phase")
        *others, last = (phase.rounds for phase in self.phases)
        if None in others:
            raise ValueError("phases: only the last phase may leave out its rounds")
        told = sum(rounds or 0 for rounds in (*others, last))
        if told > self.rounds or (told == self.rounds) != (last is not None):
            raise ValueError(
                f"phases: {told} rounds stand in the phases, rounds is {self.rounds}"
                + (", which leaves none for the last phase" if last is None else "")
            )
        if len(self.phases) > 1 and any(phase.has_controls for phase in self.phases):
            raise ValueError(
                "phases: scaffold cannot be one of several phases: its control variates belong to all visits of a run"
            )
        if isinstance(self.order, str) and all(phase.kind == "fedavg" for phase in self.phases):
            raise ValueError(f"order: {self.order} has no effect where no phase is alternating")
        return self

    @property
    def each_phase(self) -> tuple[PhaseSettings, ...]:
        """The phases in their order, each with its rounds and its order; one in the simple form."""
        if not self.phases:
            return (_as_phase(self, self.rounds, self.order),)
        rest = self.rounds - sum(phase.rounds or 0 for phase in self.phases)
        return tuple(
            _as_phase(phase, phase.rounds or rest, phase.order or _fitting(self.order, phase)) for phase in self.phases
        )

    @property
    def in_words(self) -> str:
        """The phases, such as `10 × alternating, then 20 × fedadam`."""
        names = ("alternating" if phase.kind == "alternating" else phase.strategy.name for phase in self.each_phase)
        return ", then ".join(f"{phase.rounds} × {name}" for phase, name in zip(self.each_phase, names, strict=True))

    def check_quorum(self, quorum: int) -> None:
        """Refuse so small a quorum that a round could count whose trimmed mean leaves out nobody.

        Raises:
            ValueError: with the strategy and the quorum.
        """
        for phase in self.each_phase:
            strategy = phase.strategy
            if isinstance(strategy, TrimmedMeanSettings) and not strategy.num_trimmed(quorum):
                raise ValueError(
                    f"quorum is {quorum}, of which strategy trimmed-mean with trim {strategy.trim:g} leaves out none"
                )

    def training_sites(self, sites: tuple[str, ...]) -> tuple[str, ...]:
        """The sites that train, in the order of a round; of several phases, each site once."""
        each = [tuple(site for site, _ in phase.visits(sites, sites)) for phase in self.each_phase]
        return each[0] if len(each) == 1 else tuple(dict.fromkeys(itertools.chain(*each)))

    def check_sites(self, sites: tuple[str, ...]) -> None:
        """Refuse what cannot be with these sites of the run.

        Raises:
            ValueError: an order names another site, or a phase has too few sites, or numbers of epochs that do not
                fit its visits.
        """
        for phase in (self, *self.phases):
            for name in phase.order if isinstance(phase.order, tuple) else ():
                if name not in sites:
                    raise ValueError(f"schedule.order names {name!r}, which is not one of sites: {', '.join(sites)}")
        for phase in self.each_phase:
            num_visits = len(phase.order) if isinstance(phase.order, tuple) and phase.order else len(sites)
            if isinstance(phase.epochs, tuple) and len(phase.epochs) != num_visits:
                raise ValueError(f"schedule.epochs lists {len(phase.epochs)} numbers for {num_visits} visits a round")
            if isinstance(phase.strategy, TrimmedMeanSettings):
                phase.strategy.check_num_sites(num_visits)


def _as_phase(phase: PhaseSettings, rounds: int, order: tuple[str, ...] | OrderWord) -> PhaseSettings:
    values = {name: getattr(phase, name) for name in PhaseSettings.model_fields}
    return PhaseSettings.model_validate({**values, "rounds": rounds, "order": order})


def _fitting(order: tuple[str, ...] | OrderWord, phase: PhaseSettings) -> tuple[str, ...] | OrderWord:
    """The schedule's order for a phase that names none, as far as it says something of sites that train at once."""
    if phase.kind == "alternating":
        return order
    return () if isinstance(order, str) else tuple(dict.fromkeys(order))
