"""Uniform laws on a segment, a circle or a sphere in any number of dimensions."""

import math
from typing import Any, Self

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo.checks import NOT_NEGATIVE, POSITIVE, Whole, checked
from hdzoo.errors import HDZooError
from hdzoo.memory import within_memory
from hdzoo.targets.analytic import PIXELS, SHAPE, AnalyticScore, fixed, real_tensor
from hdzoo.targets.quadrature import CUT, legendre, truncated_normal


class _ManifoldScore(AnalyticScore):
    r"""A point ``m`` on a manifold in the span of ``B``, :math:`x_0 = m + \tau n`.

    With :math:`s^2 = \sigma^2 + \tau^2`, a noisy point is ``m`` with noise ``s``, and

    .. math::
        s(x, \sigma) = \frac{E[m | x] - x}{s^2}, \quad
        E[x_0 | x] = \frac{\sigma^2 E[m | x] + \tau^2 x}{s^2}, \quad
        Cov[x_0 | x] = \frac{\sigma^2 \tau^2}{s^2} I + \frac{\sigma^4}{s^4} Cov[m | x].

    Orthogonal to the span, the noisy law is a normal one. A subclass says the rest in coordinates
    ``y = B^T (x - center)`` of shape (n, k), with ``s`` of shape (n, 1).
    """

    def _frame(self, size: int) -> None:
        """Checks the dimension and makes the parameters."""
        dimension = math.prod(self.config.sample_shape)
        if dimension < size:
            raise HDZooError(
                f"sample_shape is {tuple(self.config.sample_shape)}, which has {dimension} "
                f"coordinates; this manifold needs at least {size}"
            )
        self.center = fixed(torch.zeros, dimension)
        self.basis = fixed(torch.eye, dimension, size)

    @classmethod
    def from_frame(cls, center: Any, basis: Any, **config: Any) -> Self:
        """Builds the manifold somewhere else than at the origin, along other axes than the first.

        Args:
            center: its middle, shape (d,).
            basis: linearly independent vectors that span the directions it lies in, shape (d, k);
                for a segment, (d,) will do. They are made orthonormal.
            **config: the arguments of the class; ``sample_shape`` is (d,) by default.

        Raises:
            HDZooError: a shape does not fit, or the vectors are not independent.
        """
        middle, vectors = real_tensor("center", center), real_tensor("basis", basis)
        vectors = vectors[:, None] if vectors.ndim == 1 else vectors
        model = cls(**{"sample_shape": tuple(middle.shape)} | config)
        for name, value in (("center", middle), ("basis", vectors)):
            expected = tuple(getattr(model, name).shape)
            if tuple(value.shape) != expected:
                raise HDZooError(
                    f"{name} has the shape {tuple(value.shape)}; this manifold needs {expected}"
                )
        orthonormal, triangular = torch.linalg.qr(vectors)
        diagonal = triangular.diagonal()
        if not (diagonal.abs() > 1e-10 * vectors.norm(dim=0)).all():
            raise HDZooError("the columns of basis are not linearly independent; give others")
        model.center.data.copy_(middle)
        # QR leaves the signs open; so a basis that is orthonormal already stays as it is.
        model.basis.data.copy_(orthonormal * diagonal.sign())
        return model

    # ---- what a subclass gives --------------------------------------------------------------

    @property
    def _variance(self) -> float:
        """The variance of ``m`` along each direction of the basis."""
        raise NotImplementedError

    def _draw_inside(self, num_samples: int, generator: torch.Generator | None) -> torch.Tensor:
        raise NotImplementedError

    def _log_density_inside(self, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _score_inside(self, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _moments_inside(
        self, y: torch.Tensor, s: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``E[m | x]``, shape (n, k), and ``Cov[m | x]``, shape (n, k, k)."""
        raise NotImplementedError

    # ---- the rest ---------------------------------------------------------------------------

    @property
    def mean(self) -> torch.Tensor:
        return self.center

    @property
    def covariance(self) -> torch.Tensor:
        return self._variance * self.basis @ self.basis.T + self.config.thickness**2 * self._eye

    @property
    def _eye(self) -> torch.Tensor:
        return torch.eye(self.dimension).to(self.center)

    @property
    def _has_density(self) -> bool:
        return bool(self.config.thickness > 0)

    def _draw(self, num_samples: int, generator: torch.Generator | None) -> torch.Tensor:
        samples = self.center + self._draw_inside(num_samples, generator) @ self.basis.T
        if self.config.thickness > 0:
            samples = samples + self.config.thickness * self._normal(samples.shape, generator)
        return samples

    def _split(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Coordinates in the basis, and what is orthogonal to it."""
        offset, basis = x - self.center.double(), self.basis.double()
        inside = offset @ basis
        # In a basis of the whole space only a rounding is left, which s may be too small for.
        across = len(basis) > basis.shape[1]
        return inside, offset - inside @ basis.T if across else torch.zeros_like(offset)

    def _scale(self, sigma: torch.Tensor) -> torch.Tensor:
        return (sigma**2 + self.config.thickness**2).sqrt()

    def _noise_share(self, sigma: torch.Tensor) -> torch.Tensor:
        """``sigma^2 / s^2``, 0 without noise."""
        return torch.where(sigma > 0, sigma**2 / self._scale(sigma) ** 2, 0)

    def _log_density(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        (inside, across), s = self._split(x), self._scale(sigma)
        density = self._log_density_inside(inside, s)
        others = self.dimension - inside.shape[1]
        if others:
            density = density - (across**2).sum(1) / (2 * s[:, 0] ** 2)
            density = density - others / 2 * (2 * math.pi * s[:, 0] ** 2).log()
        return density

    def _score(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        (inside, across), s = self._split(x), self._scale(sigma)
        score = self._score_inside(inside, s) @ self.basis.double().T
        return score - across / s**2 if self.dimension > inside.shape[1] else score

    def _denoised(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        mean, _ = self._moments_inside(self._split(x)[0], self._scale(sigma))
        point = self.center.double() + mean @ self.basis.double().T
        share = self._noise_share(sigma)
        return torch.where(share > 0, share * point, 0) + (1 - share) * x

    def _posterior_covariance(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        _, within = self._moments_inside(self._split(x)[0], self._scale(sigma))
        basis, share = self.basis.double(), self._noise_share(sigma)[:, :, None]
        covariance = torch.where(share > 0, share**2 * (basis @ within @ basis.T), 0)
        return covariance + share * self.config.thickness**2 * self._eye.double()


class SegmentScore(_ManifoldScore):
    r"""The uniform law on a segment of length ``L = 2a``, with optional Gaussian thickness.

    With :math:`s^2 = \sigma^2 + \tau^2` and ``y`` the coordinate along the segment from its middle,

    .. math::
        p_\sigma(x) = \frac{1}{L} \left[ \Phi\left(\frac{y + a}{s}\right)
            - \Phi\left(\frac{y - a}{s}\right) \right] N(x_\perp; 0, s^2), \quad
        s_y(x, \sigma) = \frac{\varphi((y + a) / s) - \varphi((y - a) / s)}
            {s [\Phi((y + a) / s) - \Phi((y - a) / s)]}

    The differences are computed so that they keep their digits far out and under large noise
    (`hdzoo.targets.quadrature.truncated_normal`).

    A segment of the real line has a density without noise: ``1 / L``, with score 0; outside it,
    log density :math:`-\infty` and score NaN.

    Args:
        sample_shape: shape of one sample.
        length: ``L``, positive.
        thickness: :math:`\tau`, the standard deviation of noise in all directions that belongs to
            the data.
        data_range: lowest and highest value of a pixel, where the samples are images.

    Raises:
        HDZooError: a number is out of its range.
    """

    @checked(sample_shape=SHAPE, length=POSITIVE, thickness=NOT_NEGATIVE, data_range=PIXELS)
    @register_to_config
    @within_memory
    def __init__(
        self,
        sample_shape: tuple[int, ...] = (2,),
        length: float = 1.0,
        thickness: float = 0.0,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self._frame(1)

    @property
    def _variance(self) -> float:
        return self.config.length**2 / 12

    @property
    def _has_density(self) -> bool:
        return super()._has_density or self.dimension == 1

    def _draw_inside(self, num_samples: int, generator: torch.Generator | None) -> torch.Tensor:
        return self.config.length * (self._uniform((num_samples, 1), generator) - 0.5)

    def _excess(self, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        """How far beyond the nearer end, in units of ``s``."""
        return (y.abs() - self.config.length / 2) / s

    def _log_density_inside(self, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        # The distance from the nearer end, in units of s, has a truncated normal law given x.
        noisy = torch.where(s > 0, s, 1)
        tilt = self._excess(y, noisy)
        law = truncated_normal(tilt, self.config.length / noisy)
        density = law.log_mass - tilt.clamp(min=0) ** 2 / 2 - math.log(2 * math.pi) / 2
        clean = torch.where(self._excess(y, noisy) <= 0, 0, -math.inf).to(y)
        return torch.where(s > 0, density, clean)[:, 0] - math.log(self.config.length)

    def _score_inside(self, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        noisy = torch.where(s > 0, s, 1)
        tilt = self._excess(y, noisy)
        law = truncated_normal(tilt, self.config.length / noisy)
        ends = torch.expm1(-y.abs() * self.config.length / noisy**2)
        ends = ends * torch.exp(-(tilt.clamp(max=0) ** 2) / 2 - law.log_mass)
        clean = torch.where(tilt <= 0, 0, math.nan).to(y)
        return torch.where(s > 0, y.sign() * ends / noisy, clean)

    def _moments_inside(
        self, y: torch.Tensor, s: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        law = truncated_normal(self._excess(y, s), self.config.length / s)
        mean = y.sign() * (self.config.length / 2 - s * law.mean)
        return mean, (s**2 * law.variance)[:, :, None]


class SphereScore(_ManifoldScore):
    r"""The uniform law on a circle or a sphere of radius ``R``, with optional Gaussian thickness.

    With :math:`s^2 = \sigma^2 + \tau^2`, ``y`` the ``k + 1`` coordinates in the span, from the
    center, :math:`r = |y|` and :math:`\kappa = r R / s^2`,

    .. math::
        p_\sigma(x) = N(r; R, s^2) \, (2 \pi s^2)^{-k/2} \, e^{-\kappa} A(\kappa) \,
            N(x_\perp; 0, s^2), \quad
        E[m | x] = R \rho(\kappa) \frac{y}{r}, \quad \rho = (\log A)'

    where :math:`A = I_0`, :math:`\rho = I_1 / I_0` on the circle and
    :math:`A = \sinh(\kappa) / \kappa`, :math:`\rho = \coth(\kappa) - 1 / \kappa` on the sphere.
    Given ``x``, ``m / R`` has the von Mises-Fisher law, with density proportional to
    :math:`e^{\kappa \cos \theta}` at the angle :math:`\theta` from ``y``. Its moments are integrals
    over :math:`\theta` (`hdzoo.targets.quadrature`), for their closed forms lose all digits at
    large :math:`\kappa`:

    .. math::
        Cov[m | x] = R^2 \left[ t I + (v - t) \frac{y y^T}{r^2} \right], \quad
        t = \frac{E[\sin^2 \theta]}{k} = \frac{\rho}{\kappa}, \quad v = Var[\cos \theta]

    Args:
        sample_shape: shape of one sample.
        sphere_dimension: ``k``, 1 for a circle and 2 for a sphere.
        radius: ``R``, positive.
        thickness: :math:`\tau`, the standard deviation of noise in all directions that belongs to
            the data.
        data_range: lowest and highest value of a pixel, where the samples are images.

    Raises:
        HDZooError: a number is out of its range.
    """

    @checked(
        sample_shape=SHAPE,
        sphere_dimension=Whole(1, 2),
        radius=POSITIVE,
        thickness=NOT_NEGATIVE,
        data_range=PIXELS,
    )
    @register_to_config
    @within_memory
    def __init__(
        self,
        sample_shape: tuple[int, ...] = (2,),
        sphere_dimension: int = 1,
        radius: float = 1.0,
        thickness: float = 0.0,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self._frame(sphere_dimension + 1)

    @property
    def _variance(self) -> float:
        return self.config.radius**2 / (self.config.sphere_dimension + 1)

    def _draw_inside(self, num_samples: int, generator: torch.Generator | None) -> torch.Tensor:
        points = self._normal((num_samples, self.config.sphere_dimension + 1), generator)
        return self.config.radius * points / points.norm(dim=1, keepdim=True)

    def _fall(self, kappa: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        r"""The law of :math:`1 - \cos \theta`: its nodes and their masses, not normalised.

        The masses are divided so that they sum to :math:`e^{-\kappa} A(\kappa)`.
        """
        with torch.no_grad():
            # The largest 1 - cos(theta) that counts. Nodes are no functions of kappa, for
            # derivatives of either mode.
            largest = (CUT / kappa.detach()).clamp(max=2)
            if self.config.sphere_dimension == 1:
                angles, weights = legendre(torch.zeros_like(kappa), 2 * (largest / 2).sqrt().asin())
                fall, weights = 2 * (angles / 2).sin() ** 2, weights / math.pi
            else:
                fall, weights = legendre(torch.zeros_like(kappa), largest)
                weights = weights / 2
        return fall, weights * torch.exp(-kappa[..., None] * fall)

    def _polar(self, y: torch.Tensor, s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        radius = torch.linalg.vector_norm(y, dim=1, keepdim=True)
        return radius, radius * self.config.radius / s**2

    def _log_density_inside(self, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        radius, kappa = self._polar(y, s)
        _, masses = self._fall(kappa)
        normal = -(((radius - self.config.radius) / s) ** 2) / 2
        normal = normal - y.shape[1] / 2 * (2 * math.pi * s**2).log()
        return (normal + masses.sum(-1).log())[:, 0]

    def _moments(self, kappa: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        r""":math:`\rho`, ``t`` and ``v``."""
        fall, masses = self._fall(kappa)
        masses = masses / masses.sum(-1, keepdim=True)
        mean = (masses * fall).sum(-1)
        across = (masses * fall * (2 - fall)).sum(-1) / self.config.sphere_dimension
        along = (masses * (fall - mean[..., None]) ** 2).sum(-1)
        # Each form has the better digits on its side.
        return torch.where(kappa > 1, 1 - mean, kappa * across), across, along

    def _score_inside(self, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        radius, kappa = self._polar(y, s)
        cosine, _, _ = self._moments(kappa)
        return _direction(y, radius) * (self.config.radius * cosine - radius) / s**2

    def _moments_inside(
        self, y: torch.Tensor, s: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        radius, kappa = self._polar(y, s)
        cosine, across, along = self._moments(kappa)
        direction = _direction(y, radius)
        radial = direction[:, :, None] * direction[:, None, :]
        eye = torch.eye(y.shape[1]).to(y)
        within = across[:, :, None] * (eye - radial) + along[:, :, None] * radial
        return self.config.radius * cosine * direction, self.config.radius**2 * within


def _direction(y: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """The unit vector of ``y``; 0 in the center, where nothing depends on it."""
    return y / torch.where(radius > 0, radius, 1)
