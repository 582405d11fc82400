"""``site-client privacy``: what this site's policy protects, and what of its budget is spent. Nothing leaves."""

from collections.abc import Iterator

from mammofed_shared.config.privacy import DpSgdSettings, UpdateNoiseSettings
from mammofed_shared.config.site import SiteSettings
from mammofed_site.gaussian_accountant import contribution_epsilon
from mammofed_site.privacy_ledger import read_spendings


def privacy_lines(settings: SiteSettings) -> Iterator[str]:
    """The words of the command, line by line.

    Raises:
        Refused: PRIVACY_BUDGET, the ledger is damaged.
    """
    privacy = settings.policy.privacy
    if privacy.update_noise:
        yield from _noise_lines("update_noise: on each update, for the contribution as a whole", privacy.update_noise)
    elif privacy.dp_sgd:
        yield from _noise_lines("dp_sgd: in each step of training, for each patient", privacy.dp_sgd)
    else:
        yield "no noise: updates leave as they were trained, and nothing is promised of what they tell"
    if privacy.clip_norm is not None:
        yield f"updates are clipped to the norm {privacy.clip_norm:g}, which is not private"
    spendings = read_spendings(settings.folder)
    for spending in spendings:
        steps = f", {spending.steps} steps" if spending.mechanism == "dp_sgd" else ""
        yield (
            f"{spending.time}  {spending.task}  {spending.mechanism}  noise multiplier {spending.noise_multiplier:g}"
            f"{steps}  ε {spending.epsilon:.3g}"
        )
    if not spendings:
        yield "nothing is spent"
    elif privacy.update_noise and all(spending.mechanism == "update_noise" for spending in spendings):
        spent = contribution_epsilon([spending.noise_multiplier for spending in spendings], privacy.update_noise.delta)
        yield f"spent: ε {spent:.3g} of {privacy.update_noise.largest_epsilon:g}"
    else:
        largest = f" of {privacy.dp_sgd.largest_epsilon:g}" if privacy.dp_sgd else ""
        yield f"spent: ε {spendings[-1].epsilon:.3g}{largest}, at δ {spendings[-1].delta:g}, when the last one left"


def _noise_lines(name: str, noise: UpdateNoiseSettings | DpSgdSettings) -> Iterator[str]:
    yield name
    yield f"clip norm {noise.clip_norm:g}, noise multiplier {noise.noise_multiplier:g}, δ {noise.delta:g}"
    yield f"budget: ε {noise.largest_epsilon:g}"
