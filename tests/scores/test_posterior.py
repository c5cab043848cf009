"""Second-order Tweedie: against exact covariances, and linear algebra."""

from contextlib import suppress
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

import hdzoo
from hdzoo import GaussianMixtureScore, HDZooError, PosteriorCovariance, UNetScoreModel
from hdzoo.scores.conversions import PREDICTION_TYPES, from_score
from hdzoo.scores.derivatives import Jacobian
from hdzoo.scores.kernels import forward_mode
from hdzoo.targets import named

# Points, circle, sphere and segment are singular.
TARGETS = {
    "gaussian": named.gaussian,
    "two-gaussians": named.two_gaussians,
    "two-points": named.two_points,
    "laplace": named.laplace,
    "ncsn-toy": named.ncsn_toy,
    "eight-gaussians": named.eight_gaussians,
    "gaussian-anisotropic": named.gaussian_anisotropic,
    "circle": named.circle,
    "segment": named.segment,
    "sphere": named.sphere,
}
SIGMA = 0.7


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=seeded(seed))


def mixture() -> GaussianMixtureScore:
    return GaussianMixtureScore.from_components(
        [[-1.0, 0.5, 0.2], [1.0, -0.5, 0.0]], [[0.3, 0.1, 0.2], [0.1, 0.4, 0.6]], [0.4, 0.6]
    )


def linear(matrix: torch.Tensor, count: int = 1, **options: Any) -> PosteriorCovariance:
    """Of a denoiser that is linear, not a symmetric one: ``C = sigma^2 A``."""
    x = randn(count, len(matrix), seed=5)
    return PosteriorCovariance(lambda x, sigma: x @ matrix.T, x, SIGMA, **options)


# ---- exact laws -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "sigma"), [*product(TARGETS, (0.1, 0.5, 2.0)), ("digits", 0.5)])
def test_exact_laws(name: str, sigma: float) -> None:
    model = {**TARGETS, "digits": named.digits}[name]()
    x = model.sample(3, seeded(), sigma=sigma).double()
    posterior = PosteriorCovariance(model.denoise, x, sigma)
    exact = model.posterior_covariance(x, sigma)
    close: dict[str, float] = {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(posterior.matrix(), exact, **close)
    torch.testing.assert_close(posterior.mean, model.denoise(x, sigma), **close)
    assert posterior.num_evaluations == 3 * (1 + model.dimension)
    v = randn(*x.shape, seed=1)
    times = torch.einsum("nij,nj->ni", exact, v.flatten(1)).view(x.shape)
    for kind in ("forward", "transposed", "symmetric"):
        torch.testing.assert_close(posterior.product(v, kind), times, **close)
    found = posterior.diagonal()
    torch.testing.assert_close(found.variances.flatten(1), exact.diagonal(dim1=1, dim2=2), **close)
    torch.testing.assert_close(found.trace, exact.diagonal(dim1=1, dim2=2).sum(1), **close)
    assert not found.standard_error.any()
    values = np.linalg.eigvalsh(exact.numpy())[:, ::-1]
    np.testing.assert_allclose(posterior.eigenpairs(1).values[:, 0], values[:, 0], atol=1e-10)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 5.0])
def test_gaussian_in_closed_form(sigma: float) -> None:
    """sigma^2 S (S + sigma^2)^-1, by NumPy."""
    factor = randn(4, 4, seed=2)
    covariance = factor @ factor.T
    model = GaussianMixtureScore.from_components(torch.zeros(4), covariance)
    x = randn(2, 4)
    inverse = np.linalg.inv(covariance.numpy() + sigma**2 * np.eye(4))
    exact = sigma**2 * covariance.numpy() @ inverse
    for matrix in PosteriorCovariance(model.denoise, x, sigma).matrix().numpy():
        np.testing.assert_allclose(matrix, exact, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_any_prediction_of_a_wrapped_network(kind: str) -> None:
    model = mixture()

    def network(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return from_score(model.score(x, sigma), x, sigma.view(-1, 1), kind)

    wrapped = hdzoo.wrap(network, sigma_min=0.1, sigma_max=2.0, sample_shape=(3,), predicts=kind)
    x = randn(4, 3)
    posterior = PosteriorCovariance(wrapped.denoise, x, SIGMA)
    exact = model.posterior_covariance(x, SIGMA)
    torch.testing.assert_close(posterior.matrix(), exact, rtol=0, atol=1e-10)
    assert posterior.asymmetry().max() < 1e-12


# ---- Hutchinson -----------------------------------------------------------------------------


def test_the_estimate_is_unbiased_and_has_the_variance_that_is_derived() -> None:
    """One probe gives z_i sum_j C_ij z_j, of variance sum_{j != i} C_ij^2; their sum z . C z has
    the variance sum_{i < j} (C_ij + C_ji)^2.

    A one-probe value is bounded, of kurtosis at most 3 or so: of 4,000 its variance is known to
    sqrt(2 / 4000) = 2.2 %, and 10 % are 4.5 standard errors.
    """
    matrix, count = randn(5, 5), 4000
    covariance = SIGMA**2 * matrix
    posterior = linear(matrix, batch_size=count)
    found = posterior.diagonal(count, seeded())
    exact = covariance.diagonal()
    assert ((found.variances[0] - exact).abs() <= 4 * found.standard_error[0]).all()
    assert (found.trace[0] - exact.sum()).abs() <= 4 * found.trace_standard_error[0]
    off = covariance - torch.diag(exact)
    variance = count * found.standard_error[0] ** 2
    torch.testing.assert_close(variance, (off**2).sum(1), rtol=0.1, atol=0)
    of_trace = count * found.trace_standard_error[0] ** 2
    torch.testing.assert_close(of_trace, ((off + off.T) ** 2).sum() / 2, rtol=0.1, atol=0)
    assert posterior.num_evaluations == 1 + count


def test_probes_of_a_diagonal_matrix_are_exact() -> None:
    found = linear(torch.diag(randn(6))).diagonal(2, seeded())
    torch.testing.assert_close(found.variances[0], SIGMA**2 * randn(6), rtol=1e-14, atol=0)
    assert found.standard_error.max() < 1e-15


def test_asymmetry() -> None:
    matrix = randn(6, 6)
    odd, even = matrix - matrix.T, matrix + matrix.T
    exact = float(np.linalg.norm(odd) / np.linalg.norm(even))
    assert linear(matrix).asymmetry().item() == pytest.approx(exact, rel=1e-12)
    # |M v|^2 of 2,000 probes has a relative spread below 1 / sqrt(2000), and so has the other norm.
    estimate = linear(matrix, batch_size=500).asymmetry(2000, seeded()).item()
    assert estimate == pytest.approx(exact, rel=0.1)
    assert linear(even).asymmetry(4, seeded()).item() < 1e-14


def test_the_products_of_an_asymmetric_jacobian() -> None:
    matrix = randn(6, 6)
    posterior = linear(matrix, 3)
    v = randn(3, 6, seed=7)
    for kind, expected in (
        ("forward", matrix),
        ("transposed", matrix.T),
        ("symmetric", (matrix + matrix.T) / 2),
    ):
        torch.testing.assert_close(posterior.product(v, kind), SIGMA**2 * v @ expected.T)
    torch.testing.assert_close(posterior.matrix()[1], SIGMA**2 * matrix)
    assert posterior.num_evaluations == 3 * (1 + 1 + 1 + 2 + 6)


# ---- eigenpairs -----------------------------------------------------------------------------


@pytest.mark.parametrize(("d", "k"), [(60, 1), (60, 7), (100, 12), (5, 5), (1, 1)])
def test_eigenpairs_are_those_of_numpy(d: int, k: int) -> None:
    """By Lanczos in many dimensions and by the matrix in few, of an asymmetric Jacobian."""
    matrix = randn(d, d)
    posterior = linear(matrix, 2)
    most = posterior.most_evaluations(k)
    found = posterior.eigenpairs(k, seeded())
    assert posterior.num_evaluations <= 2 + most
    values, vectors = np.linalg.eigh((matrix + matrix.T).numpy() / 2)
    values, vectors = SIGMA**2 * values[::-1][:k], vectors.T[::-1][:k]
    for i in range(2):
        np.testing.assert_allclose(found.values[i], values, rtol=1e-10)
        overlap = np.abs(found.vectors[i].numpy() @ vectors.T)
        # An eigenvector is off by a rounding over the gap of the eigenvalues, of some 0.1.
        np.testing.assert_allclose(overlap, np.eye(k), atol=1e-8)


def test_eigenpairs_come_from_the_matrix_once_it_is_there() -> None:
    matrix = randn(60, 60)
    posterior = linear(matrix)
    lanczos = posterior.eigenpairs(3, seeded())
    posterior.matrix()
    before = posterior.num_evaluations
    dense = posterior.eigenpairs(3)
    assert posterior.num_evaluations == before
    torch.testing.assert_close(dense.values, lanczos.values, rtol=1e-10, atol=0)
    # Their signs are fixed, too.
    torch.testing.assert_close(dense.vectors, lanczos.vectors, rtol=0, atol=1e-8)


# ---- batches and networks -------------------------------------------------------------------


def generators(*seeds: int) -> list[torch.Generator]:
    return [seeded(seed) for seed in seeds]


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    matrix, x = randn(60, 60), randn(3, 60, seed=1)

    def denoise(x: torch.Tensor, _: float) -> torch.Tensor:
        return torch.tanh(x @ matrix) @ matrix.T / 60

    together = PosteriorCovariance(denoise, x, SIGMA, batch_size=7)
    alone = PosteriorCovariance(denoise, x[1:2], SIGMA)
    # Sums in a product of matrices may be rounded in another order.
    close = {"rtol": 0, "atol": 1e-13}
    for method, arguments in (("diagonal", (6,)), ("asymmetry", (6,)), ("eigenpairs", (2,))):
        many = getattr(together, method)(*arguments, generators(0, 1, 2))
        one = getattr(alone, method)(*arguments, generators(1))
        pairs = zip(many, one, strict=True) if isinstance(many, tuple) else [(many, one)]
        for of_many, of_one in pairs:
            torch.testing.assert_close(of_many[1:2], of_one, **close)


@pytest.fixture(scope="module")
def network() -> UNetScoreModel:
    torch.manual_seed(0)
    options = {"block_out_channels": (8, 16), "norm_num_groups": 4, "add_attention": True}
    return UNetScoreModel(sample_size=8, in_channels=3, **options).double().eval()


def test_a_network_by_both_modes_and_by_differences(network: UNetScoreModel) -> None:
    """With attention, whose fused kernels have no forward mode."""
    x = randn(2, 3, 8, 8)
    posterior = PosteriorCovariance(network.denoise, x, SIGMA)
    v, w = randn(2, 3, 8, 8, seed=1), randn(2, 3, 8, 8, seed=2)
    ahead = posterior.product(v, "forward")
    assert posterior.mode == ("forward" if pytorch_has_it(network) else "double-reverse")
    denoise = lambda x: network.denoise(x, SIGMA)  # noqa: E731
    twice = Jacobian(denoise, SIGMA, denoise)
    twice.mode = "double-reverse"
    torch.testing.assert_close(SIGMA**2 * twice.times(x, posterior.mean, v), ahead)
    step = 1e-5
    moved = network.denoise(x + step * v, SIGMA) - network.denoise(x - step * v, SIGMA)
    # The third derivative times step^2, and roundings of 1e-16 over the step.
    torch.testing.assert_close(SIGMA**2 * moved / (2 * step), ahead, rtol=0, atol=1e-8)
    back = posterior.product(w, "transposed")
    torch.testing.assert_close((w * ahead).sum(), (v * back).sum())


def pytorch_has_it(network: UNetScoreModel) -> bool:
    """Whether PyTorch has a forward mode of all of a network, which 2.9 has not."""
    x, v = randn(2, 3, 8, 8), randn(2, 3, 8, 8, seed=1)
    with suppress(RuntimeError), torch.no_grad(), forward_mode(), forward_ad.dual_level():
        network.denoise(forward_ad.make_dual(x, v), SIGMA)
        return True
    return False


class WithoutForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * ctx.saved_tensors[0].cos()


def test_a_function_without_forward_mode() -> None:
    x = randn(3, 4)
    posterior = PosteriorCovariance(lambda x, _: WithoutForwardMode.apply(x), x, SIGMA)
    torch.testing.assert_close(posterior.matrix(), SIGMA**2 * torch.diag_embed(x.cos()))
    assert posterior.mode == "double-reverse"


def test_half_precision_states_are_widened(network: UNetScoreModel) -> None:
    x = randn(1, 3, 8, 8).bfloat16()
    posterior = PosteriorCovariance(network.denoise, x, SIGMA)
    assert posterior.product(x).dtype == posterior.mean.dtype == torch.float32


def test_progress_is_told() -> None:
    told: list[int] = []
    posterior = linear(randn(6, 6), 2, batch_size=4, on_evaluation=told.append)
    posterior.matrix()
    assert told == [2, 6, 10, 14]


# ---- what is refused ------------------------------------------------------------------------


def no_grad(x: torch.Tensor, sigma: float) -> torch.Tensor:
    with torch.no_grad():
        score = mixture().score(x, sigma)
    return x + sigma**2 * score


DENOISERS = {
    "detached": (lambda x, sigma: mixture().denoise(x.detach(), sigma), "derivative .* is zero"),
    "NumPy": (lambda x, _: torch.from_numpy(np.tanh(x.detach().numpy())), "derivative .* is zero"),
    "inference mode": (torch.inference_mode()(mixture().denoise), "derivative .* is zero"),
    "no_grad": (torch.no_grad()(mixture().denoise), "cannot be differentiated"),
    "part of it with no_grad": (no_grad, "not of one function"),
    "half of it detached": (
        lambda x, sigma: 0.5 * (mixture().denoise(x, sigma) + mixture().denoise(x.detach(), sigma)),
        "not that of what it computes",
    ),
    "dropout": (
        lambda x, sigma: torch.nn.functional.dropout(mixture().denoise(x, sigma), 0.5),
        "draws random numbers",
    ),
    "not finite": (lambda x, _: x / 0, "not finite"),
    "infinite slope": (lambda x, _: (x - x.detach()).abs().sqrt(), "is not finite"),
    "another shape": (lambda x, _: x[:, :1], r"it must be a tensor of the shape of x, \(2, 3\)"),
    "no tensor": (lambda x, _: x.tolist(), "it must be a tensor of the shape of x"),
}


@pytest.mark.parametrize("case", DENOISERS)
def test_denoisers_that_have_no_such_derivative(case: str) -> None:
    denoise, message = DENOISERS[case]
    with pytest.raises(HDZooError, match=message):
        PosteriorCovariance(denoise, randn(2, 3), SIGMA).product(randn(2, 3, seed=1))


def test_a_denoiser_may_be_constant() -> None:
    """A point mass: nothing is uncertain."""
    posterior = PosteriorCovariance(lambda x, _: 0 * x + 1, randn(2, 3), SIGMA)
    assert not posterior.matrix().any()
    assert not posterior.product(randn(2, 3)).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.eigenpairs(4), "k is 4, and a sample has 3 numbers"),
        (lambda p: p.eigenpairs(0), "k is 0"),
        (lambda p: p.most_evaluations(4), "k is 4"),
        (lambda p: p.diagonal(1), "num_probes is 1"),
        (lambda p: p.diagonal(2.5), "num_probes is 2.5"),
        (lambda p: p.asymmetry("many"), "num_probes is 'many'"),
        (lambda p: p.diagonal(4, [seeded()]), "a list of 1 for 2 samples"),
        (lambda p: p.diagonal(4, (seeded(), seeded())), "generator is .* must be"),
        (lambda p: p.eigenpairs(1, 7), None),
        (lambda p: p.product(randn(3)), r"of the shape of x, \(2, 3\)"),
        (lambda p: p.product(torch.ones(2, 3, dtype=torch.long)), "floating-point"),
        (lambda p: p.product(randn(2, 3), "J v"), "'forward', 'transposed', 'symmetric'|forward,"),
    ],
)
def test_wrong_arguments(call: Any, message: str | None) -> None:
    posterior = PosteriorCovariance(mixture().denoise, randn(2, 3), SIGMA)
    # In few dimensions no search begins anywhere.
    if message is None:
        call(posterior)
        return
    with pytest.raises(HDZooError, match=message):
        call(posterior)


def test_a_matrix_that_nobody_could_hold() -> None:
    posterior = PosteriorCovariance(lambda x, _: x / 2, torch.zeros(2, 3, 128, 128), SIGMA)
    with pytest.raises(HDZooError, match="give num_probes for an estimate"):
        posterior.diagonal()


def test_a_noise_level_that_the_network_does_not_know(network: UNetScoreModel) -> None:
    with pytest.raises(HDZooError, match=r"from 0\.01 to 10, and a call asks for 20; change sigma"):
        PosteriorCovariance(network.denoise, randn(1, 3, 8, 8), 20.0)
