"""The empirical law of a data set, whose optimal denoiser is a softmax average of the data."""

import math
from collections.abc import Iterator
from typing import Any, Self

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import COUNT, OneOf, Whole, checked, refuse
from hdzoo.errors import HDZooError
from hdzoo.memory import within_memory
from hdzoo.targets.analytic import PIXELS, SHAPE, AnalyticScore, fixed

POINTS_DTYPES = ("float64", "float32", "bfloat16", "float16")


class EmpiricalScore(AnalyticScore):
    r"""Equal point masses on the points :math:`p_1 \dots p_N` of a data set.

    .. math::
        p_\sigma(x) = \frac{1}{N} \sum_j N(x; p_j, \sigma^2), \quad
        w_j = \mathrm{softmax}_j \left( -\frac{|x - p_j|^2}{2 \sigma^2} \right), \quad
        E[x_0 | x] = \sum_j w_j p_j

    The sums run over ``chunk_size`` points at a time with a running maximum, so that memory grows
    with the batch times ``chunk_size``, whatever the size of the data set. They are in float64, for
    at small noise the exponents differ by less than a rounding of :math:`|x|^2 / \sigma^2` in
    float32; the points keep their own dtype. The points are moved by the first one, so that data
    far from the origin lose nothing.

    Built by `from_points`; as it is, point masses at 0.

    Args:
        sample_shape: shape of one sample.
        num_points: ``N``.
        chunk_size: how many points are looked at together; a matter of memory and speed alone.
        points_dtype: what the points are stored in: ``"float64"``, ``"float32"``, ``"bfloat16"``
            or ``"float16"``.
        data_range: lowest and highest value of a pixel, where the samples are images.

    Raises:
        HDZooError: an option is of a wrong type or out of its range, or the points would not fit in
            memory.
    """

    @checked(
        sample_shape=SHAPE,
        num_points=COUNT,
        chunk_size=Whole(1, 2**31),
        points_dtype=OneOf(POINTS_DTYPES),
        data_range=PIXELS,
    )
    @register_to_config
    @within_memory
    def __init__(
        self,
        sample_shape: tuple[int, ...] = (1,),
        num_points: int = 1,
        chunk_size: int = 4096,
        points_dtype: str = "float32",
        data_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        dtype = getattr(torch, points_dtype)
        self.points = fixed(torch.zeros, num_points, math.prod(sample_shape), dtype=dtype)

    @classmethod
    def from_points(
        cls,
        points: Any,
        data_range: tuple[float, float] | None = None,
        chunk_size: int = 4096,
    ) -> Self:
        """Builds the law from a data set.

        Args:
            points: shape (N, *sample_shape), an array or a tensor of a floating dtype.
            data_range: as in the class.
            chunk_size: as in the class.

        Raises:
            HDZooError: there is no point, or the points are no floating numbers, or not finite.
        """
        try:
            tensor = torch.as_tensor(points)
        except (TypeError, ValueError, RuntimeError) as error:
            refuse("points", points, "an array or a tensor, shape (N, *sample_shape)", error)
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.ndim < 2 or tensor.numel() == 0:
            raise HDZooError(
                f"points have the shape {tuple(tensor.shape)}; it must be (N, *sample_shape), N at "
                "least 1"
            )
        if dtype not in POINTS_DTYPES:
            raise HDZooError(
                f"points have the dtype {dtype}; allowed are {', '.join(POINTS_DTYPES)}: convert "
                "them, into the units of data_range"
            )
        if not torch.isfinite(tensor).all():
            raise HDZooError("points have values that are not finite; leave those points out")
        model = cls(tuple(tensor.shape[1:]), len(tensor), chunk_size, dtype, data_range)
        model.points.data.copy_(tensor.flatten(1))
        return model

    @property
    def mean(self) -> torch.Tensor:
        offsets = sum(chunk.sum(0) for chunk in self._chunks())
        return self._origin + offsets / len(self.points)

    @property
    def covariance(self) -> torch.Tensor:
        center = self.mean - self._origin
        parts = (chunk - center for chunk in self._chunks())
        return torch.as_tensor(sum(part.T @ part for part in parts)) / len(self.points)

    @property
    def _has_density(self) -> bool:
        return False

    def _draw(self, num_samples: int, generator: torch.Generator | None) -> torch.Tensor:
        device = self.device if generator is None else generator.device
        chosen = torch.randint(len(self.points), (num_samples,), generator=generator, device=device)
        return self.points[chosen.to(self.device)]

    @property
    def _origin(self) -> torch.Tensor:
        return self.points[0].double()

    def _chunks(self) -> Iterator[torch.Tensor]:
        """The points, measured from the first one."""
        for chunk in self.points.split(self.config.chunk_size):
            yield chunk.double() - self._origin

    def _exponents(
        self, offset: torch.Tensor, chunk: torch.Tensor, sigma: torch.Tensor
    ) -> torch.Tensor:
        """``-|x - p|^2 / 2 sigma^2``, shape (n, chunk)."""
        squares = (offset**2).sum(1, keepdim=True) + (chunk**2).sum(1)
        return (offset @ chunk.T - squares / 2) / sigma**2

    def _sums(
        self, offset: torch.Tensor, sigma: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sums over all points, of weights ``exp(exponent - largest)``.

        Returns:
            The largest exponent and the sum of the weights, both of shape (n, 1), and the average
            point, (n, d).
        """
        largest = torch.full_like(offset[:, :1], -math.inf)
        total, average = torch.zeros_like(largest), torch.zeros_like(offset)
        for chunk in self._chunks():
            exponents = self._exponents(offset, chunk, sigma)
            before, largest = largest, torch.maximum(largest, exponents.amax(1, keepdim=True))
            terms, kept = (exponents - largest).exp(), (before - largest).exp()
            total = kept * total + terms.sum(1, keepdim=True)
            average = kept * average + terms @ chunk
        return largest, total, average / total

    def _log_density(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        largest, total, _ = self._sums(x - self._origin, sigma)
        normal = self.dimension / 2 * (2 * math.pi * sigma**2).log()
        return (largest + (total / len(self.points)).log() - normal)[:, 0]

    def _score(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        offset = x - self._origin
        return (self._sums(offset, sigma)[2] - offset) / sigma**2

    def _denoised(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return self._origin + self._sums(x - self._origin, sigma)[2]

    def _posterior_covariance(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        offset = x - self._origin
        largest, sums, average = self._sums(offset, sigma)
        total = x.new_zeros(len(x), self.dimension, self.dimension)
        for chunk in self._chunks():
            weights = (self._exponents(offset, chunk, sigma) - largest).exp() / sums
            # One point at a time: the deviations of all would be batch x chunk x d numbers.
            for i, mine in enumerate(weights):
                deviation = chunk - average[i]
                total[i] += (mine[:, None] * deviation).T @ deviation
        return total
