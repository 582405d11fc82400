"""``site-client policy``: what is in force here, in words, and whether what was asked last would be allowed."""

from collections.abc import Iterator

from mammofed_shared.config.base import Settings
from mammofed_shared.config.policy import PolicySettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.errors import ConfigurationError, Refused
from mammofed_site.hold import is_open
from mammofed_site.plan_command import last_plan
from mammofed_site.policy import permit
from mammofed_site.policy_file import InForce, policy_in_force
from mammofed_site.veto import Veto, veto_of


def policy_lines(settings: SiteSettings) -> Iterator[str]:
    """The lines that the command prints.

    Raises:
        ConfigurationError: the policy cannot be read; it says that everything is refused.
    """
    try:
        in_force = policy_in_force(settings)
    except Refused as error:
        raise ConfigurationError(str(error)) from error
    yield f"policy of {settings.site}, from {settings.policy.file or 'its own YAML'}"
    yield f"sha256 {in_force.digest}"
    for name, rule in rules_in_words(in_force.policy):
        yield f"  {name:20} {rule}"
    yield from _now(in_force)
    yield from _last_plan(in_force)


def rules_in_words(policy: PolicySettings) -> Iterator[tuple[str, str]]:
    """Each rule's name and what it allows, in the order of ``PolicySettings``."""
    for name in PolicySettings.model_fields:
        value = getattr(policy, name)
        if name == "file" or (name == "time_zone" and policy.hours is None):
            continue
        if name == "time_zone":
            yield name, value or "that of this machine"
        elif isinstance(value, Settings):
            yield name, value.model_dump_json(exclude_none=True) if value.model_dump(exclude_none=True) else "none"
        elif value is None:
            yield name, "any"
        else:
            yield name, ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _now(in_force: InForce) -> Iterator[str]:
    veto = veto_of(in_force.settings.folder)
    if veto is not None:
        yield f"now: VETOED {veto_in_words(veto)}: nothing runs and nothing leaves"
    elif is_open(in_force.policy):
        yield "now: takes part"
    else:
        yield "now: out of hours; nothing runs"


def veto_in_words(veto: Veto) -> str:
    """By whom, since when and why."""
    return f"by {veto.by} since {veto.since}" + (f" ({veto.reason})" if veto.reason else "")


def _last_plan(in_force: InForce) -> Iterator[str]:
    try:
        plan = last_plan(in_force.settings)
    except ConfigurationError:
        yield "no plan has come to this site yet"
        return
    yield f"last asked: run {plan.run}, task {plan.task.name}, settings {plan.configuration}"
    try:
        permit(plan, in_force.settings)
    except Refused as error:
        yield f"such a visit is refused: {error}"
    else:
        yield "such a visit is allowed"
