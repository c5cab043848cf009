"""Standard targets by name: laws whose score, samples and moments are all known exactly.

Each function returns a score model with float64 parameters (`hdzoo.targets.analytic`); only the
points of `digits_empirical` are in float32, which holds them exactly. In one to four dimensions the
coordinates are of order 1, but for `ncsn_toy`; images have pixels in [0, 1].
"""

import math
from typing import TYPE_CHECKING

import torch

from hdzoo.errors import HDZooError
from hdzoo.targets.empirical import EmpiricalScore
from hdzoo.targets.laplace import LaplaceScore
from hdzoo.targets.manifold import SegmentScore, SphereScore
from hdzoo.targets.mixture import GaussianMixtureScore

if TYPE_CHECKING:
    import numpy as np

# ---- the line -----------------------------------------------------------------------------------


def gaussian() -> GaussianMixtureScore:
    """N(1.3, 0.8^2)."""
    return GaussianMixtureScore.from_components(1.3, 0.8**2)


def two_gaussians() -> GaussianMixtureScore:
    """N(-1, 0.6^2) and N(1, 0.5^2), half each."""
    return GaussianMixtureScore.from_components([[-1.0], [1.0]], [0.6**2, 0.5**2])


def two_points() -> GaussianMixtureScore:
    """Point masses at -1 and 1, half each: the optimal denoiser is tanh(x / sigma^2)."""
    return GaussianMixtureScore.from_components([[-1.0], [1.0]], 0.0)


def laplace() -> LaplaceScore:
    """The Laplace law of mean 0 and scale 1, of variance 2."""
    return LaplaceScore.from_parameters(0.0, 1.0)


# ---- the plane ----------------------------------------------------------------------------------


def ncsn_toy() -> GaussianMixtureScore:
    """0.8 N((5, 5), I) + 0.2 N((-5, -5), I), on which Langevin dynamics gets the weights wrong.

    Source: Song and Ermon (arXiv 1907.05600), section 3.2.2, with the heavier mode at (5, 5).
    """
    means = [[5.0, 5.0], [-5.0, -5.0]]
    return GaussianMixtureScore.from_components(means, 1.0, weights=[0.8, 0.2])


def eight_gaussians() -> GaussianMixtureScore:
    """Eight Gaussians of standard deviation 0.3, evenly on the circle of radius 4."""
    angles = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    return GaussianMixtureScore.from_components(4 * _on_circle(angles), 0.3**2)


def moons(num_components: int = 20) -> GaussianMixtureScore:
    """Two interleaved half circles of radius 1, each a row of Gaussians of standard deviation 0.1.

    One bends up around (0, 0), the other down around (1, 0.5), as in scikit-learn's
    ``make_moons``.

    Args:
        num_components: how many Gaussians in each half circle.
    """
    upper = _on_circle(torch.linspace(0, math.pi, num_components, dtype=torch.float64))
    lower = torch.tensor([1.0, 0.5], dtype=torch.float64) - upper
    return GaussianMixtureScore.from_components(torch.cat([upper, lower]), 0.1**2)


def circle() -> SphereScore:
    """The uniform law on the unit circle."""
    return SphereScore((2,), sphere_dimension=1)


def segment() -> SegmentScore:
    """The uniform law on the segment from (-1, -0.5) to (1, 0.5)."""
    return SegmentScore.from_frame([0.0, 0.0], [2.0, 1.0], length=math.sqrt(5))


# ---- space and beyond ---------------------------------------------------------------------------


def sphere() -> SphereScore:
    """The uniform law on the unit sphere of R^3."""
    return SphereScore((3,), sphere_dimension=2)


def gaussian_anisotropic() -> GaussianMixtureScore:
    """A Gaussian in R^4 with eigenvalues 4, 0.25, 1e-4 and 0 along directions that are no axes.

    The mean is (1, -2, 0.5, 0). The directions are the columns of the reflection that exchanges the
    first axis and (1, 2, 3, 4) / sqrt(30).
    """
    eye = torch.eye(4, dtype=torch.float64)
    axis = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    normal = axis / axis.norm() - eye[0]
    reflection = eye - 2 * normal.outer(normal) / normal.dot(normal)
    # Factors and no covariance, whose eigenvalue 0 would be a rounding.
    factors = reflection[:, :3] * torch.tensor([2.0, 0.5, 0.01], dtype=torch.float64)
    return GaussianMixtureScore.from_factors([[1.0, -2.0, 0.5, 0.0]], factors[None])


def spectrum_target(
    dimension: int = 3072,
    exponent: float = 2.5,
    variance: float = 0.25**2,
    singular_fraction: float = 0.0,
) -> GaussianMixtureScore:
    r"""A Gaussian with the power spectrum of natural images, in Fourier coordinates.

    It stands for images of 3 channels and ``n x n`` pixels, as deviations from their mean, after a
    real orthonormal Fourier transform of each channel: a rotation, which changes no distance. So
    coordinate (c, i, j) of the flat sample is independent of the others, with variance

    .. math::
        \lambda \propto \max(f, 1)^{-\beta}, \quad f^2 = f_i^2 + f_j^2, \quad
        f_i = \min(i, n - i)

    scaled to the given mean, the variance of a pixel. The mean of the law is 0.

    Source: Field (1987), "Relations between the statistics of natural images": the power of natural
    images falls as :math:`f^{-2}`, approximately.

    Args:
        dimension: ``3 n^2``; 3072 for ``n = 32``.
        exponent: :math:`\beta`.
        variance: mean of the eigenvalues, positive.
        singular_fraction: the smallest eigenvalues, this part of all, are replaced by 0 before the
            scaling; in [0, 1). Among equal ones the last go first.

    Returns:
        A model of sample shape (dimension,).

    Raises:
        HDZooError: an argument is out of its range.
    """
    side = math.isqrt(max(dimension, 0) // 3)
    if dimension < 3 or 3 * side**2 != dimension:
        raise HDZooError(
            f"dimension is {dimension}; it must be 3 n^2, for 3 channels of n x n pixels: "
            f"{3 * side**2 or 3} or {3 * (side + 1) ** 2}, for example"
        )
    if not 0 <= singular_fraction < 1:
        raise HDZooError(f"singular_fraction is {singular_fraction}; it must be in [0, 1)")
    if not variance > 0:
        raise HDZooError(f"variance is {variance}; it must be positive")
    index = torch.arange(side, dtype=torch.float64)
    along = torch.minimum(index, side - index)
    frequencies = (along[:, None] ** 2 + along**2).sqrt().clamp(min=1)
    eigenvalues = (frequencies**-exponent).flatten().repeat(3)
    order = eigenvalues.argsort(descending=True, stable=True)
    eigenvalues[order[dimension - round(singular_fraction * dimension) :]] = 0
    eigenvalues *= variance / eigenvalues.mean()
    return GaussianMixtureScore.from_components(torch.zeros(dimension), eigenvalues)


# ---- images -------------------------------------------------------------------------------------


def digits() -> GaussianMixtureScore:
    """Ten Gaussians with the weights, means and covariances of scikit-learn's digits, 8 x 8 pixels.

    The covariances are singular, for in each class some pixels are always black. The moments of the
    whole are those of the 1,797 images.

    Source: as in `hdzoo.images.digits.load_digits`.
    """
    images, labels = _digits()
    flat = images.reshape(len(images), -1)
    classes = [torch.from_numpy(flat[labels == label]) for label in range(10)]
    return GaussianMixtureScore.from_components(
        torch.stack([members.mean(0) for members in classes]),
        torch.stack([members.T.cov(correction=0) for members in classes]),
        weights=[len(members) for members in classes],
        sample_shape=(1, 8, 8),
        data_range=(0.0, 1.0),
    )


def digits_empirical() -> EmpiricalScore:
    """The empirical law of scikit-learn's 1,797 digits, 8 x 8 pixels.

    Source: as in `hdzoo.images.digits.load_digits`.
    """
    # The pixels are multiples of 1/16.
    return EmpiricalScore.from_points(_digits()[0].astype("float32"), data_range=(0.0, 1.0))


def _digits() -> "tuple[np.ndarray, np.ndarray]":
    """Images, shape (1797, 1, 8, 8) in [0, 1], and labels, shape (1797,)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images[:, None] / 16, bunch.target


def _on_circle(angles: torch.Tensor) -> torch.Tensor:
    return torch.stack([angles.cos(), angles.sin()], dim=1)
