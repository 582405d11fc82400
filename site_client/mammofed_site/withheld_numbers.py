"""Numbers that would tell of the training data what the noise on the weights hides; they stay at the site."""

from collections.abc import Mapping

from mammofed_shared.config.site import SiteSettings
from mammofed_shared.protocol.plan import Plan

_OF_NO_DATA = frozenset(
    {"num_exams", "num_steps", "learning_rate", "micro_batch", "num_processes", "duration_s", "moments_reset"}
)
"""Numbers of a training visit that tell no more of the data than their amount."""


def withhold(plan: Plan, settings: SiteSettings, metrics: Mapping[str, float]) -> dict[str, float]:
    """The numbers without those that would tell of the training data what the noise hides."""
    privacy = settings.policy.privacy
    if not privacy.is_noisy or plan.kind == "query":
        return dict(metrics)
    if plan.kind == "evaluate":  # of test patients; but a probe is fitted to those of training
        return {name: value for name, value in metrics.items() if not name.startswith("probe_")}
    # With DP-SGD the model itself is protected, and validation patients are not those of training.
    told = ("received/", "sent/") if privacy.dp_sgd else ()
    return {name: value for name, value in metrics.items() if name in _OF_NO_DATA or name.startswith(told)}
