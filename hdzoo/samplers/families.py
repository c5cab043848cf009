"""The families of samplers: down a ladder of noise levels, down one that is as fine as their
evaluations allow, and at a single level."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import checked
from hdzoo.errors import HDZooError
from hdzoo.samplers.base import Move, Sampler
from hdzoo.samplers.configurations import keep_own_step_size
from hdzoo.samplers.ladders import (
    check_ladder,
    geometric_ladder,
    langevin_step_sizes,
    ncsnv2_step_size,
    refine_ladder,
    whole_number,
)
from hdzoo.samplers.noise import Noise
from hdzoo.samplers.options import LADDER_RULES, SINGLE_LEVEL_RULES, STARTS


class LadderSampler(Sampler):
    r"""A sampler that walks down a ladder of noise levels.

    Args:
        sigma_max: the first level of a geometric ladder.
        sigma_min: its last level.
        num_levels: how many levels it has.
        sigmas: an explicit ladder instead, descending.
        steps_per_level: network evaluations on each level, when no number is asked for.
        step_size: :math:`\alpha` on the last level (:math:`\epsilon` in the papers), from which
            :math:`\alpha_i = \epsilon \sigma_i^2 / \sigma_L^2`; or a list with :math:`\alpha` on
            each level; or ``"ncsnv2"`` for technique 4 of Song and Ermon (arXiv 2006.09011); or
            None for :math:`0.2 \sigma_L^2` (`default_eta`), which is the published
            :math:`2 \cdot 10^{-5}` at :math:`\sigma_L = 0.01`.
        start: the law of the first state: ``"normal"``, noise of the first level about the data's
            centre; ``"gaussian"``, the noisy data's own mean and variance,
            :math:`N(\mu, \sigma_1^2 + \sigma_d^2)`, of which the network records :math:`\sigma_d`
            (``data_std``); or ``"uniform"`` on the range of the data, whatever the first level, as
            in the papers of NCSN and NCSNv2.
        prediction_type: what the network predicts.
        timestep_type: how it is told the noise level.
        sigma_data: standard deviation of the data, for a bare network in Karras' preconditioning.

    Raises:
        HDZooError: the ladder does not descend, or :math:`\eta` is outside (0, 2), where the walk
            does not converge.
    """

    # The step size, in units of sigma^2, where none is given.
    default_eta: ClassVar[float] = 0.2

    @checked(**LADDER_RULES)
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        num_levels: int = 10,
        sigmas: list[float] | None = None,
        steps_per_level: int = 100,
        step_size: float | list[float] | str | None = None,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    @classmethod
    def adopt(cls, config: dict[str, Any]) -> dict[str, Any]:
        return keep_own_step_size(config, "sigma", "single_level_step_size", "ladder_step_size")

    @property
    def default_num_inference_steps(self) -> int:
        return len(self.ladder) * whole_number(self.config.steps_per_level, "steps_per_level")

    @property
    def ladder(self) -> list[float]:
        """The configured noise levels, descending."""
        return self.ladder_of(self.config.num_levels)

    def ladder_of(self, num_levels: int) -> list[float]:
        """The configured ladder.

        Args:
            num_levels: how many levels it has where it is geometric.
        """
        config = self.config
        if config.get("start", "normal") not in STARTS:
            raise HDZooError(f"unknown start {config.start!r}; allowed are {', '.join(STARTS)}")
        if config.sigmas is not None:
            return check_ladder(config.sigmas)
        return geometric_ladder(config.sigma_max, config.sigma_min, num_levels)

    def rungs(self, num_inference_steps: int) -> Sequence[float]:
        return self.ladder

    def first_state(
        self,
        shape: Sequence[int],
        noise: Noise,
        centre: float = 0.0,
        data_range: tuple[float, float] | None = None,
        data_std: float | None = None,
    ) -> torch.Tensor:
        start = self.config.get("start", "normal")
        if start == "normal":
            return super().first_state(shape, noise, centre, data_range, data_std)
        if start == "gaussian":
            if data_std is None:
                raise HDZooError(
                    "start is 'gaussian', and this network does not record the standard deviation "
                    "of its data (data_std); use start='normal'"
                )
            wide = math.hypot(self.levels[0], data_std)
            return self.from_ve(centre + wide * noise.normal(shape), self.levels[0])
        if data_range is None:
            raise HDZooError(
                "start is 'uniform' on the range of the data, and the samples of this network are "
                "no images; use start='normal'"
            )
        low, high = data_range
        return self.from_ve(low + (high - low) * noise.uniform(shape), self.levels[0])

    def step_sizes(self, sigmas: Sequence[float]) -> Sequence[float]:
        step_size = self.config.step_size
        if step_size is None:
            alphas = langevin_step_sizes(sigmas, self.default_eta * sigmas[-1] ** 2)
        elif step_size == "ncsnv2":
            step_size = ncsnv2_step_size(sigmas, self.config.steps_per_level)
            alphas = langevin_step_sizes(sigmas, step_size)
        elif isinstance(step_size, str):
            raise HDZooError(
                f"step_size is {step_size!r}; allowed are a number, a list with one number for "
                "each noise level, 'ncsnv2', and None"
            )
        elif isinstance(step_size, Sequence):
            alphas = [float(alpha) for alpha in step_size]
            if len(alphas) != len(sigmas):
                raise HDZooError(
                    f"step_size has {len(alphas)} numbers and the ladder {len(sigmas)} levels; "
                    "give one for each level"
                )
        else:
            alphas = langevin_step_sizes(sigmas, float(step_size))
        for sigma, alpha in zip(sigmas, alphas, strict=True):
            if not 0 < alpha < 2 * sigma**2:
                raise HDZooError(
                    f"step_size gives alpha = {alpha:g} at noise level {sigma:g}; the walk "
                    f"converges for 0 < alpha < 2 sigma^2 = {2 * sigma**2:g}"
                )
        return alphas


class RefinedLadderSampler(LadderSampler):
    r"""A sampler that goes down a ladder as fine as its number of evaluations allows.

    The chain starts at the largest level, however few its evaluations.

    Args:
        sigma_max: the first level.
        sigma_min: the last level above 0.
        sigmas: an explicit ladder instead, descending, on whose curve the levels are put.
        rho: :math:`\rho`, from 1 to 1000: between the levels that are given,
            :math:`\sigma^{1 / \rho}` is spaced evenly; 7 is the schedule of Karras et al. (arXiv
            2206.00364), equation 5. None for :math:`\log \sigma`, a geometric ladder.
        num_steps: network evaluations, when no number is asked for.
        start: the law of the first state, as in `LadderSampler`.
        prediction_type: what the network predicts.
        timestep_type: how it is told the noise level.
        sigma_data: standard deviation of the data, for a bare network in Karras' preconditioning.

    Raises:
        HDZooError: the ladder does not descend.
    """

    @checked(**LADDER_RULES)
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        sigmas: list[float] | None = None,
        rho: float | None = 7.0,
        num_steps: int = 50,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    @classmethod
    def adopt(cls, config: dict[str, Any]) -> dict[str, Any]:
        # No step size of its own, so none to be mistaken for it.
        return config

    @property
    def default_num_inference_steps(self) -> int:
        return whole_number(self.config.num_steps, "num_steps")

    @property
    def ladder(self) -> list[float]:
        # The two ends, where it is not given.
        return self.ladder_of(2)

    def levels_for(self, num_inference_steps: int) -> int:
        """How many levels so many network evaluations are for; as many, if not overridden."""
        return num_inference_steps

    def rungs(self, num_inference_steps: int) -> Sequence[float]:
        ladder, num_levels = self.ladder, self.levels_for(num_inference_steps)
        if num_levels == 1:
            return ladder[:1]
        return refine_ladder(ladder, num_levels, self.config.rho)


class OwnLadderSampler(RefinedLadderSampler):
    """A sampler on a refined ladder, or on a geometric one that is its own.

    A short ladder that ends early, with a denoising step, is good for one sampler and bad for the
    next, which takes the range of noise levels over by ``from_config``. What ``geomspace`` says
    stays with the sampler. There an option that says otherwise (``sigma_max``, ``sigma_min``,
    ``sigmas``, ``rho``, ``num_steps``) takes away a ``geomspace`` that is not given with it.

    Args:
        geomspace: first level, last level and how many, as in `numpy.geomspace`, in the place of
            those options; another number of evaluations makes another number of levels. None for
            the ladder of `RefinedLadderSampler`, which has the other options.
    """

    @classmethod
    def from_config(
        cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Self | tuple[Self, dict[str, Any]]:
        if not {"sigma_max", "sigma_min", "sigmas", "rho", "num_steps"}.isdisjoint(kwargs):
            kwargs.setdefault("geomspace", None)
        return super().from_config(config, return_unused_kwargs, **kwargs)

    @property
    def default_num_inference_steps(self) -> int:
        own = self.config.geomspace
        return super().default_num_inference_steps if own is None else int(own[2])

    def rungs(self, num_inference_steps: int) -> Sequence[float]:
        if self.config.geomspace is None:
            return super().rungs(num_inference_steps)
        first, last, _ = self.config.geomspace
        levels = self.levels_for(num_inference_steps)
        return [first] if levels == 1 else geometric_ladder(first, last, levels)


def root(share: float) -> float:
    """The square root, and 0 for what differs from 0 by a rounding only."""
    return math.sqrt(share) if share > 1e-12 else 0.0


class SingleLevelSampler(Sampler):
    r"""A sampler that walks at one noise level; start it from states at that level.

    Args:
        sigma: the noise level.
        step_size: :math:`\alpha`; None for the sampler's own default.
        num_steps: network evaluations, when no number is asked for.
        prediction_type: what the network predicts.
        timestep_type: how it is told the noise level.
        sigma_data: standard deviation of the data, for a bare network in Karras' preconditioning.

    Raises:
        HDZooError: the noise level or the step size is not positive.
    """

    starts_from_noise = False

    @checked(**SINGLE_LEVEL_RULES)
    @register_to_config
    def __init__(
        self,
        sigma: float = 0.1,
        step_size: float | None = None,
        num_steps: int = 50,
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    @classmethod
    def adopt(cls, config: dict[str, Any]) -> dict[str, Any]:
        return keep_own_step_size(
            config, "num_levels", "ladder_step_size", "single_level_step_size"
        )

    @property
    def default_num_inference_steps(self) -> int:
        return whole_number(self.config.num_steps, "num_steps")

    def rungs(self, num_inference_steps: int) -> Sequence[float]:
        return check_ladder([self.config.sigma])

    def default_step_size(self, sigma: float) -> float:
        """The step size when none is given."""
        raise NotImplementedError

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> Sequence[Move]:
        if len(sigmas) != 1:
            raise HDZooError(
                f"{type(self).__name__} walks at one noise level and {len(sigmas)} are given; "
                "repeat one, or take an annealed sampler"
            )
        return super().plan(sigmas, counts)

    def step_sizes(self, sigmas: Sequence[float]) -> Sequence[float]:
        given = self.config.step_size
        alpha = self.default_step_size(sigmas[0]) if given is None else given
        if isinstance(alpha, str | Sequence) or not (math.isfinite(alpha) and alpha > 0):
            raise HDZooError(f"step_size is {alpha!r}; it must be a positive number")
        return [float(alpha)]
