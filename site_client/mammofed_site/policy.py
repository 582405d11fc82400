"""Whether this site takes part in a visit. The site decides; the coordinator cannot loosen it."""

from fnmatch import fnmatchcase
from pathlib import Path

from mammofed_shared.config.brought_models import IN_WORDS, MISMATCH, digest_of
from mammofed_shared.config.features import ReadsFeatures
from mammofed_shared.config.frozen_encoder import read_encoder
from mammofed_shared.config.policy import PolicySettings
from mammofed_shared.config.site import SiteSettings
from mammofed_shared.data.prepared import read_preprocessing
from mammofed_shared.errors import ConfigurationError, DataError, RefusalCode, Refused
from mammofed_shared.protocol.payload import Payload
from mammofed_shared.protocol.plan import Plan
from mammofed_site.visit_count import visits_of


def permit(plan: Plan, settings: SiteSettings) -> None:
    """Return if the plan may run here.

    Args:
        settings: with the policy in its place (``policy_in_force``).

    Raises:
        Refused: POLICY (another site's plan, or a rule of the policy), NO_DATA (a data set is not prepared),
            PREPROCESSING_MISMATCH, TEXT_ENCODER_MISMATCH, ENCODER_MISMATCH, SETTINGS (the frozen model gives vectors of
            another length than the task reads); the message, which stays here, says what to do.
    """
    if plan.site != settings.site:
        raise Refused(RefusalCode.POLICY, f"the plan is for site {plan.site}, this is {settings.site}")
    check_rules(plan, settings)
    _check_data(plan, settings)
    _check_models(plan, settings)


def check_rules(plan: Plan, settings: SiteSettings) -> None:
    """Return if the policy allows what a plan asks for.

    Raises:
        Refused: POLICY; the message says which rule.
    """
    policy = settings.policy
    assert policy.file is None, "a policy in a file is read first"
    if policy.tasks is not None and plan.task.name not in policy.tasks:
        raise _forbidden("tasks", f"task {plan.task.name}")
    if policy.runs is not None and plan.run not in policy.runs:
        raise _forbidden("runs", f"run {plan.run}")
    if policy.configurations is not None and plan.configuration not in policy.configurations:
        raise _forbidden("configurations", f"run {plan.run} with the settings {plan.configuration}")
    if policy.max_rounds is not None and plan.round > policy.max_rounds:
        raise _forbidden("max_rounds", f"round {plan.round}")
    if plan.kind == "train":
        _check_training(plan, policy, settings.folder)


def _check_training(plan: Plan, policy: PolicySettings, folder: Path) -> None:
    if plan.num_sites < policy.smallest_cohort:
        raise _forbidden("smallest_cohort", f"an update that is folded with those of {plan.num_sites - 1} other sites")
    if policy.max_visits is None:
        return
    others = visits_of(folder, plan.run) - {plan.task_id}
    if len(others) >= policy.max_visits:
        raise _forbidden("max_visits", f"update {len(others) + 1} for run {plan.run}")


def check_tensor_names(policy: PolicySettings, file: Path) -> None:
    """Return if the policy lets each tensor of a payload leave; an update has the names of the state that came.

    Raises:
        Refused: POLICY.
    """
    if policy.tensors is None:
        return
    with Payload(file) as payload:
        others = [name for name in payload if not any(fnmatchcase(name, pattern) for pattern in policy.tensors)]
    if others:
        raise _forbidden("tensors", f"{len(others)} tensors, {others[0]} among them")


def _forbidden(rule: str, what: str) -> Refused:
    return Refused(
        RefusalCode.POLICY, f"`{rule}` does not allow {what}; whoever owns the policy can (docs/operate/policy.md)"
    )


def _check_data(plan: Plan, settings: SiteSettings) -> None:
    for dataset in settings.datasets:
        try:
            prepared = read_preprocessing(settings.prepared_folder(dataset))
        except DataError as error:
            raise Refused(error.code, f"data set {dataset.name}: {error}") from error
        if prepared.digest != plan.preprocessing:
            raise Refused(
                RefusalCode.PREPROCESSING_MISMATCH,
                f"data set {dataset.name} was prepared with other settings than the run asks for: make `preprocessing` "
                "in the site's YAML equal to the run's and run `site-client preprocess` again",
            )


def _check_models(plan: Plan, settings: SiteSettings) -> None:
    for model, code in MISMATCH.items():
        asked, folder = getattr(plan, model), getattr(settings, model)
        if asked is None:
            continue
        if folder is None:
            raise Refused(code, f"the run needs a {IN_WORDS[model]}: name its folder in `{model}` of this site's YAML")
        try:
            found = digest_of(model, folder)
        except ConfigurationError as error:
            raise Refused(code, str(error)) from error
        if found != asked:
            raise Refused(
                code,
                f"the run asks for a {IN_WORDS[model]} with SHA-256 {asked}, the folder here has {found}: "
                "ask the lead for the same files",
            )
    task = plan.task
    if isinstance(task, ReadsFeatures) and settings.encoder is not None:
        width = read_encoder(settings.encoder).width_of(task.features)
        if width != task.encoder_features:
            raise Refused(
                RefusalCode.SETTINGS,
                f"task.encoder_features of the run is {task.encoder_features}, the frozen model gives vectors of "
                f"{width}: ask the lead to correct the run",
            )
