"""The tables of ε in docs/privacy.md, computed by the accountants that a site uses.

    .venv/bin/python tests/privacy_tables.py       writes them into the page

tests/test_privacy_page.py sees to it that they are those of today's code.
"""

from collections.abc import Callable
from pathlib import Path

from mammofed_shared.training.dp_sgd import patient_epsilon
from mammofed_shared.training.dp_sgd_account import Spent
from mammofed_site.gaussian_accountant import contribution_epsilon

PAGE = Path(__file__).parents[1] / "docs/privacy.md"
BEGIN, END = "<!-- written by tests/privacy_tables.py: epsilon -->\n", "<!-- end -->"
DELTA = 1e-5
VISITS = (1, 2, 5, 10, 20)
STEPS_OF_AN_EPOCH = -(-5000 // 32)


def tables() -> str:
    """Both tables in Markdown."""
    contribution = _table(
        (2.0, 5.0, 10.0, 20.0, 50.0), lambda sigma, visits: contribution_epsilon([sigma] * visits, DELTA)
    )
    patient = _table((0.6, 0.8, 1.0, 1.5, 2.0), _patient)
    return (
        f"ε of `update_noise` at δ 10⁻⁵, by noise multiplier and number of visits:\n\n{contribution}\n"
        "ε of `dp_sgd` at δ 10⁻⁵, for 5,000 patients, `batch_size: 32` and visits of one epoch:\n\n"
        f"{patient}"
    )


def page_with(text: str, page: str) -> str:
    """The page with a text in the place of what stands between the marks."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{text}\n{END}{tail}"


def _patient(sigma: float, visits: int) -> float:
    cost = Spent(noise_multiplier=sigma, sample_rate=1 / STEPS_OF_AN_EPOCH, steps=visits * STEPS_OF_AN_EPOCH)
    return patient_epsilon([cost], DELTA)


def _table(multipliers: tuple[float, ...], epsilon: Callable[[float, int], float]) -> str:
    head = "| noise multiplier | " + " | ".join(f"{visits} visit{'s' * (visits > 1)}" for visits in VISITS) + " |\n"
    rows = [
        f"| {sigma:g} | " + " | ".join(f"{epsilon(sigma, visits):.2f}" for visits in VISITS) + " |\n"
        for sigma in multipliers
    ]
    return head + "|---" * (len(VISITS) + 1) + "|\n" + "".join(rows)


if __name__ == "__main__":
    PAGE.write_text(page_with(tables(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
