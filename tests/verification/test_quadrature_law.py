"""Laws by quadrature, against closed forms and the exact laws on Gaussian data."""

from typing import Any

import numpy as np
import pytest
import torch
import zoo

from hdzoo import GaussianMixtureScore, HDZooError, LangevinSampler, get_sampler
from hdzoo.verification.draws import NotAffineError
from hdzoo.verification.laws import Gaussian, exact_law
from hdzoo.verification.quadrature_law import GridChain, GridLaw, density_law, normal_law
from hdzoo.verification.small import option_names

# Those whose noise is added to a function of the state, and that remember nothing else.
REMEMBER = (
    "averaged-noise-annealed-langevin",
    "averaged-noise-langevin",
    "dpm-solver-pp-2m",
    "heun",
    "mala",
    "underdamped-annealed-langevin",
    "underdamped-langevin",
    "unipc",
)
MARKOV = [name for name in zoo.SAMPLERS if name not in REMEMBER]


def make(name: str) -> Any:
    options = {"sigma_max": 2.0, "sigma_min": 0.2, "num_levels": 6, "sigma": 0.5}
    known = option_names(get_sampler(name))
    sampler = get_sampler(name)(**{key: options[key] for key in options if key in known})
    sampler.set_timesteps(15)
    return sampler


@pytest.mark.parametrize("name", MARKOV)
def test_on_a_gaussian_it_is_the_exact_law(name: str) -> None:
    """Another way to the same law: quadrature of kernels against unit impulses."""
    sampler, target = make(name), GaussianMixtureScore.from_components([0.7], 0.3)
    chain = GridChain(sampler, target.score, -22.0, 22.0)
    law = chain.run(normal_law(0.4, 1.7, chain.grid))
    expected = exact_law(sampler, Gaussian.of(0.7, 0.3), Gaussian.of(0.4, 1.7**2))
    # The rule's own error is below 1e-16; 15 steps of sums of 1e3 positive terms lose 1e-12.
    assert law.weights.sum() == pytest.approx(1, abs=1e-12)
    assert law.mean == pytest.approx(expected.mean.item(), abs=1e-11)
    assert law.variance == pytest.approx(expected.covariance.item(), abs=1e-10)
    # The distribution function is that of the normal law.
    std = expected.covariance.item() ** 0.5
    exact = torch.special.ndtr(torch.from_numpy((law.points - expected.mean.item()) / std))
    np.testing.assert_allclose(law.cdf, exact.numpy(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", MARKOV)
def test_on_a_mixture_against_simulation(name: str) -> None:
    """200,000 chains in float64: mean, variance and mode weight to 5 standard errors."""
    target = GaussianMixtureScore.from_components([[-1.0], [1.0]], [0.09, 0.25], [0.3, 0.7])
    sampler, count = make(name), 200_000
    chain = GridChain(sampler, target.score, -22.0, 22.0)
    law = chain.run(normal_law(0.4, 1.7, chain.grid))
    generator = torch.Generator().manual_seed(0)
    x = 0.4 + 1.7 * torch.randn(count, 1, generator=generator, dtype=torch.float64)
    sampler.set_timesteps(15)
    for t in sampler.timesteps:
        x = sampler.step(target.score(x, t.item()), t, x, generator, return_dict=False)[0]
    x = x[:, 0].numpy()
    share, fourth = law.probability_above(0.3), law.weights @ (law.points - law.mean) ** 4
    for found, expected, variance in [
        (x.mean(), law.mean, law.variance),
        (x.var(), law.variance, fourth - law.variance**2),
        ((x > 0.3).mean(), share, share * (1 - share)),
    ]:
        assert abs(found - expected) < 5 * (variance / count) ** 0.5


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 1.0), (0.0, 1.3), (-0.2, 0.4)])
def test_wasserstein2_of_normal_laws(mean: float, std: float) -> None:
    grid = np.linspace(-14, 14, 3001)
    one, other = normal_law(mean, std, grid), normal_law(0.0, 1.0, grid)
    # Cubic interpolation of the quantiles; where the weights are below 1e-16 it has nothing to go
    # by, and there the gap is less than 14.
    expected = (mean**2 + (std - 1) ** 2) ** 0.5
    assert one.wasserstein2(other) == pytest.approx(expected, abs=1e-6)


def test_density_law() -> None:
    target = GaussianMixtureScore.from_components([[-1.0], [1.0]], [0.09, 0.25], [0.3, 0.7])
    law = density_law(target, 0.0, np.linspace(-8, 8, 2001))
    assert law.mean == pytest.approx(0.4, abs=1e-12)
    assert law.variance == pytest.approx(0.3 * 0.09 + 0.7 * 0.25 + 0.84, abs=1e-12)
    exact = 0.3 * torch.special.ndtr(torch.tensor(-1 / 0.3, dtype=torch.float64))
    exact += 0.7 * torch.special.ndtr(torch.tensor(2.0, dtype=torch.float64))
    # A cubic spline through points 0.008 apart, where the fourth derivative is below 400.
    assert law.probability_above(0.0) == pytest.approx(exact.item(), abs=1e-7)
    with pytest.raises(HDZooError, match=r"sums to 0\.684.* take a wider or a finer one"):
        density_law(target, 0.0, np.linspace(0, 8, 2001))


def test_a_law_that_folds_is_sorted() -> None:
    from hdzoo.verification.quadrature_law import moved

    law = normal_law(0.0, 1.0, np.linspace(-9, 9, 2001))
    folded = moved(law, law.points**2)
    assert (np.diff(folded.points) >= 0).all()
    # Chi-squared with one degree of freedom: mean 1, variance 2, median 0.4549.
    assert folded.mean == pytest.approx(1, abs=1e-9)
    assert folded.variance == pytest.approx(2, abs=1e-9)
    # The distribution function steps by a weight, 0.007 at most.
    assert folded.probability_above(0.4549364) == pytest.approx(0.5, abs=0.007)


def test_what_it_refuses() -> None:
    target = GaussianMixtureScore.from_components([0.0], 1.0)

    class Clamped(LangevinSampler):
        def update(self, k, x, score, noise):
            return super().update(k, x, score, noise).clamp(-1.5, 1.5)

    class WithMomentum(LangevinSampler):
        """What it keeps is not where it belongs."""

        last: Any = 0.0

        def update(self, k, x, score, noise):
            last, self.last = self.last, score
            return super().update(k, x, score + 0.1 * last, noise)

    class Recycles(LangevinSampler):
        """It remembers noise alone."""

        def update(self, k, x, score, noise):
            old = self.memory.get("noise", torch.zeros_like(x))
            self.memory["noise"] = noise.normal(x.shape)
            return x + 0.1 * score + 0.2 * (old + self.memory["noise"])

    with pytest.raises(NotAffineError, match="step 0 of Clamped does not add its noise to a func"):
        GridChain(Clamped(sigma=1.0), target.score, -9, 9)
    for remembers in (WithMomentum, Recycles, get_sampler("underdamped-langevin")):
        with pytest.raises(HDZooError, match="keeps more than its state: step 1 depends on what"):
            GridChain(remembers(sigma=1.0), target.score, -9, 9)
    with pytest.raises(HDZooError, match="the sampler draws rand"):
        GridChain(get_sampler("mala")(sigma=1.0), target.score, -9, 9)
    with pytest.raises(HDZooError, match=r"noise of 6\.32.* on the range .* more than 6000"):
        GridChain(LangevinSampler(sigma=1e-4), target.score, -9, 9)
    chain = GridChain(LangevinSampler(sigma=1.0), target.score, -3, 3)
    with pytest.raises(HDZooError, match="take a wider range"):
        chain.run(normal_law(0.0, 1.0, chain.grid))


def test_laws_are_read_off_the_step_itself() -> None:
    """f and g of the Langevin step are x + alpha s and sqrt(2 alpha)."""
    target = GaussianMixtureScore.from_components([[-1.0], [1.0]], [0.09, 0.25], [0.3, 0.7])
    chain = GridChain(LangevinSampler(sigma=0.5, step_size=0.1), target.score, -9, 9)
    points = np.array([-2.0, 0.1, 3.0])
    centre, noise = chain.maps(3, points)
    score = target.score(torch.from_numpy(points)[:, None], 0.5)[:, 0].numpy()
    np.testing.assert_allclose(centre, points + 0.1 * score, rtol=1e-14)
    np.testing.assert_allclose(noise, 0.2**0.5, rtol=1e-13)


def test_stationary_law_is_the_closed_form() -> None:
    target = GaussianMixtureScore.from_components([1.3], 0.64)
    chain = GridChain(LangevinSampler(sigma=0.6, step_size=0.18), target.score, -12, 14)
    law, _ = chain.stationary(normal_law(0.0, 1.0, chain.grid))
    assert isinstance(law, GridLaw)
    # V / (1 - alpha / 2V) with V = 1.
    assert law.mean == pytest.approx(1.3, abs=1e-10)
    assert law.variance == pytest.approx(1 / (1 - 0.09), rel=1e-10)
    # The walk forgets by the factor 1 - alpha / V at each step.
    assert chain.relaxation_time() == pytest.approx(-1 / np.log(1 - 0.18), rel=1e-9)
