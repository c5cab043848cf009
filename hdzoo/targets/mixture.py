"""Gaussians, mixtures of Gaussians, and point masses: the score in closed form."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import COUNT, Maybe, checked
from hdzoo.errors import HDZooError
from hdzoo.memory import within_memory
from hdzoo.targets.analytic import PIXELS, SHAPE, AnalyticScore, fixed, real_tensor


class _Block(NamedTuple):
    """Coordinates of ``x - mean`` in which each component's covariance is diagonal.

    Attributes:
        variances: shape (K, m), or (K, 1) where all are the same.
        offsets: the coordinates, shape (n, K, m).
        multiplicity: how many eigenvalues one column of ``variances`` stands for.
    """

    variances: torch.Tensor
    offsets: torch.Tensor
    multiplicity: int


class GaussianMixtureScore(AnalyticScore):
    r"""A mixture of Gaussians :math:`\sum_k w_k N(m_k, C_k)`; a point mass is :math:`C_k = 0`.

    With the responsibilities :math:`r_k` (`component_probabilities`) and the component's posterior
    mean :math:`\mu_k = m_k + C_k (C_k + \sigma^2)^{-1} (x - m_k)`,

    .. math::
        p_\sigma(x) = \sum_k w_k N(x; m_k, C_k + \sigma^2), \quad
        s(x, \sigma) = -\sum_k r_k (C_k + \sigma^2)^{-1} (x - m_k),

        E[x_0 | x] = \sum_k r_k \mu_k, \quad
        Cov[x_0 | x] = \sum_k r_k \left[ \sigma^2 C_k (C_k + \sigma^2)^{-1}
            + (\mu_k - E[x_0 | x]) (\mu_k - E[x_0 | x])^T \right].

    Built by `from_components` or `from_factors`; as it is, a standard normal. The covariances are
    kept as eigenvalues: along the axes if ``rank`` is None, else along ``rank`` orthonormal
    directions of each component and one more for all that is orthogonal to them. So a point costs
    ``K d`` numbers of memory and, with a rank, ``K d rank`` operations; no ``d x d`` matrix is
    formed but for a covariance that is asked for.

    Args:
        sample_shape: shape of one sample; ``d`` is its number of coordinates.
        num_components: ``K``.
        rank: None for covariances that are diagonal; ``d`` for full ones; less for low-rank ones
            with isotropic noise.
        data_range: lowest and highest value of a pixel, where the samples are images.

    Raises:
        HDZooError: an option is of a wrong type or out of its range, or the components would not
            fit in memory.
    """

    @checked(sample_shape=SHAPE, num_components=COUNT, rank=Maybe(COUNT), data_range=PIXELS)
    @register_to_config
    @within_memory
    def __init__(
        self,
        sample_shape: tuple[int, ...] = (1,),
        num_components: int = 1,
        rank: int | None = None,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        count, dimension = num_components, math.prod(sample_shape)
        if rank is not None and rank > dimension:
            raise HDZooError(
                f"rank is {rank} and the dimension {dimension}; there are at most as many "
                "directions as coordinates"
            )
        self.weights = fixed(torch.full, (count,), 1 / count)
        self.means = fixed(torch.zeros, count, dimension)
        if rank is None:
            self.variances = fixed(torch.ones, count, dimension)
            return
        self.basis = fixed(torch.zeros, count, dimension, rank)
        self.basis.diagonal(dim1=1, dim2=2).fill_(1)
        self.basis_variances = fixed(torch.ones, count, rank)
        self.rest_variances = fixed(torch.ones, count)

    @classmethod
    def from_components(
        cls,
        means: Any,
        covariances: Any,
        weights: Any = None,
        sample_shape: Sequence[int] | None = None,
        data_range: tuple[float, float] | None = None,
    ) -> Self:
        """Builds the mixture from its means and covariances.

        How many axes ``means`` has decides what ``covariances`` stands for, whatever the sizes.

        Args:
            means: shape (K, d). Or shape (d,) or a number for one Gaussian; then the first axis
                of ``covariances`` is left out too.
            covariances: a number, the variance of every coordinate; or isotropic variances (K,);
                diagonal ones (K, d); full ones (K, d, d), symmetric and positive semidefinite.
                For one Gaussian: a number, (d,) diagonal, (d, d) full. 0 for point masses. Of a
                full one, eigenvalues below ``d`` roundings of the largest are taken for 0.
            weights: shape (K,), positive; divided by their sum. Equal by default.
            sample_shape: shape of one sample; (d,) by default.
            data_range: as in the class.

        Raises:
            HDZooError: a shape does not fit, a weight is not positive, or a covariance is none.
        """
        centres, spread = real_tensor("means", means), real_tensor("covariances", covariances)
        if centres.ndim == 0:
            centres = centres[None]
        if centres.ndim == 1:
            if spread.ndim > 0:
                spread = spread[None]
            centres = centres[None]
        count, dimension = _two_axes(centres)
        allowed = [(), (count,), (count, dimension), (count, dimension, dimension)]
        if tuple(spread.shape) not in allowed:
            raise HDZooError(
                f"covariances have the shape {tuple(spread.shape)} for {count} components of "
                f"dimension {dimension}; allowed are a number, (K,), (K, d) and (K, d, d), without "
                "the K where means is one point of shape (d,)"
            )
        if spread.ndim == 3:
            variances, basis = _eigen(spread)
            parts = {
                "basis": basis,
                "basis_variances": variances,
                "rest_variances": torch.zeros(count),
            }
        else:
            _check_variances("covariances", spread)
            column = spread.view(*spread.shape, *[1] * (2 - spread.ndim))
            parts = {"variances": column.expand(count, dimension)}
        return cls._built(centres, weights, sample_shape, data_range, parts)

    @classmethod
    def from_factors(
        cls,
        means: Any,
        factors: Any,
        rest_variances: Any = 0.0,
        weights: Any = None,
        sample_shape: Sequence[int] | None = None,
        data_range: tuple[float, float] | None = None,
    ) -> Self:
        r"""Builds the mixture from covariances :math:`F_k F_k^T + v_k I`, of any dimension.

        Args:
            means: shape (K, d).
            factors: :math:`F_k`, shape (K, d, r) with ``r <= d``.
            rest_variances: :math:`v_k`, shape (K,) or a number, at least 0.
            weights: as in `from_components`.
            sample_shape: as in `from_components`.
            data_range: as in the class.

        Raises:
            HDZooError: a shape does not fit, or a weight or a variance is out of its range.
        """
        centres, factors = real_tensor("means", means), real_tensor("factors", factors)
        rest = real_tensor("rest_variances", rest_variances)
        count, dimension = _two_axes(centres)
        if (
            factors.ndim != 3
            or tuple(factors.shape[:2]) != (count, dimension)
            or factors.shape[2] > dimension
        ):
            raise HDZooError(
                f"factors have the shape {tuple(factors.shape)}; for means of shape "
                f"{tuple(centres.shape)} it must be ({count}, {dimension}, r), r at most "
                f"{dimension}"
            )
        if tuple(rest.shape) not in ((), (count,)):
            raise HDZooError(
                f"rest_variances have the shape {tuple(rest.shape)}; give a number or {count} of "
                "them"
            )
        _check_variances("rest_variances", rest)
        rest = rest.expand(count)
        basis, singular, _ = torch.linalg.svd(factors, full_matrices=False)
        parts = {
            "basis": basis,
            "basis_variances": singular**2 + rest[:, None],
            "rest_variances": rest,
        }
        return cls._built(centres, weights, sample_shape, data_range, parts)

    @classmethod
    def _built(
        cls,
        means: torch.Tensor,
        weights: Any,
        sample_shape: Sequence[int] | None,
        data_range: tuple[float, float] | None,
        parts: dict[str, torch.Tensor],
    ) -> Self:
        count, dimension = means.shape
        shares = torch.ones(count) if weights is None else real_tensor("weights", weights)
        if tuple(shares.shape) != (count,) or not (shares > 0).all():
            raise HDZooError(
                f"weights have the shape {tuple(shares.shape)} and the smallest is "
                f"{shares.min().item():g}; there must be {count}, one for each component, all "
                "positive: leave out a component of weight 0"
            )
        shape = tuple(SHAPE("sample_shape", (dimension,) if sample_shape is None else sample_shape))
        if math.prod(shape) != dimension:
            raise HDZooError(
                f"sample_shape is {shape}, which has {math.prod(shape)} coordinates, and means "
                f"have {dimension}; they must agree"
            )
        rank = parts["basis"].shape[2] if "basis" in parts else None
        model = cls(shape, count, rank, data_range)
        # Their sum may be too large for float64.
        shares = shares.double() / shares.max()
        for name, value in {"weights": shares / shares.sum(), "means": means, **parts}.items():
            getattr(model, name).data.copy_(value)
        return model

    @property
    def mean(self) -> torch.Tensor:
        return self.weights @ self.means

    @property
    def covariance(self) -> torch.Tensor:
        offsets = self.means - self.mean
        total = (self.weights[:, None] * offsets).T @ offsets
        for k, weight in enumerate(self.weights):
            total = total + weight * self._matrix(k, lambda variances: variances)
        return total

    def component_probabilities(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        r"""The responsibilities :math:`r_k = P(k | x)`, by logarithms: far away, one is still 1.

        Args:
            x: noisy points, shape (n, *sample_shape).
            sigma: noise level, as in `log_density`.

        Returns:
            Shape (n, K), in the dtype of ``x``; each row sums to 1.
        """
        points, level = self._flat(x, sigma)
        return self._joint(self._blocks(points), level).softmax(1).to(x.dtype)

    @property
    def _has_density(self) -> bool:
        if self.config.rank is None:
            return bool((self.variances > 0).all())
        full = self.config.rank == self.dimension
        return bool((self.basis_variances > 0).all() and (full or (self.rest_variances > 0).all()))

    def _blocks(self, x: torch.Tensor) -> list[_Block]:
        offsets = x[:, None] - self.means.double()
        if self.config.rank is None:
            return [_Block(self.variances.double(), offsets, 1)]
        basis = self.basis.double()
        along = torch.einsum("nkd,kdr->nkr", offsets, basis)
        blocks = [_Block(self.basis_variances.double(), along, 1)]
        others = self.dimension - self.config.rank
        # Without this test a full covariance would have a rounding divided by 0 here.
        if others:
            across = offsets - torch.einsum("nkr,kdr->nkd", along, basis)
            blocks.append(_Block(self.rest_variances.double()[:, None], across, others))
        return blocks

    def _assembled(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """Vectors of shape (n, K, d) from their coordinates in each block."""
        if self.config.rank is None:
            return parts[0]
        vectors = torch.einsum("nkr,kdr->nkd", parts[0], self.basis.double())
        return vectors if len(parts) == 1 else vectors + parts[1]

    def _joint(self, blocks: list[_Block], sigma: torch.Tensor) -> torch.Tensor:
        """``log(w_k p_k(x))``, shape (n, K)."""
        noise = sigma[:, :, None] ** 2
        joint = self.weights.double().log() - self.dimension / 2 * math.log(2 * math.pi)
        for variances, offsets, multiplicity in blocks:
            total = variances + noise
            joint = joint - (offsets**2 / total).sum(-1) / 2
            joint = joint - multiplicity / 2 * total.log().sum(-1)
        return joint

    def _log_density(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return self._joint(self._blocks(x), sigma).logsumexp(1)

    def _score(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        blocks, noise = self._blocks(x), sigma[:, :, None] ** 2
        pulls = self._assembled([b.offsets / (b.variances + noise) for b in blocks])
        return -torch.einsum("nk,nkd->nd", self._joint(blocks, sigma).softmax(1), pulls)

    def _posterior_means(self, blocks: list[_Block], sigma: torch.Tensor) -> torch.Tensor:
        noise = sigma[:, :, None] ** 2
        kept = [b.variances / (b.variances + noise) * b.offsets for b in blocks]
        return self.means.double() + self._assembled(kept)

    def _denoised(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        blocks = self._blocks(x)
        shares = self._joint(blocks, sigma).softmax(1)
        return torch.einsum("nk,nkd->nd", shares, self._posterior_means(blocks, sigma))

    def _posterior_covariance(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        blocks, noise = self._blocks(x), sigma**2
        shares = self._joint(blocks, sigma).softmax(1)
        means = self._posterior_means(blocks, sigma)
        offsets = means - torch.einsum("nk,nkd->nd", shares, means)[:, None]
        total = torch.einsum("nk,nkd,nke->nde", shares, offsets, offsets)
        for k in range(self.config.num_components):
            within = self._matrix(k, lambda variances: noise * variances / (variances + noise))
            total = total + shares[:, k, None, None] * within
        return total

    def _matrix(self, k: int, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """A function of the k-th covariance, by its eigenvalues: shape (..., d, d)."""
        if self.config.rank is None:
            return torch.diag_embed(function(self.variances[k].double()))
        basis, values = self.basis[k].double(), function(self.basis_variances[k].double())
        if self.config.rank == self.dimension:
            return (basis * values[..., None, :]) @ basis.T
        rest = function(self.rest_variances[k, None].double())
        matrix = (basis * (values - rest)[..., None, :]) @ basis.T
        return matrix + rest[..., None] * torch.eye(self.dimension).to(basis)

    def _draw(self, num_samples: int, generator: torch.Generator | None) -> torch.Tensor:
        device = self.device if generator is None else generator.device
        shares = self.weights.to(device)
        chosen = torch.multinomial(shares, num_samples, replacement=True, generator=generator)
        chosen = chosen.to(self.device)
        noise = self._normal((num_samples, self.dimension), generator)
        if self.config.rank is None:
            return self.means[chosen] + self.variances[chosen].sqrt() * noise
        samples = self.means[chosen]
        # One component at a time: a basis for each sample would be too much.
        for k, basis in enumerate(self.basis):
            mine = chosen == k
            along = noise[mine] @ basis
            across = noise[mine] - along @ basis.T
            along = self.basis_variances[k].sqrt() * along
            samples[mine] += along @ basis.T + self.rest_variances[k].sqrt() * across
        return samples


def _two_axes(means: torch.Tensor) -> tuple[int, int]:
    if means.ndim != 2 or 0 in means.shape:
        raise HDZooError(
            f"means have the shape {tuple(means.shape)}; it must be (K, d), for K components of "
            "dimension d"
        )
    return means.shape[0], means.shape[1]


def _check_variances(name: str, values: torch.Tensor) -> None:
    if (values < 0).any():
        raise HDZooError(
            f"{name} have the value {values.min().item():g}; a variance must be at least 0"
        )


def _eigen(covariances: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues (K, d) and orthonormal eigenvectors (K, d, d)."""
    size = covariances.abs().amax((1, 2))
    asymmetry = (covariances - covariances.mT).abs().amax((1, 2))
    # Whoever computed a covariance in float32 has rounded it by 6e-8 of its size, a few times.
    slack = 1e-6
    if (asymmetry > slack * size).any():
        k = int((asymmetry - slack * size).argmax())
        raise HDZooError(
            f"covariance {k} is not symmetric: it differs from its transpose by "
            f"{asymmetry[k]:g}; give (C + C^T) / 2 if that is meant"
        )
    values, vectors = torch.linalg.eigh((covariances + covariances.mT) / 2)
    lowest, largest = values[:, 0], values.abs().amax(1)
    if (lowest < -slack * largest).any():
        k = int((lowest + slack * largest).argmin())
        raise HDZooError(
            f"covariance {k} has the eigenvalue {lowest[k]:g}; it must be positive semidefinite"
        )
    rounding = covariances.shape[-1] * torch.finfo(values.dtype).eps * largest
    return torch.where(values > rounding[:, None], values, 0), vectors
