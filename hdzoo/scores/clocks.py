"""Clocks: how a network is told the noise level, as a timestep, and back.

==============  ====================================================================================
timestep type   what the network is told
==============  ====================================================================================
``sigma``       the noise level
``log_sigma``   ``log(sigma) / 4`` (Karras et al., arXiv 2206.00364, table 1)
``discrete``    the index of one of the noise levels that a DDPM was trained at (Ho et al., arXiv
                2006.11239), from its ``beta_schedule``
``time``        ``999 t``, ``0 < t <= 1``, in the VP process of Song et al. (arXiv 2011.13456)
==============  ====================================================================================
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DDPMScheduler

from hdzoo.checks import MAX_LEVELS, NOT_NEGATIVE, POSITIVE, Many, Number, Whole
from hdzoo.errors import HDZooError

TIMESTEP_TYPES = ("sigma", "log_sigma", "discrete", "time")
# diffusers' names of what fixes the noise levels of a discrete-time network...
DISCRETE_OPTIONS = (
    "num_train_timesteps",
    "beta_schedule",
    "beta_start",
    "beta_end",
    "trained_betas",
    "rescale_betas_zero_snr",
)
# ... and of a continuous-time one.
TIME_OPTIONS = ("beta_min", "beta_max")


class Clock(Protocol):
    """How a network is told the noise level."""

    def sigma(self, timestep: Any) -> Any:
        """The noise level at a timestep: a number or a tensor; the same is returned."""

    def timestep(self, sigma: float) -> float:
        """What the network is told at a noise level.

        Raises:
            HDZooError: the network was not trained at such a level.
        """

    def timesteps(self, sigmas: Sequence[float]) -> np.ndarray:
        """The same at many noise levels, in the time of array operations."""

    def known(self, sigmas: Sequence[float]) -> Sequence[float]:
        """The levels nearest to a ladder's that the network was trained at, as many.

        Raises:
            HDZooError: the network was not trained at such levels.
        """


class SigmaClock:
    """The network is told the noise level itself."""

    def sigma(self, timestep: Any) -> Any:
        return timestep

    def timestep(self, sigma: float) -> float:
        return float(self.timesteps([sigma])[0])

    def timesteps(self, sigmas: Sequence[float]) -> np.ndarray:
        return np.asarray(sigmas, dtype=float)

    def known(self, sigmas: Sequence[float]) -> Sequence[float]:
        return sigmas


class LogSigmaClock(SigmaClock):
    """The network is told ``log(sigma) / 4``."""

    def sigma(self, timestep: Any) -> Any:
        return (
            (4 * timestep).exp() if isinstance(timestep, torch.Tensor) else math.exp(4 * timestep)
        )

    def timesteps(self, sigmas: Sequence[float]) -> np.ndarray:
        return np.log(sigmas) / 4


class TimeClock(SigmaClock):
    r"""The network is told ``999 t`` of the VP process with a linear rate of noise.

    .. math:: \sigma^2 = \exp(B) - 1, \quad
        B = \beta_{min} t + \tfrac12 (\beta_{max} - \beta_{min}) t^2

    Source: Song et al. (arXiv 2011.13456), equation 33; the factor is that of their code.

    Args:
        beta_min: the rate at ``t = 0``.
        beta_max: the rate at ``t = 1``; the larger one.

    Raises:
        HDZooError: the rates are not such numbers.
    """

    factor = 999.0

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        beta_min, beta_max = NOT_NEGATIVE("beta_min", beta_min), POSITIVE("beta_max", beta_max)
        if not beta_min < beta_max:
            raise HDZooError(
                f"beta_min is {beta_min} and beta_max is {beta_max}; the noise grows at a rate "
                "from beta_min to beta_max, so 0 <= beta_min < beta_max"
            )
        self.beta_min = beta_min
        self.growth = beta_max - beta_min

    def sigma(self, timestep: Any) -> Any:
        t = timestep / self.factor
        exponent = self.beta_min * t + self.growth * t**2 / 2
        if isinstance(exponent, torch.Tensor):
            return exponent.expm1().sqrt()
        return math.sqrt(math.expm1(exponent))

    def timesteps(self, sigmas: Sequence[float]) -> np.ndarray:
        levels = np.asarray(sigmas, dtype=float)
        exponents = np.log1p(levels**2)
        roots = np.sqrt(self.beta_min**2 + 2 * self.growth * exponents)
        times = 2 * exponents / (self.beta_min + roots)
        # A noise level may have been through float32.
        if not times.max() <= 1 + 1e-6:
            raise HDZooError(
                f"a call asks for noise level {levels.max():g}, and the network was trained "
                f"up to {self.sigma(self.factor):g}; change sigma, sigma_max or sigmas"
            )
        return self.factor * times


class DiscreteClock(SigmaClock):
    r"""The network is told the index of a noise level.

    .. math:: \sigma_t = \sqrt{(1 - \bar\alpha_t) / \bar\alpha_t}

    Between two indices ``log sigma`` is interpolated, as by diffusers' `EulerDiscreteScheduler`:
    networks that embed the index as a wave take fractions. A network that looks its index up in a
    table does not; so ladders are moved to the levels that the network was trained at (`known`),
    where the index is whole and no network is asked for what it has not seen. Only a ladder of more
    levels than that stays as it is.

    Args:
        alphas_cumprod: :math:`\bar\alpha_t`, descending, in [0, 1). Levels of a zero at the end
            (``rescale_betas_zero_snr``) hold nothing of the data, and are left out.

    Raises:
        HDZooError: they do not descend.
    """

    def __init__(self, alphas_cumprod: Sequence[float]) -> None:
        kept = np.asarray(alphas_cumprod, dtype=float)
        kept = kept[: len(kept) - int((kept[-1:] == 0).sum())]
        if len(kept) < 2 or not (kept[-1] > 0 and kept[0] < 1 and (np.diff(kept) < 0).all()):
            raise HDZooError(
                "the noise schedule has no two noise levels, or they do not ascend from above 0; "
                "its betas (beta_start, beta_end, trained_betas) lie between 0 and 1"
            )
        self.sigmas: np.ndarray = np.sqrt((1 - kept) / kept)
        self._logs = np.log(self.sigmas)

    def sigma(self, timestep: Any) -> Any:
        if not isinstance(timestep, torch.Tensor):
            if not 0 <= timestep <= len(self.sigmas) - 1:
                raise HDZooError(
                    f"timestep {timestep:g} is none of the network's, which go from 0 to "
                    f"{len(self.sigmas) - 1}"
                )
            return float(self.sigma(torch.tensor(timestep, dtype=torch.float64)))
        if timestep.device.type == "cpu":
            # To look at those on an accelerator would wait.
            for extreme in (timestep.min(), timestep.max()):
                if not 0 <= extreme <= len(self.sigmas) - 1:
                    self.sigma(extreme.item())
        logs = torch.from_numpy(self._logs).to(timestep.device, float_dtype(timestep.device))
        place = timestep.to(logs.dtype)
        below = place.floor().long().clamp(0, len(logs) - 2)
        return torch.lerp(logs[below], logs[below + 1], place - below).exp()

    def timesteps(self, sigmas: Sequence[float]) -> np.ndarray:
        levels, low, high = np.asarray(sigmas, dtype=float), self.sigmas[0], self.sigmas[-1]
        for extreme in (levels.min(), levels.max()):
            if not low * (1 - 1e-6) <= extreme <= high * (1 + 1e-6):
                raise HDZooError(
                    f"a call asks for noise level {extreme:g}, and the network was trained "
                    f"for levels from {low:g} to {high:g}; change sigma, sigma_max, sigma_min or "
                    "sigmas"
                )
        places = np.interp(np.log(levels), self._logs, np.arange(len(self._logs)))
        # A level of the network's that has been through float32 is off by 1e-5.
        return np.where(np.abs(places - places.round()) < 1e-4, places.round(), places)

    def known(self, sigmas: Sequence[float]) -> Sequence[float]:
        nearest = self.timesteps(sigmas).round().astype(int)
        if nearest[0] - nearest[-1] + 1 < len(nearest):
            # There are not so many.
            return sigmas
        # No level comes twice: where the network's lie wide apart, at the small ones, the ladder
        # takes each of them, from the smallest up.
        order = np.arange(len(nearest))
        apart = np.maximum.accumulate((nearest + order)[::-1])[::-1] - order
        return self.sigmas[np.minimum(apart, nearest[0] - order)].tolist()


def clock_of(config: Mapping[str, Any]) -> Clock:
    """The clock that a configuration stands for.

    Args:
        config: with ``timestep_type`` (``"sigma"`` by default), and for ``"discrete"`` with the
            options `DISCRETE_OPTIONS` of diffusers' schedulers, for ``"time"`` with
            `TIME_OPTIONS`.

    Raises:
        HDZooError: the type is unknown, or the noise schedule is missing or none.
    """
    match config.get("timestep_type", "sigma"):
        case "sigma":
            return SigmaClock()
        case "log_sigma":
            return LogSigmaClock()
        case "time":
            return TimeClock(**{key: config[key] for key in TIME_OPTIONS if key in config})
        case "discrete":
            return discrete_clock(config)
        case kind:
            raise HDZooError(
                f"unknown timestep_type {kind!r}; allowed are {', '.join(TIMESTEP_TYPES)}"
            )


def discrete_clock(config: Mapping[str, Any]) -> DiscreteClock:
    """The clock of a discrete-time network, from the configuration of its diffusers scheduler.

    Args:
        config: with diffusers' options (`DISCRETE_OPTIONS`); those left out are `DDPMScheduler`'s.

    Raises:
        HDZooError: it has no noise schedule, or one that diffusers does not know.
    """
    given = {key: config[key] for key in DISCRETE_OPTIONS if key in config}
    if given.get("num_train_timesteps") is not None:
        count = Whole(1, MAX_LEVELS)("num_train_timesteps", given["num_train_timesteps"])
        given["num_train_timesteps"] = count
    if given.get("trained_betas") is not None:
        betas = Many(Number(), most=MAX_LEVELS)("trained_betas", given["trained_betas"])
        given["trained_betas"] = tuple(betas)
    elif given.get("beta_schedule") is None:
        raise HDZooError(
            "the configuration says nothing of the noise schedule (beta_schedule) that the "
            "network's timesteps are indices of; build the sampler by from_config from the "
            "configuration of the network's diffusers scheduler"
        )
    return _discrete_clock(tuple(given.items()))


@lru_cache(maxsize=32)
def _discrete_clock(options: tuple[tuple[str, Any], ...]) -> DiscreteClock:
    try:
        schedule = DDPMScheduler(**dict(options)).alphas_cumprod
    except (NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        raise HDZooError(
            f"diffusers makes no noise schedule of {dict(options)}: {error}"
        ) from error
    return DiscreteClock(schedule.tolist())


def float_dtype(device: str | torch.device | None) -> torch.dtype:
    """float64, but for MPS, which has none."""
    return torch.float32 if str(device).startswith("mps") else torch.float64
