"""What the reproductions on denoising share: one read-out of a law, and powers of the noise."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hdzoo.samplers.langevin import AnnealedLangevinSampler
from hdzoo.verification.laws import Score
from hdzoo.verification.quadrature_law import GridChain, GridLaw


def one_readout(sigma: float, readout: float | str) -> AnnealedLangevinSampler:
    r"""The sampler of one network evaluation, :math:`x + \lambda \sigma^2 s(x, \sigma)`.

    Args:
        sigma: the noise level.
        readout: :math:`\lambda`, as in `AnnealedLangevinSampler`.
    """
    sampler = AnnealedLangevinSampler(sigmas=[sigma], readout=readout)
    sampler.set_timesteps(1)
    return sampler


def denoised(law: GridLaw, score: Score, sigma: float, readout: float | str) -> GridLaw:
    """The law of the read-out of noisy points.

    Args:
        law: of the points.
        score: the exact score, of points of shape (n, 1).
        sigma: the noise level.
        readout: as in `one_readout`.
    """
    ends = law.points[0], law.points[-1]
    return GridChain(one_readout(sigma, readout), score, *ends).run(law)


class PowerLaw(NamedTuple):
    r"""A fit of :math:`\log W = a + p \log \sigma` by least squares.

    Attributes:
        exponent: ``p``.
        error: its standard error. The distances themselves are exact, so it says how far from a
            power law they are on the range.
    """

    exponent: float
    error: float

    def __str__(self) -> str:
        return f"{self.exponent:.2f} +- {self.error:.1g}"


def power_law(sigmas: Sequence[float], distances: Sequence[float]) -> PowerLaw:
    """The power of the noise level that some distances follow; at least three of them."""
    x, y = np.log(sigmas), np.log(distances)
    x, y = x - x.mean(), y - y.mean()
    exponent = (x @ y) / (x @ x)
    left = y - exponent * x
    return PowerLaw(float(exponent), math.sqrt((left @ left) / ((len(x) - 2) * (x @ x))))


def label_axes(axes: Any, title: str, xlabel: str, ylabel: str) -> None:
    """Logarithmic axes with a grid, plain numbers on the horizontal one, and a legend."""
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel, xscale="log", yscale="log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.grid(which="major", alpha=0.3)
    axes.legend(fontsize=8)
