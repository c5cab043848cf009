"""Stochastic localization with the covariance of the posterior."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config
from scipy.interpolate import lagrange

from hdzoo import HDZooError
from hdzoo.checks import Number, OneOf, Whole, checked
from hdzoo.samplers.base import Move
from hdzoo.samplers.gaussian import GaussianLaw, published_curve
from hdzoo.samplers.ladders import share_steps
from hdzoo.samplers.noise import Noise
from hdzoo.samplers.options import LADDER_RULES
from hdzoo_stochastic_localization.euler import SPACINGS, StochasticLocalizationSampler, step


class StochasticLocalization2Sampler(StochasticLocalizationSampler):
    r"""Stochastic localization of second order: the next measurement with its whole covariance.

    Given the past, a measurement :math:`y = x_0 + z / \sqrt{\delta}` has the mean
    :math:`E[x_0 | Z]` and the covariance :math:`I / \delta + C`, :math:`C` that of the posterior.
    Euler's scheme forgets :math:`C`. Here

    .. math::
        Z \leftarrow Z + \delta_k E[x_0 | Z, t_k] + \sqrt{\delta_k} (I + \delta_k C_k)^{1/2} z.

    By second-order Tweedie :math:`C = \sigma^2 R`, :math:`R = \partial D / \partial x` the Jacobian
    of the denoiser, so :math:`\delta_k C_k = u R` with :math:`u = \sigma_k^2 / \sigma_{k+1}^2 - 1`.
    The root is a polynomial in :math:`R`, of a degree that is the number of Jacobian-vector
    products: that which is exact at the Chebyshev points of [0, 1], both ends among them,

    .. math:: (I + u R)^{1/2} z \approx \sum_j c_j R^j z, \quad
        \text{with one product } z + (\sqrt{1 + u} - 1) R z.

    So it is exact where the data have no width (:math:`R = 0`) and where the noise has none to
    speak of (:math:`R = 1`), and nearly so between; with the exact root the law is that of the
    measurements on every Gaussian. A product is a difference quotient of the network,

    .. math:: R v = \frac{D(x + \epsilon \sigma v) - D(x)}{\epsilon \sigma},

    exact where the denoiser is affine. It is one more evaluation at its noise level, and counted as
    one: with ``products`` of them, ``L`` levels take ``(1 + products) (L - 1) + 1``. Where the
    number of evaluations is another, the larger noise levels have fewer products. A chain that is
    begun at a product, as image-to-image may do, goes on without those before it.

    Axes: as `StochasticLocalizationSampler`, with noise of the posterior's shape.

    Source: the measurements of Saremi, Park and Bach (arXiv 2305.19473), of which it is the draw by
    two moments; for the process see `StochasticLocalizationSampler`.

    Args:
        products: Jacobian-vector products for each step; 0 for Euler's scheme.
        probe: :math:`\epsilon`, how far the network is asked from the state, in units of the noise;
            more for a network in half precision, whose differences are rounded.

    The other options are those of `StochasticLocalizationSampler`.

    Raises:
        HDZooError: an option is out of its range, or a schedule of one's own asks twice at the last
            level.
    """

    source = "Montanari 2023, with the posterior covariance"
    option_choices: ClassVar[dict[str, Sequence[Any]]] = {
        "spacing": SPACINGS,
        "products": (1, 0, 2, 3),
        "probe": (0.01, 1.0),
    }

    @checked(
        **LADDER_RULES, spacing=OneOf(SPACINGS), products=Whole(0, 8), probe=Number(above=0, high=1)
    )
    @register_to_config
    def __init__(
        self,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        sigmas: list[float] | None = None,
        spacing: str = "log",
        products: int = 1,
        probe: float = 0.01,
        num_steps: int = 50,
        start: str = "normal",
        prediction_type: str = "score",
        timestep_type: str = "sigma",
        sigma_data: float | None = None,
    ) -> None:
        self.set_timesteps()

    def levels_for(self, num_inference_steps: int) -> int:
        return 1 - (1 - num_inference_steps) // (1 + self.config.products)

    def counts(self, num_inference_steps: int, num_levels: int) -> list[int]:
        if num_levels == 1:
            return [num_inference_steps]
        return [*share_steps(num_inference_steps - 1, num_levels - 1), 1]

    def plan(self, sigmas: Sequence[float], counts: Sequence[int]) -> list[Move]:
        if counts[-1] > 1:
            raise HDZooError(
                "the last noise level is repeated; from there the chain is read out, without noise "
                "that a product could shape"
            )
        steps = [step(*levels) for levels in pairwise([*sigmas, 0.0])]
        return [move for move, count in zip(steps, counts, strict=True) for _ in range(count)]

    def update(self, k: int, x: torch.Tensor, score: torch.Tensor, noise: Noise) -> torch.Tensor:
        move, below = self.moves[k], self.levels[k + 1]
        if not below:
            return x + move.alpha * score
        apart, kept = self.config.probe * move.sigma, self.memory
        if kept:
            moved = x - kept["x"] + move.sigma**2 * (score - kept["score"])
            kept["powers"] = torch.cat([kept["powers"], moved.unsqueeze(1) / apart], 1)
        else:
            kept.update(x=x, score=score, powers=noise.normal(x.shape).unsqueeze(1))
        if below == move.sigma:
            return kept["x"] + apart * kept["powers"][:, -1]
        self.memory = {}
        weights = root_weights(move.sigma**2 / below**2 - 1, kept["powers"].shape[1] - 1)
        shaped = sum(c * power for c, power in zip(weights, kept["powers"].unbind(1), strict=True))
        return kept["x"] + move.alpha * kept["score"] + move.noise * shaped

    def closed_form(self, start: GaussianLaw) -> GaussianLaw:
        rho = {"log": None, "uniform": -0.5}[self.config.spacing]
        steps = math.ceil((self.num_inference_steps - 1) / (1 + self.config.products))
        levels = published_curve({**self.config, "rho": rho}, steps + 1)
        law = start
        for i, (t, after) in enumerate(pairwise(levels**-2.0)):
            products = (self.num_inference_steps - 1 + i) // steps - 1
            share = start.data_variance / start.total(t**-0.5)
            nodes = np.sin(np.arange(products + 1) * np.pi / 2 / max(products, 1)) ** 2
            root = lagrange(nodes, np.sqrt(1 + (after / t - 1) * nodes))(share)
            law = law.contract((t + (after - t) * share) / after)
            law = law.noise((after - t) / after**2 * root**2)
        return law.contract(start.data_variance / start.total(levels[-1]))


def root_weights(u: float, degree: int) -> list[float]:
    r"""The coefficients of the polynomial that is :math:`\sqrt{1 + u r}` at the Chebyshev points.

    Args:
        u: from 0 up.
        degree: of the polynomial; 0 for 1, the value at ``r = 0``.

    Returns:
        ``degree + 1`` numbers, that of :math:`r^0` first.
    """
    if degree == 0:
        return [1.0]
    nodes = (1 - np.cos(np.pi * np.arange(degree + 1) / degree)) / 2
    powers = np.vander(nodes, increasing=True)
    return np.linalg.solve(powers, np.sqrt(1 + u * nodes)).tolist()
