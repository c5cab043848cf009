"""Each objective's value and gradient, by formulas written out here.

Models: a linear score, one that is quadratic in each coordinate, and an energy of fourth order. The
formulas are exact, so in float64 they agree to a few roundings; 1e-10 is asked for.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from hdzoo.errors import HDZooError
from hdzoo.models.unet import UNetScoreModel
from hdzoo.training.objectives import (
    along,
    bit_flip_cross_entropy,
    denoising_score_matching,
    divergence,
    draw_probes,
    energy_score,
    explicit_score_matching,
    implicit_score_matching,
    sliced_score_matching,
    stein_unbiased_risk,
)
from hdzoo.training.objectives.derivatives import PROBES

D, N = 3, 7


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, Z, KNOWN = normal(1, N, D), normal(2, N, D), normal(3, N, D)
SIGMAS = torch.linspace(0.3, 2.0, N, dtype=torch.float64)
PROBE = normal(4, N, 2, D)


class Model(NamedTuple):
    """A score with all that the formulas need of it, at points of shape (n, d).

    Attributes:
        weights: that it depends on.
        score: ``s``.
        jacobian: of each point, shape (n, d, d).
        pull: the gradient by the weights of :math:`\\sum_n r_n \\cdot s(x_n)`, r given.
        twist: that of :math:`\\sum_n \\mathrm{tr}(W_n \\nabla s(x_n))`, W given, shape (n, d, d).
    """

    weights: Tensor
    score: Callable[[Tensor], Tensor]
    jacobian: Callable[[Tensor], Tensor]
    pull: Callable[[Tensor, Tensor], Tensor]
    twist: Callable[[Tensor, Tensor], Tensor]


def linear() -> Model:
    """s = -K x, K not symmetric."""
    k = normal(5, D, D).requires_grad_()
    return Model(
        k,
        lambda x: -x @ k.T,
        lambda x: -k.expand(len(x), D, D),
        lambda x, r: -r.T @ x,
        lambda x, w: -w.sum(0).T,
    )


def quadratic() -> Model:
    """s_i = x^T Q_i x, with Q_i symmetric or not."""
    q = normal(6, D, D, D).requires_grad_()
    return Model(
        q,
        lambda x: torch.einsum("nj,ijk,nk->ni", x, q, x),
        lambda x: torch.einsum("nk,ijk->nij", x, q + q.mT),
        lambda x, r: torch.einsum("ni,nj,nk->ijk", r, x, x),
        # tr(W J) = sum W_ji J_ij, and J_ij = sum_k (q_ijk + q_ikj) x_k.
        lambda x, w: (t := torch.einsum("nji,nk->ijk", w, x)) + t.mT,
    )


def quartic_energy() -> Model:
    """E = sum a_i x_i^4 / 4 + (b . x)^2 / 2, by its energy alone: s = -a x^3 - b (b . x)."""
    w = normal(7, 2, D).requires_grad_()

    def energy(x: Tensor) -> Tensor:
        return (w[0] * x**4).sum(1) / 4 + (x @ w[1]) ** 2 / 2

    def pull(x: Tensor, r: Tensor) -> Tensor:
        b = w[1].detach()
        return torch.stack(
            [-(r * x**3).sum(0), -((r @ b)[:, None] * x + (x @ b)[:, None] * r).sum(0)]
        )

    def twist(x: Tensor, v: Tensor) -> Tensor:
        b = w[1].detach()
        slopes = torch.diagonal(v, dim1=1, dim2=2)
        return torch.stack([-3 * (slopes * x**2).sum(0), -((v + v.mT) @ b).sum(0)])

    return Model(
        w,
        energy_score(energy),
        lambda x: -torch.diag_embed(3 * w[0] * x**2) - w[1].outer(w[1]),
        pull,
        twist,
    )


MODELS = {"linear": linear, "quadratic": quadratic, "energy": quartic_energy}


class Expected(NamedTuple):
    """A value for each sample; and the gradient by the score there, and by its Jacobian."""

    value: Tensor
    by_score: Tensor
    by_jacobian: Tensor
    at: Tensor = X


def square(x: Tensor) -> Tensor:
    return (x**2).sum(1)


EYE = torch.eye(D, dtype=torch.float64).expand(N, D, D)
NONE = torch.zeros(N, D, D, dtype=torch.float64)
# The mean of u u^T over the probes.
OUTER = (PROBE[:, :, :, None] * PROBE[:, :, None, :]).mean(1)


def trace(weights: Tensor, jacobian: Tensor) -> Tensor:
    return torch.einsum("nji,nij->n", weights, jacobian)


def explicit(m: Model) -> tuple[Tensor, Expected]:
    error = m.score(X) - KNOWN
    return explicit_score_matching(m.score, X, KNOWN), Expected(square(error) / 2, error, NONE)


def denoising(m: Model) -> tuple[Tensor, Expected]:
    noisy = X + SIGMAS[:, None] * Z
    error = m.score(noisy) + Z / SIGMAS[:, None]
    loss = denoising_score_matching(m.score, X, Z, SIGMAS)
    return loss, Expected(square(error) / 2, error, NONE, noisy)


def implicit(m: Model) -> tuple[Tensor, Expected]:
    s, j = m.score(X), m.jacobian(X)
    return implicit_score_matching(m.score, X), Expected(trace(EYE, j) + square(s) / 2, s, EYE)


def estimated(m: Model) -> tuple[Tensor, Expected]:
    s, j = m.score(X), m.jacobian(X)
    loss = implicit_score_matching(m.score, X, PROBE)
    return loss, Expected(trace(OUTER, j) + square(s) / 2, s, OUTER)


def sliced(m: Model) -> tuple[Tensor, Expected]:
    s, j = m.score(X), m.jacobian(X)
    along_probes = torch.einsum("npi,ni->np", PROBE, s)
    value = trace(OUTER, j) + (along_probes**2).mean(1) / 2
    return sliced_score_matching(m.score, X, PROBE), Expected(
        value, torch.einsum("nij,nj->ni", OUTER, s), OUTER
    )


def sure(m: Model, probes: Tensor | None = None, outer: Tensor = EYE) -> tuple[Tensor, Expected]:
    """D = x + v s: |v s|^2 + 2 v (tr of outer + v tr(outer J)) - d v, v the variance."""
    v = SIGMAS**2
    s, j = m.score(X), m.jacobian(X)
    loss = stein_unbiased_risk(lambda x: x + v[:, None] * m.score(x), X, SIGMAS, probes)
    value = v**2 * square(s) + 2 * v * (trace(outer, EYE) + v * trace(outer, j)) - D * v
    return loss, Expected(value, 2 * v[:, None] ** 2 * s, 2 * v[:, None, None] ** 2 * outer)


def estimated_sure(m: Model) -> tuple[Tensor, Expected]:
    return sure(m, PROBE, OUTER)


OBJECTIVES = (explicit, denoising, implicit, estimated, sliced, sure, estimated_sure)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda one: one.__name__)
def test_value_and_gradient(
    objective: Callable[[Model], tuple[Tensor, Expected]], model: str
) -> None:
    m = MODELS[model]()
    loss, expected = objective(m)
    assert loss.shape == (N,)
    torch.testing.assert_close(loss, expected.value, rtol=1e-10, atol=1e-10)
    # Each sample with a weight of its own, as over a ladder.
    (gradient,) = torch.autograd.grad((SIGMAS**2 * loss).sum(), m.weights)
    parts = (
        (SIGMAS**2)[:, None] * expected.by_score,
        (SIGMAS**2)[:, None, None] * (expected.by_jacobian),
    )
    by_hand = m.pull(expected.at, parts[0]) + m.twist(expected.at, parts[1])
    torch.testing.assert_close(gradient, by_hand.detach(), rtol=1e-10, atol=1e-10)


def test_samples_may_be_images() -> None:
    """The same as flat ones, whatever the shape."""

    def shaped(x: Tensor) -> Tensor:
        return flat(x.flatten(1)).view(x.shape)

    k, x, z = normal(8, 12, 12), normal(9, N, 3, 2, 2), normal(10, N, 3, 2, 2)
    probes = normal(11, N, 2, 3, 2, 2)

    def flat(x: Tensor) -> Tensor:
        return (x @ k) ** 2

    for one, other in (
        (implicit_score_matching(shaped, x), implicit_score_matching(flat, x.flatten(1))),
        (
            sliced_score_matching(shaped, x, probes),
            sliced_score_matching(flat, x.flatten(1), probes.flatten(2)),
        ),
        (
            denoising_score_matching(shaped, x, z, SIGMAS),
            denoising_score_matching(flat, x.flatten(1), z.flatten(1), SIGMAS),
        ),
        (
            stein_unbiased_risk(shaped, x, SIGMAS, probes),
            stein_unbiased_risk(flat, x.flatten(1), SIGMAS, probes.flatten(2)),
        ),
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_divergence_in_more_directions_than_a_chunk() -> None:
    k, x = normal(12, 150, 150), normal(13, 2, 150)
    value, spread = divergence(lambda x: (x @ k.T) ** 2, x)
    torch.testing.assert_close(value, (x @ k.T) ** 2)
    torch.testing.assert_close(spread, 2 * (x @ k.T) @ k.diagonal(), rtol=1e-12, atol=1e-10)


# ---- random probes ------------------------------------------------------------------------------

DRAWS = 100_000


@pytest.mark.parametrize("law", PROBES)
def test_probes_have_mean_0_and_covariance_1(law: str) -> None:
    torch.manual_seed(0)
    probes = draw_probes(torch.zeros(DRAWS // 2, D, dtype=torch.float64), 2, law)
    assert probes.shape == (DRAWS // 2, 2, D)
    flat = probes.flatten(0, 1)
    # Standard errors: 1 of a coordinate, at most sqrt 2 of a product of two.
    assert flat.mean(0).abs().max() < 4 / math.sqrt(DRAWS)
    assert (flat.T @ flat / DRAWS - EYE[0]).abs().max() < 4 * math.sqrt(2 / DRAWS)


@pytest.mark.parametrize("law", PROBES)
@pytest.mark.parametrize("variance_reduction", [True, False])
def test_estimates_are_unbiased_with_their_variance(law: str, variance_reduction: bool) -> None:
    """u^T A u varies by 2 |A|^2 for normal u, and without the diagonal for signs, A symmetric.

    Sliced without variance reduction, A has s s^T / 2 besides.
    """
    k, x = normal(14, D, D), normal(15, 1, D)
    torch.manual_seed(1)
    probes = draw_probes(x.expand(DRAWS, D), 1, law)

    def score(x: Tensor) -> Tensor:
        return -x @ k.T

    objective = implicit_score_matching if variance_reduction else sliced_score_matching
    losses = objective(score, x.expand(DRAWS, D), probes)
    exact = implicit_score_matching(score, x).item()
    error = losses.std().item() / math.sqrt(DRAWS)
    assert abs(losses.mean().item() - exact) < 4 * error
    matrix = -(k + k.T) / 2
    if not variance_reduction:
        matrix = matrix + score(x)[0].outer(score(x)[0]) / 2
    variance = 2 * (matrix**2).sum()
    if law == "rademacher":
        variance = variance - 2 * (matrix.diagonal() ** 2).sum()
    # Of 10^5 draws, whose fourth moment is at most some 15 times the squared variance, 1.2 %.
    assert losses.var().item() == pytest.approx(variance.item(), rel=0.1)


def test_more_probes_divide_the_variance() -> None:
    k, x = normal(16, D, D), normal(17, 1, D)
    torch.manual_seed(2)
    variances = [
        implicit_score_matching(
            lambda x: -x @ k.T,
            x.expand(DRAWS // 4, D),
            draw_probes(x.expand(DRAWS // 4, D), number, "gaussian"),
        ).var()
        for number in (1, 4)
    ]
    assert (variances[0] / variances[1]).item() == pytest.approx(4, rel=0.1)


# ---- signs --------------------------------------------------------------------------------------


def test_cross_entropy_of_signs() -> None:
    half = normal(18, N, D).requires_grad_()
    clean = torch.where(normal(19, N, D) < 0, -1.0, 1.0).double()
    loss = bit_flip_cross_entropy(half, clean)
    # P(x_0 = 1) = 1 / (1 + e^{-2 l}).
    chance = 1 / (1 + (-2 * half).exp())
    chance = torch.where(clean > 0, chance, 1 - chance)
    torch.testing.assert_close(loss, -chance.log().sum(1), rtol=1e-10, atol=1e-10)
    (gradient,) = torch.autograd.grad(loss.sum(), half)
    torch.testing.assert_close(gradient, half.detach().tanh() - clean, rtol=1e-10, atol=1e-10)


# ---- networks -----------------------------------------------------------------------------------


class OneWay(torch.autograd.Function):
    """An operation that has no derivatives in forward mode."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def setup_context(context: object, inputs: object, output: object) -> None: ...


def test_an_operation_without_such_derivatives_is_refused() -> None:
    with pytest.raises(HDZooError, match=r"without derivatives in forward mode .* by 'denoising'"):
        along(OneWay.apply, X, Z)


def test_attention_has_them() -> None:
    """Its fast kernels do not."""
    torch.manual_seed(0)
    network = UNetScoreModel(
        sample_size=4, patch_size=1, block_out_channels=(8,), add_attention=True
    ).double()
    x, u, h = normal(20, 2, 1, 4, 4), normal(21, 2, 1, 4, 4), 1e-5

    def denoiser(x: Tensor) -> Tensor:
        return network(x, 0.5).sample

    central = (denoiser(x + h * u) - denoiser(x - h * u)) / (2 * h)
    _, slope = along(denoiser, x, u)
    # The third derivative times h^2, and roundings of 1e-16 / h.
    torch.testing.assert_close(slope, central, rtol=0, atol=1e-8)
    slope.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
