"""Independent Laplace coordinates: sharp peaks and heavy tails."""

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import checked
from hdzoo.errors import HDZooError
from hdzoo.memory import within_memory
from hdzoo.targets.analytic import PIXELS, SHAPE, AnalyticScore, fixed, real_tensor
from hdzoo.targets.quadrature import truncated_normal


class LaplaceScore(AnalyticScore):
    r"""A product of Laplace laws with density :math:`e^{-|u| / b} / 2b`, :math:`u = x - m`.

    Each coordinate of a noisy point comes from the right or from the left side of ``m``:

    .. math::
        p_\sigma(x) = \frac{e^{\sigma^2 / 2 b^2}}{2 b} \left[ e^{-u/b} \Phi(z_+)
            + e^{u/b} \Phi(z_-) \right], \quad z_\pm = \pm \frac{u}{\sigma} - \frac{\sigma}{b},

        s(x, \sigma) = -\frac{w_+ - w_-}{b}

    with the shares :math:`w_\pm` of the two terms. Given the side, :math:`|x_0 - m|` is
    :math:`N(\sigma z_\pm, \sigma^2)` cut to the positive numbers, of mean :math:`\mu_\pm` and
    variance :math:`v_\pm`; so

    .. math::
        E[x_0 | x] = m + w_+ \mu_+ - w_- \mu_-, \quad
        Var[x_0 | x] = w_+ v_+ + w_- v_- + w_+ w_- (\mu_+ + \mu_-)^2.

    Without noise the score is :math:`-sign(u) / b`. Built by `from_parameters`; as it is, of mean 0
    and scale 1.

    Args:
        sample_shape: shape of one sample.
        data_range: lowest and highest value of a pixel, where the samples are images.

    Raises:
        HDZooError: an option is of a wrong type or out of its range.
    """

    @checked(sample_shape=SHAPE, data_range=PIXELS)
    @register_to_config
    @within_memory
    def __init__(
        self,
        sample_shape: tuple[int, ...] = (1,),
        data_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.center = fixed(torch.zeros, math.prod(sample_shape))
        self.scale = fixed(torch.ones, math.prod(sample_shape))

    @classmethod
    def from_parameters(
        cls,
        center: Any,
        scale: Any,
        sample_shape: Sequence[int] | None = None,
        data_range: tuple[float, float] | None = None,
    ) -> Self:
        """Builds the law.

        Args:
            center: ``m``, the shape of a sample or a number for a single coordinate.
            scale: ``b``, positive: a number or one for each coordinate. The standard deviation is
                ``sqrt(2) b``.
            sample_shape: shape of one sample; that of ``center`` by default.
            data_range: as in the class.

        Raises:
            HDZooError: a shape does not fit, or a scale is not positive.
        """
        centers, scales = real_tensor("center", center), real_tensor("scale", scale)
        centers = centers[None] if centers.ndim == 0 else centers
        shape = tuple(
            SHAPE("sample_shape", centers.shape if sample_shape is None else sample_shape)
        )
        if math.prod(shape) != centers.numel() or scales.numel() not in (1, centers.numel()):
            raise HDZooError(
                f"sample_shape is {shape}, center has {centers.numel()} values and scale "
                f"{scales.numel()}; center needs one for each coordinate, and scale too, or a "
                "single one"
            )
        if not (scales > 0).all():
            raise HDZooError(f"scale has the value {scales.min().item():g}; it must be positive")
        model = cls(shape, data_range)
        model.center.data.copy_(centers.flatten())
        model.scale.data.copy_(scales.flatten())
        return model

    @property
    def mean(self) -> torch.Tensor:
        return self.center

    @property
    def covariance(self) -> torch.Tensor:
        return torch.diag(2 * self.scale**2)

    def _draw(self, num_samples: int, generator: torch.Generator | None) -> torch.Tensor:
        uniform, side = self._uniform((2, num_samples, self.dimension), generator)
        # The uniform numbers may be 0 and are below 1.
        return self.center - torch.where(side < 0.5, -1, 1) * self.scale * torch.log1p(-uniform)

    def _sides(
        self, x: torch.Tensor, sigma: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """``u``, the noise (1 where there is none), ``z_+`` and ``z_-``."""
        offset = x - self.center.double()
        noise = torch.where(sigma > 0, sigma, 1)
        ratio = noise / self.scale.double()
        return offset, noise, offset / noise - ratio, -offset / noise - ratio

    def _log_density(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        offset, noise, right, left = self._sides(x, sigma)
        scale = self.scale.double()

        def side(z: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
            # Of the two forms of one term, the one without large numbers that cancel.
            inner = (noise / scale) ** 2 / 2 - distance / scale
            inner = inner + torch.special.log_ndtr(z.clamp(min=0))
            return torch.where(z >= 0, inner, _log_half_erfcx(z) - (offset / noise) ** 2 / 2)

        # The second derivatives of torch.logaddexp are NaN where one term is far larger.
        density = torch.stack([side(right, offset), side(left, -offset)]).logsumexp(0)
        density = torch.where(sigma > 0, density, -offset.abs() / scale)
        return (density - (2 * scale).log()).sum(1)

    def _log_odds(self, right: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
        """``log(w_+ / w_-)``"""

        def side(z: torch.Tensor) -> torch.Tensor:
            inner = z**2 / 2 + torch.special.log_ndtr(z.clamp(min=0))
            return torch.where(z >= 0, inner, _log_half_erfcx(z))

        return side(right) - side(left)

    def _score(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        offset, _, right, left = self._sides(x, sigma)
        balance = torch.tanh(self._log_odds(right, left) / 2)
        return -torch.where(sigma > 0, balance, offset.sign()) / self.scale.double()

    def _moments(self, x: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``E[x_0 | x] - m`` and ``Var[x_0 | x]``, coordinate by coordinate."""
        offset, noise, right, left = self._sides(x, sigma)
        odds = self._log_odds(right, left)
        shares = odds.sigmoid(), (-odds).sigmoid()
        sides = [truncated_normal(-z, math.inf) for z in (right, left)]
        mean = noise * (shares[0] * sides[0].mean - shares[1] * sides[1].mean)
        variance = shares[0] * sides[0].variance + shares[1] * sides[1].variance
        variance = variance + shares[0] * shares[1] * (sides[0].mean + sides[1].mean) ** 2
        clean = sigma == 0
        return torch.where(clean, offset, mean), torch.where(clean, 0, noise**2 * variance)

    def _denoised(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return self.center.double() + self._moments(x, sigma)[0]

    def _posterior_covariance(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.diag_embed(self._moments(x, sigma)[1])


def _log_half_erfcx(z: torch.Tensor) -> torch.Tensor:
    r""":math:`\log \Phi(z) + z^2 / 2` for negative ``z``, however far out."""
    return torch.special.erfcx(-z.clamp(max=0) / math.sqrt(2)).log() - math.log(2)
