r"""Normal laws on their way through a chain, for the closed forms that samplers declare.

On data :math:`N(m, s^2)` the score is :math:`-(x - m) / V`, :math:`V = s^2 + \sigma^2`; so a chain
whose start is normal stays normal, and its law is two numbers for each coordinate.

What the closed forms start from, a configuration's noise levels and step sizes, is written out here
from the publications, apart from the samplers': a fault of theirs is not to be in both.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from diffusers import DDPMScheduler
from scipy.optimize import brentq

Number = float | np.ndarray


class GaussianLaw(NamedTuple):
    """A normal law with independent coordinates, for data of the same kind.

    Each is a number, or an array with one for each coordinate.

    Attributes:
        data_mean: ``m``.
        data_variance: ``s^2``; 0 for data on a point.
        mean: of the law.
        variance: of the law.
    """

    data_mean: Number
    data_variance: Number
    mean: Number
    variance: Number

    def total(self, sigma: float) -> Number:
        """``V``, the variance of the noisy data."""
        return self.data_variance + sigma**2

    def contract(self, factor: Number) -> Self:
        """The law of ``m + factor (x - m)``."""
        mean = self.data_mean + factor * (self.mean - self.data_mean)
        return self._replace(mean=mean, variance=factor**2 * self.variance)

    def gradient(self, alpha: Number, sigma: float) -> Self:
        """The law of ``x + alpha s(x, sigma)``."""
        return self.contract(1 - alpha / self.total(sigma))

    def noise(self, variance: Number) -> Self:
        """The law of ``x`` with independent noise added."""
        return self._replace(variance=self.variance + variance)

    def relax(self, alpha: float, sigma: float, steps: int, stationary: Number) -> Self:
        r"""The law after so many steps of a walk with :math:`A = 1 - \alpha / V`.

        .. math:: v_T = A^{2T} v_0 + (1 - A^{2T}) v_*, \quad e_T = m + A^T (e_0 - m)

        Args:
            alpha: step size.
            sigma: noise level.
            steps: ``T``.
            stationary: the variance :math:`v_*` that the walk leaves as it is.
        """
        memory = (1 - alpha / self.total(sigma)) ** steps
        return self.contract(memory).noise((1 - memory**2) * stationary)

    def langevin(self, alpha: float, sigma: float, steps: int) -> Self:
        r"""The law after steps :math:`x + \alpha s + \sqrt{2 \alpha} z`; they leave
        :math:`V / (1 - \alpha / 2V)` as it is."""
        total = self.total(sigma)
        return self.relax(alpha, sigma, steps, total / (1 - alpha / (2 * total)))

    def noise_first(self, alpha: float, sigma: float, steps: int) -> Self:
        r"""The law after steps :math:`\tilde x = x + \sqrt{2 \alpha} n`,
        :math:`x = \tilde x + \alpha s(\tilde x)`; they leave
        :math:`(1 - \alpha / V)^2 V / (1 - \alpha / 2V)` as it is."""
        total = self.total(sigma)
        stationary = (1 - alpha / total) ** 2 * total / (1 - alpha / (2 * total))
        return self.relax(alpha, sigma, steps, stationary)


class JointLaw(NamedTuple):
    r"""A normal law of a state and of one thing that its chain remembers, coordinate by coordinate.

    Both are measured from what they are at rest on the data's mean ``m``, so that a step is a
    matrix: :math:`(x - m, v)` for a velocity ``v``, :math:`(x - m, D - m)` for a denoised state
    ``D``.

    Attributes:
        start: the law that the state began with; the data are what is read of it later.
        mean: of the two, shape (..., 2).
        covariance: of the two, shape (..., 2, 2).
    """

    start: GaussianLaw
    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, start: GaussianLaw) -> Self:
        """The law of a first state, with nothing remembered: 0."""
        offset, variance = np.broadcast_arrays(start.mean - start.data_mean, start.variance)
        mean = np.stack([offset, np.zeros_like(offset)], -1)
        return cls(start, mean, variance[..., None, None] * np.diag([1.0, 0.0]))

    def step(self, state: Sequence[Number], kept: Sequence[Number]) -> Self:
        """The law of two sums of the two and of a fresh standard normal ``z``.

        Args:
            state: what the next state has of the state, of the thing kept, and of ``z``: numbers,
                or arrays with one for each coordinate.
            kept: the same for what is kept next.
        """
        like = 0 * self.mean[..., 0]
        rows = np.stack([np.stack([x + like for x in row], -1) for row in (state, kept)], -2)
        matrix, fresh = rows[..., :2], rows[..., 2:]
        return self._replace(
            mean=(matrix @ self.mean[..., None])[..., 0],
            covariance=matrix @ self.covariance @ matrix.swapaxes(-1, -2)
            + fresh @ fresh.swapaxes(-1, -2),
        )

    @property
    def state(self) -> GaussianLaw:
        """The law of the state alone."""
        mean = self.start.data_mean + self.mean[..., 0]
        return self.start._replace(mean=mean, variance=self.covariance[..., 0, 0])


class Rung(NamedTuple):
    """One noise level of a published schedule.

    Attributes:
        sigma: the level.
        alpha: the step size on it.
        steps: how many steps are made there.
    """

    sigma: float
    alpha: float
    steps: int


def published_ladder(config: Mapping[str, Any], num_levels: int | None = None) -> np.ndarray:
    """The noise levels that a configuration stands for: its own, or geometric ones.

    Args:
        config: with ``sigmas``, or ``sigma_max``, ``sigma_min`` and ``num_levels``.
        num_levels: so many levels on the same curve instead, by interpolation of ``log sigma``.

    Returns:
        Descending levels; for a network of a noise schedule the nearest that it was trained at.
    """
    if config["sigmas"] is not None:
        levels = np.asarray(config["sigmas"], dtype=float)
    elif config["num_levels"] == 1:
        levels = np.asarray([config["sigma_min"]], dtype=float)
    else:
        levels = np.geomspace(config["sigma_max"], config["sigma_min"], config["num_levels"])
    if num_levels is not None:
        places = np.linspace(0, len(levels) - 1, num_levels)
        levels = np.exp(np.interp(places, np.arange(len(levels)), np.log(levels)))
    return trained_at(config, levels)


def published_curve(config: Mapping[str, Any], num_levels: int) -> np.ndarray:
    r"""The noise levels of a sampler whose ladder is refined to its evaluations.

    Args:
        config: with ``sigmas``, or ``sigma_max`` and ``sigma_min``; and ``rho``.
        num_levels: so many levels, between those given by interpolation of
            :math:`\sigma^{1 / \rho}`, or of ``log sigma`` where ``rho`` is None.

    Returns:
        As from `published_ladder`.
    """
    ends = config["sigmas"] or (config["sigma_max"], config["sigma_min"])
    rho, given = config["rho"], np.asarray(ends, dtype=float)
    scaled = np.log(given) if rho is None else given ** (1 / rho)
    scaled = np.interp(np.linspace(0, len(given) - 1, num_levels), np.arange(len(given)), scaled)
    levels = np.exp(scaled) if rho is None else scaled**rho
    return trained_at(config, levels)


def published_level(config: Mapping[str, Any]) -> float:
    """The noise level that the configuration of a sampler at a single level stands for."""
    return float(trained_at(config, np.asarray([config["sigma"]], dtype=float))[0])


def trained_at(config: Mapping[str, Any], levels: np.ndarray) -> np.ndarray:
    """The noise levels of a ladder that the network was trained at, where they are numbered.

    Args:
        config: with ``timestep_type``; for ``"discrete"`` with the options of a `DDPMScheduler`.
        levels: descending.

    Returns:
        The nearest on the scale of ``log sigma``, none of them twice: where the network's lie
        wider apart than the ladder's, at the small ones, each from there up, as far as the first.
        The ladder itself for other networks, and where the network has not so many.
    """
    if config.get("timestep_type") != "discrete":
        return levels
    known = numbered_levels(config)
    nearest = np.abs(np.log(known / levels[:, None])).argmin(1)
    first, behind = nearest[0], np.arange(len(levels))
    if first - nearest[-1] < len(levels) - 1:
        return levels
    before = behind[::-1]
    apart = np.maximum.accumulate((nearest - before)[::-1])[::-1] + before
    return np.asarray(known[np.minimum(apart, first - behind)])


def numbered_levels(config: Mapping[str, Any]) -> np.ndarray:
    r"""The noise levels of a network that is told their number, ascending.

    :math:`\sqrt{1 / \bar\alpha_t - 1}`, without a last one of nothing but noise.

    Args:
        config: with the options of a `DDPMScheduler`.
    """
    names = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas")
    options = {
        name: config[name]
        for name in (*names, "rescale_betas_zero_snr")
        if config.get(name) is not None
    }
    signal = DDPMScheduler(**options).alphas_cumprod.double().numpy()
    return np.asarray(np.sqrt((1 - signal[signal > 0]) / signal[signal > 0]))


def published_loss(config: Mapping[str, Any], sigma: float) -> float:
    """The denoising loss per dimension at a noise level, from a configuration's record of it."""
    record = config["held_out_loss"]
    order = np.argsort(record["sigmas"])
    levels, losses = (np.asarray(record[key])[order] for key in ("sigmas", "loss"))
    return float(np.interp(np.log(sigma), np.log(levels), np.minimum(1, losses)))


def published_fraction(
    config: Mapping[str, Any], sigma: float, alpha: float, start: GaussianLaw
) -> Number:
    r"""The fraction :math:`\lambda` of the denoising step that a read-out stands for.

    Args:
        config: with a ``readout``, a word or a number, and ``held_out_loss``.
        sigma: the last noise level.
        alpha: the step size there.
        start: of the data, for the matrix read-out, a fraction in each direction.
    """
    eta = alpha / sigma**2
    match config["readout"]:
        case "alpha":
            return eta
        case "half":
            return 0.5
        case "full":
            return 1.0
        case "half-corrected":
            return (2 + eta) / 4
        case "variance-matched":
            return 1 / (1 + published_loss(config, sigma) ** 0.5)
        case "matrix":
            spread, total = start.data_variance**0.5, start.total(sigma) ** 0.5
            return total / (total + spread)
        case fraction:
            return float(fraction)


def published_hand_off(config: Mapping[str, Any], rung: Rung, below: Rung) -> float:
    r"""The coefficient of the score in a hand-off without noise.

    The root of :math:`q a^2 - 2 a + \Delta = 0`, where the variance falls by :math:`\Delta`, or
    :math:`\Delta / 2`.

    Args:
        config: with a ``hand_off``, and ``held_out_loss``.
        rung: on which the hand-off starts.
        below: the next.
    """
    difference = rung.sigma**2 - below.sigma**2
    if config["hand_off"] == "half":
        return difference / 2
    q = (1 - published_loss(config, rung.sigma)) / rung.sigma**2
    # Of the two roots the one that stays finite where q is 0.
    return difference / 2 if q == 0 else float(-np.expm1(np.log1p(-q * difference) / 2) / q)


def published_last_move(
    config: Mapping[str, Any], rung: Rung, below: Rung | None, start: GaussianLaw
) -> Number:
    """The coefficient of the score in the last move on a rung, where that adds no noise.

    Args:
        config: with a ``hand_off``, a ``readout``, and ``held_out_loss``.
        rung: of the move.
        below: the next; None after the last, where the move is the read-out.
        start: of the data.
    """
    if below is not None:
        return published_hand_off(config, rung, below)
    return published_fraction(config, rung.sigma, rung.alpha, start) * rung.sigma**2


def technique_4(levels: np.ndarray, steps: int) -> float:
    r"""The step size on the last level by technique 4 of Song and Ermon (arXiv 2006.09011).

    Where :math:`(1 - \eta)^{2T} (\gamma^2 - b) + b`, :math:`b = 2 / (2 - \eta)`, is smallest, its
    slope is 0:

    .. math:: (1 - (1 - \eta)^{2T})\, b' = 2 T (1 - \eta)^{2T - 1} (\gamma^2 - b), \quad
        b' = 2 / (2 - \eta)^2

    Args:
        levels: descending, of mean ratio :math:`\gamma`.
        steps: ``T``, on each.
    """
    gamma = (levels[0] / levels[-1]) ** (1 / (len(levels) - 1))

    def slope(eta: float) -> float:
        left = (1 - (1 - eta) ** (2 * steps)) / (2 - eta) ** 2
        return float(left - steps * (1 - eta) ** (2 * steps - 1) * (gamma**2 - 2 / (2 - eta)))

    return float(brentq(slope, 0.0, 1.0, xtol=1e-15) * levels[-1] ** 2)


def published_rungs(
    config: Mapping[str, Any], num_inference_steps: int, eta: float | None = None
) -> list[Rung]:
    r"""The schedule that a configuration stands for, from the papers' formulas alone.

    What the chain really does (`hdzoo.samplers.base.Sampler.moves`) is left out of it, so that the
    two can be compared.

    Args:
        config: with ``sigmas``, or ``sigma_max``, ``sigma_min`` and ``num_levels``.
        num_inference_steps: shared evenly; the smaller noise levels get the rest.
        eta: :math:`\alpha / \sigma^2` on each level; from ``step_size`` by default.
    """
    levels = published_ladder(config)
    each, rest = divmod(num_inference_steps, len(levels))
    steps = [each + (i >= len(levels) - rest) for i in range(len(levels))]
    step_size = config.get("step_size")
    if eta is not None:
        alphas = eta * levels**2
    elif step_size is None:
        alphas = 0.2 * levels**2
    elif step_size == "ncsnv2":
        alphas = technique_4(levels, config["steps_per_level"]) * (levels / levels[-1]) ** 2
    elif isinstance(step_size, list | tuple):
        alphas = np.asarray(step_size, dtype=float)
    else:
        alphas = step_size * (levels / levels[-1]) ** 2
    return [Rung(*rung) for rung in zip(levels.tolist(), alphas.tolist(), steps, strict=True)]


def published_moves(config: Mapping[str, Any], num_inference_steps: int) -> int:
    """How many evaluations move the state: all but those of a matrix read-out's products.

    Args:
        config: with a ``readout``, and ``readout_steps`` if that is the one.
        num_inference_steps: all of them.
    """
    products = config["readout_steps"] if config["readout"] == "matrix" else 0
    return int(num_inference_steps - products)


def published_descent(
    config: Mapping[str, Any], num_inference_steps: int, eta: float
) -> list[tuple[Rung, Rung | None, bool]]:
    """Each rung of `published_rungs`, the next one, and whether the last move adds no noise.

    Args:
        config: likewise, with a ``hand_off`` and a ``readout``.
        num_inference_steps: likewise.
        eta: that where ``step_size`` is None.

    Returns:
        None for a next rung after the last, where the last move may be a read-out.
    """
    given = None if config["step_size"] is not None else eta
    rungs = published_rungs(config, published_moves(config, num_inference_steps), given)
    hands_on_noise, reads_out = config["hand_off"] in ("own", "next"), config["readout"] is not None
    quiet = [not hands_on_noise] * (len(rungs) - 1) + [reads_out]
    return list(zip(rungs, [*rungs[1:], None], quiet, strict=True))
