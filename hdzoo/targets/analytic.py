"""What every score model with a closed form shares."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers import SchedulerMixin as SchedulerMixin  # diffusers' loader looks it up here

from hdzoo.bundled import LoadedByName
from hdzoo.checks import (
    HIGHEST_NOISE,
    IMAGES,
    LOWEST_NOISE,
    NOISE_LEVEL,
    NOT_NEGATIVE,
    POSITIVE,
    Interval,
    Many,
    Maybe,
    Whole,
    floating,
    real_array,
    refuse,
)
from hdzoo.errors import HDZooError
from hdzoo.scores.energies import check_extras
from hdzoo.scores.output import ScoreOutput
from hdzoo.text import counted

Sigma = float | torch.Tensor

# The rules of options that several targets have.
SHAPE = Many(Whole(1, 2**31), most=16)
PIXELS = Maybe(Interval())


class AnalyticScore(LoadedByName, ModelMixin, ConfigMixin):
    r"""A distribution :math:`p` on :math:`R^d` whose noisy score is known exactly.

    It is a score network like any other: it predicts :math:`\nabla \log p_\sigma(x)`, is saved and
    loaded, and `HDPipeline` samples it. Besides it gives exact samples, the log density at every
    noise level, the optimal denoiser and the posterior covariance.

    Computed in float64 whatever the dtypes of the parameters and of ``x``; the result has that of
    ``x``. `torch.autograd` goes through `log_density`. Memory grows with the number of points.

    A subclass has a ``sample_shape`` in its configuration, keeps its numbers as parameters that
    need no gradient, and implements `mean`, `covariance`, `_draw`, `_log_density`, `_score` and
    `_posterior_covariance`, and `_denoised` where it can do better than Tweedie's formula, on flat
    points in float64: ``x`` of shape (n, d), ``sigma`` of shape (n, 1) or (1, 1).
    """

    prediction_type = "score"
    coordinates = "ve"
    # What `forward` gives beside the score to those who ask for it.
    provides: tuple[str, ...] = ("energy",)
    config_name = "config.json"

    # ---- what a subclass gives --------------------------------------------------------------

    @property
    def mean(self) -> torch.Tensor:
        """The mean of the data, shape (d,)."""
        raise NotImplementedError

    @property
    def covariance(self) -> torch.Tensor:
        """The covariance of the data, shape (d, d)."""
        raise NotImplementedError

    def _draw(self, num_samples: int, generator: torch.Generator | None) -> torch.Tensor:
        raise NotImplementedError

    def _log_density(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _score(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _denoised(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x + sigma**2 * self._score(x, sigma)

    def _posterior_covariance(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    @property
    def _has_density(self) -> bool:
        """Whether the data have a density themselves, without noise."""
        return True

    # ---- what everybody uses ----------------------------------------------------------------

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.config.sample_shape)

    @property
    def dimension(self) -> int:
        """``d``, the number of coordinates of a sample."""
        return math.prod(self.sample_shape)

    def sample(
        self, num_samples: int, generator: torch.Generator | None = None, sigma: float = 0.0
    ) -> torch.Tensor:
        """Draws exact samples.

        Args:
            num_samples: how many.
            generator: where the randomness comes from; the global one by default.
            sigma: noise of this standard deviation is added.

        Returns:
            Shape (num_samples, *sample_shape), in the dtype of the parameters.

        Raises:
            HDZooError: one of the numbers is out of its range.
        """
        num_samples, sigma = IMAGES("num_samples", num_samples), NOT_NEGATIVE("sigma", sigma)
        if not isinstance(generator, torch.Generator | None):
            refuse("generator", generator, "a torch.Generator, or None")
        samples = self._draw(num_samples, generator)
        if sigma > 0:
            samples = samples + sigma * self._normal(samples.shape, generator)
        return samples.view(num_samples, *self.sample_shape)

    def log_density(self, x: torch.Tensor, sigma: Sigma = 0.0) -> torch.Tensor:
        r"""The log density :math:`\log p_\sigma(x)`.

        Args:
            x: points, shape (n, *sample_shape).
            sigma: noise level: a number, or a tensor with one for all or one for each point. 0 for
                the data themselves, where they have a density. The values of a tensor on an
                accelerator are not checked.

        Returns:
            Shape (n,).

        Raises:
            HDZooError: the points are no floating-point tensor, or a shape or a noise level does
                not fit.
        """
        points, level = self._flat(x, sigma)
        return self._log_density(points, level).to(x.dtype)

    def score(self, x: torch.Tensor, sigma: Sigma = 0.0) -> torch.Tensor:
        r"""The score :math:`\nabla \log p_\sigma(x)`; arguments as in `log_density`.

        Returns:
            The shape and dtype of ``x``.
        """
        points, level = self._flat(x, sigma)
        return self._score(points, level).view(x.shape).to(x.dtype)

    def denoise(self, x: torch.Tensor, sigma: Sigma) -> torch.Tensor:
        r"""The optimal denoiser :math:`E[x_0 | x] = x + \sigma^2 s(x, \sigma)` (Tweedie).

        Arguments as in `log_density`.

        Returns:
            The shape and dtype of ``x``.
        """
        points, level = self._flat(x, sigma)
        return self._denoised(points, level).view(x.shape).to(x.dtype)

    def posterior_covariance(self, x: torch.Tensor, sigma: Sigma) -> torch.Tensor:
        r"""The posterior covariance :math:`Cov[x_0 | x]`; arguments as in `log_density`.

        It equals :math:`\sigma^2 (I + \sigma^2 \nabla^2 \log p_\sigma(x))` (second-order Tweedie).

        Returns:
            Shape (n, d, d), in the dtype of ``x``.
        """
        points, level = self._flat(x, sigma)
        return self._posterior_covariance(points, level).to(x.dtype)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: Sigma,
        return_dict: bool = True,
        extras: Sequence[str] = (),
    ) -> ScoreOutput | tuple[torch.Tensor, ...]:
        r"""The score, as a network gives it.

        Args:
            sample: noisy points, shape (n, *sample_shape).
            timestep: the noise level: a number, a scalar tensor, or one for each sample.
            return_dict: whether to return a `ScoreOutput` or a tuple.
            extras: what else to compute: ``"energy"``, :math:`-\log p_\sigma(x)`, shape (n,).

        Raises:
            HDZooError: a shape does not fit, or something else is asked for.
        """
        check_extras(type(self).__name__, extras, self.provides)
        energy = -self.log_density(sample, timestep) if "energy" in extras else None
        output = ScoreOutput(sample=self.score(sample, timestep), energy=energy)
        return output if return_dict else output.to_tuple()

    # ---- checks and dtypes ------------------------------------------------------------------

    def _flat(self, x: torch.Tensor, sigma: Sigma) -> tuple[torch.Tensor, torch.Tensor]:
        floating("x", x, f"of shape (n, {', '.join(map(str, self.sample_shape))})")
        if tuple(x.shape[1:]) != self.sample_shape:
            raise HDZooError(
                f"the points have the shape {tuple(x.shape)}; this target needs "
                f"(n, {', '.join(map(str, self.sample_shape))})"
            )
        self._check(sigma)
        points = x.flatten(1).to(torch.float64)
        level = torch.as_tensor(sigma, dtype=points.dtype, device=points.device).reshape(-1, 1)
        if len(level) not in (1, len(points)):
            raise HDZooError(
                f"sigma has {counted(len(level), 'noise level')} for "
                f"{counted(len(points), 'point')}; give one, or one for each point"
            )
        return points, level

    def _check(self, sigma: Sigma) -> None:
        level: Any = sigma
        if isinstance(sigma, torch.Tensor):
            if sigma.dtype == torch.bool or sigma.is_complex():
                refuse("sigma", sigma, "a tensor of real numbers")
            # A tensor may come from a loop over timesteps on a device, where a look would wait.
            if sigma.device.type != "cpu" or sigma.numel() == 0:
                return
            fits = (sigma == 0) | ((sigma >= LOWEST_NOISE) & (sigma <= HIGHEST_NOISE))
            level = (sigma if fits.all() else sigma[~fits]).min()
        if NOT_NEGATIVE("sigma", level) > 0:
            NOISE_LEVEL("sigma", level)
        elif not self._has_density:
            refuse("sigma", level, f"{POSITIVE}, for the data have no density without noise")

    def _uniform(self, shape: Any, generator: torch.Generator | None) -> torch.Tensor:
        return self._random(torch.rand, shape, generator)

    def _normal(self, shape: Any, generator: torch.Generator | None) -> torch.Tensor:
        return self._random(torch.randn, shape, generator)

    def _random(
        self, draw: Callable[..., torch.Tensor], shape: Any, generator: torch.Generator | None
    ) -> torch.Tensor:
        device = self.device if generator is None else generator.device
        return draw(shape, generator=generator, device=device, dtype=self.dtype).to(self.device)


def fixed(maker: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.nn.Parameter:
    """A parameter that no optimiser moves, in float64 if nothing else is said.

    Args:
        maker: a function that makes a tensor, such as `torch.zeros`.
        *args: its arguments.
        **kwargs: the others.
    """
    tensor = maker(*args, **{"dtype": torch.float64} | kwargs)
    return torch.nn.Parameter(tensor, requires_grad=False)


def real_tensor(name: str, values: Any) -> torch.Tensor:
    """Finite numbers in any form as a tensor of float64.

    Raises:
        HDZooError: they are none.
    """
    return torch.from_numpy(np.array(real_array(name, values), order="C"))
