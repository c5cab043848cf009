"""For the closed forms: levels, rates and laws by the formulas of the publications alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hdzoo.samplers.gaussian import GaussianLaw, numbered_levels, trained_at


def published_times(config: Mapping[str, Any], num_levels: int) -> np.ndarray:
    """The noise levels at even times of the network's process.

    Args:
        config: of an `EvenTimeSampler`.
        num_levels: how many.
    """
    ladder = np.asarray(config["sigmas"] or (config["sigma_max"], config["sigma_min"]), dtype=float)
    shares, places = np.linspace(0, len(ladder) - 1, num_levels), np.arange(len(ladder))
    match config["timestep_type"]:
        case "time":
            low, growth = linear_beta(config)
            t = np.interp(shares, places, times(config, ladder))
            return np.sqrt(np.expm1(low * t + growth * t**2 / 2))
        case "discrete":
            known = np.log(numbered_levels(config))
            numbers = np.interp(np.log(ladder), known, np.arange(len(known)))
            numbers = np.interp(shares, places, numbers)
            return trained_at(config, np.exp(np.interp(numbers, np.arange(len(known)), known)))
    return np.exp(np.interp(shares * (1 - published_end(config, ladder)), places, np.log(ladder)))


def published_end(config: Mapping[str, Any], levels: np.ndarray) -> float:
    """The time of the last evaluation, that of the first being 1; 0 for a ladder that is given."""
    if config["timestep_type"] == "discrete" or config["sigmas"] is not None:
        return 0.0
    if config["timestep_type"] == "time":
        t = times(config, levels)
        return float(t[-1] / t[0])
    return float(config["sampling_eps"])


def linear_beta(config: Mapping[str, Any]) -> tuple[float, float]:
    """The rate of noise at time 0 of a network that is told the time, and how fast it grows."""
    low = config.get("beta_min", 0.1)
    return low, config.get("beta_max", 20.0) - low


def times(config: Mapping[str, Any], levels: np.ndarray) -> np.ndarray:
    """The times of noise levels, for a network that is told the time."""
    low, growth = linear_beta(config)
    return np.asarray((np.sqrt(low**2 + 2 * growth * np.log1p(levels**2)) - low) / growth)


def published_rates(config: Mapping[str, Any], levels: np.ndarray, sde: str) -> np.ndarray:
    r""":math:`g(t)^2 / n` at each level.

    Args:
        config: of an `EvenTimeSampler`.
        levels: at which the network is asked, shape (n,).
        sde: ``"ve"`` or ``"vp"``.
    """
    n = len(levels)
    even = config["sigmas"] is None
    if even and sde == "vp" and config["timestep_type"] == "time":
        low, growth = linear_beta(config)
        t = times(config, levels)
        return t[0] * (low + growth * t) / n
    if even and sde == "ve" and config["timestep_type"] in ("sigma", "log_sigma"):
        return 2 * levels**2 * np.log(config["sigma_max"] / config["sigma_min"]) / n
    # No formula but the derivative, by differences.
    grid = np.linspace(1, published_end(config, levels), n)
    of = np.log(levels) if sde == "ve" else np.log(1 + levels**2)
    slope = np.gradient(of, grid) / n
    return np.asarray(2 * levels**2 * slope if sde == "ve" else slope)


def published_betas(config: Mapping[str, Any], levels: np.ndarray) -> np.ndarray:
    """DDPM's betas; arguments as in `published_rates`."""
    if config["timestep_type"] == "time" and config["sigmas"] is None:
        low, growth = linear_beta(config)
        t = times(config, levels[:1]) * np.linspace(1, 0, len(levels))
        return t[0] * (low + growth * t) / len(levels)
    signal = 1 / (1 + np.append(levels, 0.0) ** 2)
    return 1 - signal[:-1] / signal[1:]


def discrete_levels(config: Mapping[str, Any], levels: np.ndarray) -> np.ndarray:
    """Between which the steps of the VE SDE are; arguments as in `published_rates`."""
    end = published_end(config, levels)
    return np.asarray(levels[0] * (levels / levels[0]) ** (1 / (1 - end)))


def predicted(
    law: GaussianLaw, config: Mapping[str, Any], sde: str, k: int, levels: np.ndarray
) -> GaussianLaw:
    """The law after step ``k`` of the reverse SDE, by the equations of Song et al.

    Args:
        law: before.
        config: of a `ReverseSDESampler`.
        sde: ``"ve"`` or ``"vp"``.
        k: the number of the level.
        levels: at which the network is asked.
    """
    kind, last = config["predictor"], k == len(levels) - 1
    fresh = 0.0 if last and config["denoise"] else 1.0
    if sde == "ve":
        if kind == "euler-maruyama":
            rate = published_rates(config, levels, sde)[k]
            return law.gradient(rate, levels[k]).noise(fresh * rate)
        here, below = (*discrete_levels(config, levels), 0.0)[k : k + 2]
        step = here**2 - below**2
        noise = step * below**2 / here**2 if kind == "ancestral" else step
        return law.gradient(step, levels[k]).noise(fresh * noise)
    ends = levels[k], (*levels, 0.0)[k + 1]
    if kind == "euler-maruyama":
        rate = published_rates(config, levels, sde)[k]
        return vp_step(law, ends, 1 + rate / 2, rate, fresh * rate)
    beta = published_betas(config, levels)[k]
    alpha = 1 - beta
    if kind == "ancestral":
        return vp_step(law, ends, alpha**-0.5, beta * alpha**-0.5, fresh * beta)
    return vp_step(law, ends, 2 - alpha**0.5, beta, fresh * beta)


def vp_step(
    law: GaussianLaw, ends: tuple[float, float], keep: float, push: float, noise: float
) -> GaussianLaw:
    r"""The law after :math:`a y + b \nabla \log p_t(y) + c z` in VP coordinates.

    With :math:`V_t` the variance of the noisy data there and :math:`m_t` their mean,
    :math:`\nabla \log p_t(y) = -(y - m_t) / V_t`.

    Args:
        law: of :math:`x`, in VE coordinates, before.
        ends: the noise levels before and after.
        keep: ``a``.
        push: ``b``.
        noise: :math:`c^2`.
    """
    before, after = (np.sqrt(1 + sigma**2) for sigma in ends)
    total, centre = law.total(ends[0]) / before**2, law.data_mean / before
    mean = keep * law.mean / before - push * (law.mean / before - centre) / total
    variance = (keep - push / total) ** 2 * law.variance / before**2 + noise
    return law._replace(mean=after * mean, variance=after**2 * variance)


def flowed(
    law: GaussianLaw, config: Mapping[str, Any], sde: str, k: int, levels: np.ndarray
) -> GaussianLaw:
    """The law after step ``k`` of the probability flow; arguments as in `predicted`."""
    sigma, euler = levels[k], config["predictor"] == "euler-maruyama"
    if config["denoise"] and k == len(levels) - 1:
        return law.contract(law.data_variance / law.total(sigma))
    if sde == "ve":
        if euler:
            return law.gradient(published_rates(config, levels, sde)[k] / 2, sigma)
        here, below = (*discrete_levels(config, levels), 0.0)[k : k + 2]
        return law.gradient((here**2 - below**2) / 2, sigma)
    ends = sigma, (*levels, 0.0)[k + 1]
    if euler:
        rate = published_rates(config, levels, sde)[k]
        return vp_step(law, ends, 1 + rate / 2, rate / 2, 0.0)
    beta = published_betas(config, levels)[k]
    return vp_step(law, ends, 2 - (1 - beta) ** 0.5, beta / 2, 0.0)


# Dormand and Prince 1980, table 2.
DORMAND_PRINCE = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)


def runge_kutta(law: GaussianLaw, levels: Sequence[float]) -> GaussianLaw:
    r"""The law after a step of Dormand and Prince on :math:`d(x - m) / du = (x - m) \sigma^2 / V`.

    Args:
        law: before.
        levels: the noise levels of the six stages.
    """
    slopes: list[Any] = []
    for sigma, row in zip(levels, DORMAND_PRINCE, strict=False):
        slopes.append(sigma**2 / law.total(sigma) * _reached(levels, row, slopes))
    return law.contract(_reached(levels, DORMAND_PRINCE[-1], slopes))


def _reached(levels: Sequence[float], row: Sequence[float], slopes: Sequence[Any]) -> Any:
    length = np.log(levels[-1] / levels[0])
    return 1 + length * sum(a * slope for a, slope in zip(row, slopes, strict=True))
