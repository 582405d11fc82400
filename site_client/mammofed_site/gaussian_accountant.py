"""ε of a number of Gaussian releases, exactly.

One release of a value of sensitivity Δ with noise of standard deviation s is told from another one's no better than a
normal distribution of mean μ = Δ / s from that of mean 0. Several releases add up to μ = √(Σ μᵢ²), also where later
ones depend on earlier ones (Dong, Roth, Su 2019, *Gaussian Differential Privacy*, corollary 3.3). The ε for a δ is
known in closed form (Balle, Wang 2018, *Improving the Gaussian Mechanism*, theorem 8). It needs no torch, so the site's
parent can compute it; tests hold it against opacus' accountants.
"""

import math
from collections.abc import Iterable

REPLACEMENT = 2.0
"""Sensitivity of a clipped contribution in units of its clip norm: any data may take the place of the site's, and two
vectors of norm 1 are at most 2 apart."""


def contribution_epsilon(noise_multipliers: Iterable[float], delta: float) -> float:
    """ε at δ of releases of a site's whole contribution, one for each noise multiplier; 0 of none."""
    mu = math.sqrt(math.fsum((REPLACEMENT / sigma) ** 2 for sigma in noise_multipliers))
    return gaussian_epsilon(mu, delta)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The smallest ε for which releases of a total μ are (ε, δ)-private, to a millionth, rounded up."""
    if mu == 0 or _delta_of(0.0, mu) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while _delta_of(high, mu) > delta:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _delta_of(middle, mu) > delta else (low, middle)
    return high


def _delta_of(epsilon: float, mu: float) -> float:
    first, second = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    return math.exp(_log_normal_cdf(first)) - math.exp(epsilon + _log_normal_cdf(second))


def _log_normal_cdf(x: float) -> float:
    """Logarithm of the standard normal distribution function, also where the function itself is 0 in 64 bits."""
    if x > -20:
        return math.log(math.erfc(-x / math.sqrt(2)) / 2)
    inverse = 1 / (x * x)
    series = 1 - inverse * (1 - inverse * (3 - inverse * (15 - 105 * inverse)))  # Abramowitz, Stegun 26.2.12
    return -x * x / 2 - math.log(-x * math.sqrt(2 * math.pi)) + math.log(series)
