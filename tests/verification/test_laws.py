"""The harness that finds exact laws, against matrix algebra, simulation, and samplers that lie."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config

from hdzoo import AnnealedLangevinSampler, HDZooError, LangevinSampler, get_sampler
from hdzoo.verification.bias import bias, bias_curves
from hdzoo.verification.draws import Draws, NotAffineError
from hdzoo.verification.laws import (
    AffineMap,
    Gaussian,
    affine_map,
    declared_law,
    deviation,
    exact_law,
    laws_along,
    natural_start,
    run_chain,
)

Draw = Callable[[torch.Tensor], torch.Tensor]


def turned(values: list[float], seed: int = 0) -> Gaussian:
    """A Gaussian with these eigenvalues and random eigenvectors and mean."""
    rng = np.random.default_rng(seed)
    vectors = np.linalg.qr(rng.standard_normal((len(values), len(values))))[0]
    return Gaussian(rng.uniform(-1, 1, len(values)), vectors * np.array(values) @ vectors.T)


class Toy(SchedulerMixin, ConfigMixin):
    """A scheduler of five steps ``x M + 0.1 s + noise``, with noise drawn as one likes."""

    order = 1
    mixing = torch.tensor([[0.9, 0.2, 0.0], [0.0, 0.8, 0.1], [-0.3, 0.0, 0.7]]).double()

    @register_to_config
    def __init__(self) -> None:
        self.set_timesteps(5)

    def set_timesteps(self, steps: int, device: Any = None) -> None:
        self.num_inference_steps = steps
        self.timesteps = torch.linspace(1.0, 0.2, steps, dtype=torch.float64)
        self.sigmas = torch.cat([self.timesteps, torch.zeros(1)])
        self.init_noise_sigma = 1.0

    def scale_model_input(self, sample: torch.Tensor, timestep: Any) -> torch.Tensor:
        return sample

    def noise(self, sample: torch.Tensor, generator: Any) -> torch.Tensor:
        return 0.5 * torch.randn(sample.shape, generator=generator, dtype=sample.dtype)

    def step(
        self, output: Any, t: Any, sample: Any, generator: Any = None, return_dict: bool = True
    ) -> Any:
        return (sample @ self.mixing + 0.1 * output + self.noise(sample, generator),)


def toy(noise: Callable[[torch.Tensor, Any], torch.Tensor]) -> Toy:
    made = Toy()
    made.noise = noise  # type: ignore[method-assign]
    return made


def by_matrices(target: Gaussian, start: Gaussian, noise_variance: float) -> Gaussian:
    """What `Toy` does, by hand: each step is an affine map of the row vector x."""
    mean, covariance = start
    for sigma in np.linspace(1.0, 0.2, 5):
        precision = np.linalg.inv(target.covariance + sigma**2 * np.eye(3))
        matrix = Toy.mixing.numpy() - 0.1 * precision
        mean = mean @ matrix + 0.1 * target.mean @ precision
        covariance = matrix.T @ covariance @ matrix + noise_variance * np.eye(3)
    return Gaussian(mean, covariance)


# Each draws noise of variance 0.25 in another way.
WAYS: dict[str, Callable[[torch.Tensor, Any], torch.Tensor]] = {
    "randn": lambda x, g: 0.5 * torch.randn(x.shape, generator=g, dtype=x.dtype),
    "randn_like": lambda x, g: 0.5 * torch.randn_like(x),
    "normal_": lambda x, g: torch.empty_like(x).normal_(0.0, 0.5, generator=g),
    "normal_, by name": lambda x, g: torch.empty_like(x).normal_(std=0.5),
    "normal, of tensors": lambda x, g: torch.normal(0 * x, 0 * x + 0.5, generator=g),
    "normal, of numbers": lambda x, g: torch.normal(0.0, 0.5, x.shape, dtype=x.dtype),
    "distribution": lambda x, g: torch.distributions.Normal(0 * x, 0 * x + 0.5).sample(),
    "two draws": lambda x, g: 0.3 * torch.randn_like(x) + 0.4 * torch.randn_like(x),
    "mean of four": lambda x, g: torch.randn(len(x), 4, *x.shape[1:], dtype=x.dtype).mean(1),
    "flat": lambda x, g: 0.5 * torch.randn(x.numel(), dtype=x.dtype).view(x.shape),
}


@pytest.mark.parametrize("way", WAYS)
def test_law_of_a_sampler_that_mixes_coordinates(way: str) -> None:
    target, start = turned([1.0, 0.3, 0.0]), turned([2.0, 0.5, 0.1], seed=1)
    law, expected = exact_law(toy(WAYS[way]), target, start), by_matrices(target, start, 0.25)
    # Five steps of a few roundings of 2e-16, and a mean of 0.5 that goes through float32 nowhere.
    np.testing.assert_allclose(law.mean, expected.mean, rtol=0, atol=1e-13)
    np.testing.assert_allclose(law.covariance, expected.covariance, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (
            lambda x, g: torch.randn(1, 3).double(),
            r"draws noise of the shape \(1, 3\) for \d+ samples; each sample needs its own",
        ),
        (lambda x, g: torch.rand(x.shape).double(), "draws rand; .* normal noise only"),
        (lambda x, g: torch.bernoulli(0 * x + 0.5), "draws bernoulli"),
        (lambda x, g: torch.randn_like(x) * x.abs(), "is not affine on Gaussian data"),
        (lambda x, g: torch.randn_like(x).clamp(-1.5, 1.5), "is not affine"),
        (lambda x, g: torch.randn_like(x) * x.norm() / 9, "or its samples depend on one another"),
    ],
)
def test_what_has_no_exact_law_is_refused(way: Any, message: str) -> None:
    with pytest.raises(NotAffineError, match=message):
        exact_law(toy(way), turned([1.0, 0.3, 0.1]))


def test_generator_and_global_randomness_are_left_alone() -> None:
    state = torch.random.get_rng_state()
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.random.set_rng_state(state)
    torch.manual_seed(5)
    affine_map(LangevinSampler(num_steps=3), turned([1.0, 0.5]))
    assert torch.equal(torch.randn(3), expected)


@pytest.mark.parametrize("name", ["annealed-langevin", "alpha-half-denoising", "example-ddim"])
def test_law_against_simulation(name: str) -> None:
    """Real noise, 40,000 chains: mean and covariance to within 5 standard errors."""
    target, count = turned([1.0, 0.2, 0.0]), 40_000
    sampler = get_sampler(name)(sigma_max=2.0, sigma_min=0.2, num_levels=6)
    sampler.set_timesteps(18)
    start = natural_start(sampler, target)
    law = exact_law(sampler, target)
    sampler.set_timesteps(18)
    generator, score = torch.Generator().manual_seed(0), target.score()
    x = 2.0 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    for t in sampler.timesteps:
        x = sampler.step(score(x, t.item()), t, x, generator, return_dict=False)[0]
    assert (start.mean.tolist(), start.covariance.tolist()) == ([0] * 3, (4 * np.eye(3)).tolist())
    variances = np.diag(law.covariance)
    errors = np.sqrt(variances / count)
    np.testing.assert_array_less(np.abs(x.mean(0).numpy() - law.mean), 5 * errors)
    errors = np.sqrt((np.outer(variances, variances) + law.covariance**2) / count)
    np.testing.assert_array_less(np.abs(np.cov(x.numpy().T) - law.covariance), 5 * errors)


def test_laws_along_a_chain() -> None:
    """The law after k steps is that of the chain cut off there."""
    target = turned([1.0, 0.2, 0.0])
    sampler = AnnealedLangevinSampler(sigmas=[2.0, 1.0, 0.5], steps_per_level=2)
    along = laws_along(sampler, target)
    assert len(along) == 7
    assert deviation(along[0], natural_start(sampler, target)) == 0
    for steps, level in [(2, [2.0]), (4, [2.0, 1.0]), (6, [2.0, 1.0, 0.5])]:
        # alpha on each rung as on the whole ladder, 0.2 sigma^2.
        alphas = [0.2 * sigma**2 for sigma in level]
        cut = AnnealedLangevinSampler(sigmas=level, step_size=alphas, steps_per_level=2)
        assert deviation(along[steps], exact_law(cut, target)) < 1e-13


def test_natural_start() -> None:
    target = turned([1.0, 0.2])
    start = natural_start(LangevinSampler(sigma=0.3), target)
    np.testing.assert_allclose(start.covariance, target.covariance + 0.09 * np.eye(2))
    np.testing.assert_array_equal(start.mean, target.mean)
    start = natural_start(AnnealedLangevinSampler(sigma_max=3.0), target)
    np.testing.assert_array_equal(start.covariance, 9 * np.eye(2))
    np.testing.assert_array_equal(start.mean, 0)


def test_declared_law_of_a_turned_target() -> None:
    target = turned([1.0, 0.2, 0.0])
    sampler = AnnealedLangevinSampler(sigmas=[2.0, 1.0, 0.5], steps_per_level=2)
    start = natural_start(sampler, target)
    law = declared_law(sampler, target, start)
    assert law is not None
    assert deviation(law, exact_law(sampler, target)) < 1e-13
    assert declared_law(Toy(), target, start) is None
    with pytest.raises(HDZooError, match="other eigenvectors than the data's"):
        declared_law(sampler, target, turned([2.0, 1.0, 0.5], seed=1))


def test_affine_map_of_one_langevin_step() -> None:
    # x + alpha (m - x) / V + sqrt(2 alpha) z, V = 1 + 1, alpha = 0.5.
    found = affine_map(LangevinSampler(sigma=1.0, step_size=0.5, num_steps=1), Gaussian.of(3, 1))
    expected = AffineMap(np.array([0.75]), np.array([[0.75]]), np.array([[1.0]]))
    for one, other in zip(vars(found).values(), vars(expected).values(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-15)


def test_deviation() -> None:
    law = Gaussian.of([3.0, 0.0], [4.0, 1.0])
    assert deviation(law, law) == 0
    assert deviation(Gaussian.of([3.0, 0.0], [4.0, 1.4]), law) == pytest.approx(0.1)
    # In units of sqrt(3^2 + 4 + 1).
    assert deviation(Gaussian.of([3.0, 1.0], [4.0, 1.0]), law) == pytest.approx(14**-0.5)
    assert deviation(Gaussian.of([3.0, np.nan], [4.0, 1.0]), law) == np.inf


# ---- bias -----------------------------------------------------------------------------------


def test_bias_of_langevin_is_the_closed_form() -> None:
    """Stationary variance V / (1 - alpha / 2V) against s^2: W2 in one dimension is the gap of the
    standard deviations."""
    sampler = LangevinSampler(sigma=0.6, step_size=0.18, num_steps=400)
    # The memory of the start is (1 - 0.18)^800 = 1e-69.
    assert bias(sampler, Gaussian.of(1.3, 0.64)) == pytest.approx(
        (1 / (1 - 0.18 / 2)) ** 0.5 - 0.8, rel=1e-12
    )


def test_bias_curves() -> None:
    curves = bias_curves(get_sampler("half-denoising"))
    assert set(curves) == {"num_inference_steps", "sigma"}
    # Coarser noise, larger bias: s^2 + (sigma^2 / 4) / (1 - sigma^2 / 4V) in each direction.
    for sigma, found in curves["sigma"].items():
        gaps = []
        for variance in (0.25**2, 0.05**2, 0.0):
            total = variance + sigma**2
            law = variance + sigma**2 / 4 / (1 - sigma**2 / (4 * total))
            gaps.append(law**0.5 - variance**0.5)
        # After 100 steps the memory of the start is at most (1 - sigma^2 / 2V)^200; with V
        # 0.0631 and sigma 0.025 that is 0.37 of a start that is off by 0.25 %.
        assert found == pytest.approx(np.linalg.norm(gaps), rel=5e-3)
    assert list(bias_curves(get_sampler("annealed-langevin"))) == [
        "num_inference_steps",
        "step_size",
        "sigma_min",
    ]


def test_run_chain_starts_anew() -> None:
    sampler = LangevinSampler(num_steps=4)

    still = [
        run_chain(
            sampler,
            turned([1.0, 0.2]).score(),
            torch.ones(1, 2, dtype=torch.float64),
            Draws(lambda _, shape: torch.zeros(shape)),
        )
        for _ in range(2)
    ]
    assert torch.equal(*still)
