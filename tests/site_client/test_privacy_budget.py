"""What privacy costs: the exact ε of Gaussian releases beside the library's, and the ledger that nothing tears."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from opacus.accountants import PRVAccountant, RDPAccountant
from scipy import special, stats

from mammofed_shared.errors import RefusalCode, Refused
from mammofed_site.gaussian_accountant import _log_normal_cdf, contribution_epsilon, gaussian_epsilon
from mammofed_site.privacy_ledger import LEDGER_FILE, Spending, is_paid, read_spendings, spend

SPENDING = Spending(
    release="a" * 64,
    task="run/r0001/v00001/mayo/train",
    mechanism="update_noise",
    noise_multiplier=4.0,
    epsilon=2.5,
    delta=1e-5,
    time="2025-01-01T00:00:00Z",
)
SECOND = SPENDING.model_copy(update={"release": "b" * 64})


@pytest.mark.parametrize(("multiplier", "releases"), [(2.0, 1), (4.0, 3), (10.0, 20)])
def test_epsilon_of_contributions_is_that_of_the_librarys_accountants(multiplier: float, releases: int) -> None:
    numeric, upper = PRVAccountant(), RDPAccountant()
    # The library's noise multiplier is in units of the sensitivity, and ours is twice the clip norm.
    numeric.history = upper.history = [(multiplier / 2, 1.0, releases)]

    epsilon = contribution_epsilon([multiplier] * releases, 1e-5)

    with np.errstate(divide="ignore"):  # it takes the logarithm of 1 - the sample rate
        assert epsilon == pytest.approx(numeric.get_epsilon(1e-5, eps_error=0.01), abs=0.02)
    assert epsilon <= upper.get_epsilon(1e-5)


@pytest.mark.parametrize("mu", [0.01, 0.5, 3.0, 60.0])
def test_epsilon_solves_the_equation_of_the_gaussian_mechanism(mu: float) -> None:
    delta = 1e-6
    epsilon = gaussian_epsilon(mu, delta)

    def delta_at(value: float) -> float:
        first = stats.norm.cdf(mu / 2 - value / mu)
        return float(first - math.exp(value + special.log_ndtr(-mu / 2 - value / mu)))

    assert delta_at(epsilon) <= delta * (1 + 1e-9)
    assert epsilon == 0 or delta_at(epsilon * (1 - 1e-4)) > delta


@pytest.mark.parametrize("x", [4.0, 0.0, -5.0, -19.9, -20.1, -300.0, -1e5])
def test_the_logarithm_of_the_normal_distribution_is_right_where_the_distribution_underflows(x: float) -> None:
    assert _log_normal_cdf(x) == pytest.approx(float(special.log_ndtr(x)), rel=1e-9)


def test_epsilon_grows_with_each_release_and_shrinks_with_noise() -> None:
    growing = [contribution_epsilon([5.0] * count, 1e-5) for count in range(5)]
    assert growing[0] == 0 and growing == sorted(set(growing))
    assert contribution_epsilon([1e-3], 1e-5) > 1e6, "next to no noise promises nothing, and says so"


def test_the_ledger_gives_back_what_was_entered_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    assert read_spendings(tmp_path) == ()
    spend(tmp_path, SPENDING)
    spend(tmp_path, SECOND)

    assert read_spendings(tmp_path) == (SPENDING, SECOND)
    assert is_paid(read_spendings(tmp_path), "b" * 64) and not is_paid(read_spendings(tmp_path), "c" * 64)
    assert (tmp_path / LEDGER_FILE).stat().st_mode & 0o077 == 0


def test_a_line_cut_at_any_byte_counts_for_nothing_and_leaves_no_trace(tmp_path: Path) -> None:
    spend(tmp_path, SPENDING)
    path = tmp_path / LEDGER_FILE
    whole = path.read_bytes()
    line = SECOND.model_dump_json().encode() + b"\n"
    for cut in range(0, len(line), 7):
        path.write_bytes(whole + line[:cut])
        assert read_spendings(tmp_path) == (SPENDING,)
        spend(tmp_path, SECOND)
        assert path.read_bytes() == whole + line


def test_a_damaged_ledger_makes_the_site_refuse(tmp_path: Path) -> None:
    spend(tmp_path, SPENDING)
    spend(tmp_path, SECOND)
    path = tmp_path / LEDGER_FILE
    path.write_bytes(path.read_bytes().replace(b"4.0", b"-4.0", 1))

    with pytest.raises(Refused, match="is damaged") as refused:
        read_spendings(tmp_path)
    assert refused.value.code is RefusalCode.PRIVACY_BUDGET
    assert os.fspath(tmp_path) not in str(refused.value)
