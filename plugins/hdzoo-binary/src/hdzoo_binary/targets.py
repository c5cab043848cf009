"""Laws on signs whose score is exact: mixtures of products, and any law that can be listed."""

import math
from typing import Any, Self

import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo import HDZooError
from hdzoo.checks import COUNT, NOT_NEGATIVE, POSITIVE, checked, floating
from hdzoo.memory import within_memory
from hdzoo.targets.analytic import SHAPE, AnalyticScore, fixed, real_tensor
from hdzoo_binary.exact import states


class SignsMixtureScore(AnalyticScore):
    r"""A mixture of laws of independent signs, :math:`\sum_k w_k \prod_i (1 + x_i m_{ki}) / 2`.

    With :math:`\ell = x / \sigma^2` and :math:`b_k = \operatorname{artanh} m_k`, the denoiser is

    .. math::
        E[x_0 | x] = \sum_k r_k \tanh(b_k + \ell), \quad
        r_k \propto w_k \prod_i \frac{\cosh(b_{ki} + \ell_i)}{\cosh b_{ki}}.

    The density and the score are those of the data with normal noise, as of every model here; on
    noisy signs, the law of bit flips is in proportion to them (`hdzoo_binary.signs`). A mean of 1
    or -1 is a sign that is certain, and so a component may be a single point.

    Built by `from_components`, or by `from_law` from the probabilities of all points.

    Args:
        sample_shape: shape of one sample; ``d`` is its number of signs.
        num_components: how many products there are.

    Raises:
        HDZooError: an option is out of its range, or the means would not fit in memory.
    """

    @checked(sample_shape=SHAPE, num_components=COUNT)
    @register_to_config
    @within_memory
    def __init__(
        self,
        sample_shape: tuple[int, ...] = (1,),
        num_components: int = 1,
        data_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        self.weights = fixed(torch.full, (num_components,), 1 / num_components)
        self.means = fixed(torch.zeros, num_components, math.prod(sample_shape))

    @classmethod
    def from_components(cls, means: Any, weights: Any = None) -> Self:
        """Builds the mixture.

        Args:
            means: of the signs of each component, in [-1, 1], shape (K, d).
            weights: shape (K,), positive; divided by their sum. Equal by default.

        Raises:
            HDZooError: a shape does not fit, or a number is out of its range.
        """
        centres = real_tensor("means", means)
        if centres.ndim != 2 or 0 in centres.shape or centres.abs().max() > 1:
            raise HDZooError(
                f"means have the shape {tuple(centres.shape)}; they must be numbers from -1 to 1, "
                "of shape (K, d)"
            )
        count, dimension = centres.shape
        shares = torch.ones(count) if weights is None else real_tensor("weights", weights)
        if tuple(shares.shape) != (count,) or not shares.min() > 0:
            raise HDZooError(
                f"weights have the shape {tuple(shares.shape)}; they must be {count} positive "
                "numbers, one for each component: leave out one of weight 0"
            )
        model = cls((dimension,), count)
        model.weights.data.copy_(shares.double() / shares.double().sum())
        model.means.data.copy_(centres)
        return model

    @classmethod
    def from_law(cls, probabilities: Any) -> Self:
        """Builds any law on few signs.

        Args:
            probabilities: of the points in the order of `hdzoo_binary.exact.states`, shape (2^d,);
                divided by their sum.

        Raises:
            HDZooError: they are not as many as there are points, or one is negative.
        """
        shares = real_tensor("probabilities", probabilities)
        dimension = shares.numel().bit_length() - 1
        fits = dimension > 0 and tuple(shares.shape) == (2**dimension,)
        if not fits or shares.min() < 0 or not shares.max() > 0:
            raise HDZooError(
                f"probabilities have the shape {tuple(shares.shape)}; they must be (2^d,), none "
                "negative, and not all 0"
            )
        possible = shares > 0
        return cls.from_components(states(dimension)[possible], shares[possible])

    @property
    def mean(self) -> torch.Tensor:
        return self.weights @ self.means

    @property
    def covariance(self) -> torch.Tensor:
        moments = self.means.T @ (self.weights[:, None] * self.means)
        # Of a sign itself the square is 1.
        moments = moments - moments.diag().diag() + torch.eye(len(moments)).to(moments)
        return moments - self.mean.outer(self.mean)

    def sample(
        self, num_samples: int, generator: torch.Generator | None = None, sigma: float = 0.0
    ) -> torch.Tensor:
        num_samples, sigma = COUNT("num_samples", num_samples), NOT_NEGATIVE("sigma", sigma)
        options: dict[str, Any] = {"generator": generator, "dtype": torch.float64}
        options["device"] = self.device if generator is None else generator.device
        chosen = torch.multinomial(
            self.weights.to(options["device"]), num_samples, True, generator=generator
        )
        means = self.means[chosen.to(self.device)]
        drawn = torch.rand(means.shape, **options).to(means)
        signs = torch.where(2 * drawn - 1 < means, 1.0, -1.0).to(means)
        if sigma > 0:
            signs = signs + sigma * torch.randn(means.shape, **options).to(means)
        return signs.view(num_samples, *self.sample_shape)

    def log_density(self, x: torch.Tensor, sigma: float | torch.Tensor = 0.0) -> torch.Tensor:
        points, level = self.points(x, sigma)
        constant = self.dimension * (2 * math.pi * level[:, 0] ** 2).log() / 2
        joint = self.log_weights(points, level)
        return (joint.logsumexp(1) - constant).to(x.dtype)

    def denoise(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        points, level = self.points(x, sigma)
        shares = self.log_weights(points, level).softmax(1)
        mean = (shares[:, :, None] * self.component_means(points, level)).sum(1)
        return mean.view(x.shape).to(x.dtype)

    def score(self, x: torch.Tensor, sigma: float | torch.Tensor = 0.0) -> torch.Tensor:
        points, level = self.points(x, sigma)
        mean = self.denoise(points.view(x.shape), level).flatten(1)
        return ((mean - points) / level**2).view(x.shape).to(x.dtype)

    def posterior_covariance(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        points, level = self.points(x, sigma)
        shares = self.log_weights(points, level).softmax(1)
        means = self.component_means(points, level)
        moments = torch.einsum("nk,nkd,nke->nde", shares, means, means)
        moments.diagonal(dim1=1, dim2=2).fill_(1)
        mean = torch.einsum("nk,nkd->nd", shares, means)
        return (moments - mean[:, :, None] * mean[:, None]).to(x.dtype)

    # ---- the parts ------------------------------------------------------------------------------

    def component_means(self, points: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """The posterior mean in each component, shape (n, K, d); arguments as of `log_weights`."""
        return (self.means.atanh() + (points / level**2)[:, None]).tanh()

    def log_weights(self, points: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """The logarithm of each component's part of the density, but for the normal law's constant.

        Args:
            points: shape (n, d), float64.
            level: the noise level, shape (1, 1) or (n, 1).

        Returns:
            Shape (n, K).
        """
        parts = [
            ((1 + side * self.means) / 2).log() - ((points - side) / level)[:, None] ** 2 / 2
            for side in (1.0, -1.0)
        ]
        return self.weights.log() + torch.logaddexp(*parts).sum(2)

    def points(
        self, x: torch.Tensor, sigma: float | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points as (n, d) and noise levels as (1, 1) or (n, 1), in float64.

        Raises:
            HDZooError: they do not fit, or a level is not positive: signs have no density without
                noise.
        """
        floating("x", x, f"of shape (n, {', '.join(map(str, self.sample_shape))})")
        level = torch.as_tensor(sigma, dtype=torch.float64, device=x.device).reshape(-1, 1)
        if tuple(x.shape[1:]) != self.sample_shape or len(level) not in (1, len(x)):
            raise HDZooError(
                f"the points have the shape {tuple(x.shape)}, with {len(level)} noise levels; this "
                f"target needs (n, {', '.join(map(str, self.sample_shape))}), and one or n levels"
            )
        # A look at a device would wait.
        if level.device.type == "cpu":
            POSITIVE("sigma", level.min())
        return x.flatten(1).double(), level


# ---- by name ------------------------------------------------------------------------------------


def independent_signs() -> SignsMixtureScore:
    """Six independent signs of means -0.8, -0.4, 0, 0.3, 0.6 and 0.9."""
    return SignsMixtureScore.from_components([[-0.8, -0.4, 0.0, 0.3, 0.6, 0.9]])


def signs_mixture() -> SignsMixtureScore:
    """Eight signs: three patterns, each of whose signs is wrong with probability 0.1.

    Their weights are 0.5, 0.3 and 0.2; the patterns differ in 4, 4 and 8 places of each other.
    """
    patterns = [[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, -1, -1, -1, -1], [-1] * 8]
    means = 0.8 * torch.tensor(patterns, dtype=torch.float64)
    return SignsMixtureScore.from_components(means, [0.5, 0.3, 0.2])


def ising(side: int = 3, coupling: float = 0.3, field: float = 0.1) -> SignsMixtureScore:
    r"""Spins on a torus, :math:`p(x) \propto \exp(J \sum_{i \sim j} x_i x_j + h \sum_i x_i)`.

    Args:
        side: of the square of spins; 2 or 3, for all of their states are listed.
        coupling: ``J``.
        field: ``h``.

    Raises:
        HDZooError: there would be too many states.
    """
    if side not in (2, 3):
        raise HDZooError(f"side is {side}; it must be 2 or 3, for all states are listed")
    points = states(side**2)
    square = points.view(-1, side, side)
    neighbours = sum((square * square.roll(1, axis)).sum((1, 2)) for axis in (1, 2))
    log_law = coupling * neighbours + field * points.sum(1)
    return SignsMixtureScore.from_law(log_law.softmax(0))
