"""Generalised score matching: its adjoints, and the objectives that are cases of it."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from hdzoo.targets.named import two_gaussians
from hdzoo.training.objectives import (
    denoising_score_matching,
    explicit_score_matching,
    generalised_score_matching,
    implicit_score_matching,
    sliced_score_matching,
    stein_unbiased_risk,
)
from hdzoo.training.objectives.generalised import (
    Adjoint,
    directional,
    flips,
    gradient,
    of_noise,
    tweedie,
)

N, D = 6, 3
GENERATOR = torch.Generator().manual_seed(0)
X, Z, U, K = (
    torch.randn(shape, generator=GENERATOR, dtype=torch.float64)
    for shape in ((N, D), (N, D), (N, D), (D, D))
)
SIGMAS = torch.linspace(0.2, 1.5, N, dtype=torch.float64)


def f(x: Tensor) -> Tensor:
    return torch.tanh(x @ K.T) + x**2


def square(x: Tensor) -> Tensor:
    return (x**2).sum(1)


def test_the_gradient_gives_implicit_score_matching() -> None:
    torch.testing.assert_close(
        generalised_score_matching(f, X, gradient), implicit_score_matching(f, X)
    )


def test_a_directional_derivative_gives_sliced_score_matching() -> None:
    torch.testing.assert_close(
        generalised_score_matching(lambda x: (U * f(x)).sum(1, keepdim=True), X, directional(U)),
        sliced_score_matching(f, X, U[:, None]),
    )


def test_noise_gives_denoising_score_matching() -> None:
    noisy = X + SIGMAS[:, None] * Z
    torch.testing.assert_close(
        generalised_score_matching(f, noisy, of_noise(Z, SIGMAS)),
        denoising_score_matching(f, X, Z, SIGMAS) - square(Z) / (2 * SIGMAS**2),
    )


def test_the_denoiser_gives_stein_s_risk() -> None:
    torch.testing.assert_close(
        generalised_score_matching(f, X, tweedie(SIGMAS)),
        (stein_unbiased_risk(f, X, SIGMAS) + D * SIGMAS**2 - square(X)) / 2,
    )


# ---- the adjoints, by quadrature and by listing -------------------------------------------------


def on_the_line(adjoint: Adjoint, ratio: Callable[[Tensor], Tensor], sigma: float) -> None:
    """E f L p / p = E L'f, and so the loss is the explicit one less a constant, on a mixture."""
    # The trapezoidal rule converges faster than any power: 1e-15 at this spacing.
    x = torch.linspace(-14, 14, 4001, dtype=torch.float64)[:, None]
    weights = two_gaussians().log_density(x, sigma).exp() * (x[1, 0] - x[0, 0])

    def mean(values: Tensor) -> float:
        return (weights @ values).item()

    def function(x: Tensor) -> Tensor:
        return torch.sin(2 * x) + 0.3 * x

    known = ratio(x)
    value, image = adjoint(function, x)
    assert mean(image) == pytest.approx(mean((value * known).sum(1)), abs=1e-12)
    constant = mean(square(known)) / 2
    assert mean(generalised_score_matching(function, x, adjoint)) + constant == pytest.approx(
        mean(explicit_score_matching(function, x, known)), abs=1e-12
    )


def test_adjoint_of_the_gradient() -> None:
    on_the_line(gradient, lambda x: two_gaussians().score(x, 0.4), 0.4)


def test_adjoint_of_tweedie() -> None:
    sigmas = torch.full((4001,), 0.4, dtype=torch.float64)
    on_the_line(tweedie(sigmas), lambda x: two_gaussians().denoise(x, 0.4), 0.4)


def test_adjoint_of_a_directional_derivative() -> None:
    direction = torch.full((4001, 1), -1.7, dtype=torch.float64)
    on_the_line(directional(direction), lambda x: -1.7 * two_gaussians().score(x, 0.4), 0.4)


def test_the_adjoint_by_noise_has_the_mean_of_that_by_derivatives() -> None:
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(40))
    weights = weights / weights.sum()
    x0, sigmas = torch.full((40, 1), 0.7).double(), torch.full((40,), 0.5).double()
    noisy = x0 + 0.5 * nodes[:, None]
    by_noise, by_derivatives = (
        (weights @ adjoint(torch.tanh, noisy)[1]).item()
        for adjoint in (of_noise(nodes[:, None], sigmas), gradient)
    )
    assert by_noise == pytest.approx(by_derivatives, abs=1e-9)


def test_adjoint_of_flips_on_a_law_of_signs() -> None:
    """All 16 points listed; the minimiser is the ratio of the law at neighbours."""
    points = torch.tensor(list(product((-1.0, 1.0), repeat=4)), dtype=torch.float64)
    law = torch.rand(16, generator=GENERATOR, dtype=torch.float64) + 0.1
    law = law / law.sum()
    index = ((points > 0) * torch.tensor([8, 4, 2, 1])).sum(1)
    assert index.tolist() == list(range(16))
    turned = torch.stack([index ^ bit for bit in (8, 4, 2, 1)], dim=1)
    ratio = law[turned] / law[:, None]
    table = torch.randn(16, 4, generator=GENERATOR, dtype=torch.float64).requires_grad_()

    def at(values: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: values[((x > 0) * torch.tensor([8, 4, 2, 1])).sum(1)]

    explicit = law @ explicit_score_matching(at(table), points, ratio)
    found = law @ generalised_score_matching(at(table), points, flips)
    constant = law @ square(ratio) / 2
    torch.testing.assert_close(found + constant, explicit, rtol=1e-12, atol=1e-12)
    slopes = [torch.autograd.grad(loss, table)[0] for loss in (found, explicit)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)
    best = ratio.clone().requires_grad_()
    (slope,) = torch.autograd.grad(law @ generalised_score_matching(at(best), points, flips), best)
    assert slope.abs().max() < 1e-14
