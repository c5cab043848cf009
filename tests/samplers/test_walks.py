"""The walks that remember: averaged noise, a velocity, an accepted point.

The first two are compared with the published algorithms, followed step by step in their own order:
state by state on shared noise, where data are not Gaussian, and in law on Gaussian data. MALA is
compared with one that has all densities written out, by quadrature, and by what it leaves as it is.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from hdzoo import GaussianMixtureScore, HDPipeline, HDZooError, get_sampler, plugins
from hdzoo.samplers.averaged_noise import AveragedNoiseLangevinSampler
from hdzoo.samplers.gaussian import GaussianLaw, JointLaw
from hdzoo.samplers.langevin import LangevinSampler
from hdzoo.samplers.metropolis import MALASampler, log_acceptance
from hdzoo.samplers.underdamped import UnderdampedLangevinSampler
from hdzoo.verification.draws import Draws
from hdzoo.verification.laws import (
    Gaussian,
    chain_states,
    declared_law,
    deviation,
    exact_law,
    laws_along,
    natural_start,
    scale_of,
)

MIXTURE = GaussianMixtureScore.from_components([[-1.0], [1.0]], [0.04, 0.25], [0.3, 0.7])
DDPM = {"beta_schedule": "linear", "timestep_type": "discrete", "coordinates": "vp"}


class Silent(GaussianMixtureScore):
    """A mixture that does not say its energy."""

    provides = ()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def states_on(sampler: Any, x: torch.Tensor, noises: torch.Tensor) -> list[torch.Tensor]:
    """All states of a chain on `MIXTURE`, which draws these noises one after the other."""
    draws = Draws(lambda k, _: noises[k].clone())
    return [x, *chain_states(sampler, MIXTURE.score, x, draws)]


def assert_equal(states: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """Equal to 1e-12: 20 steps, a few roundings each of 2e-16 of states of order 10."""
    assert len(states) == len(expected)
    for state, other in zip(states, expected, strict=True):
        torch.testing.assert_close(state, other, rtol=1e-12, atol=1e-12)


# ---- averaged noise -------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.3, 0.5, 1.7])
def test_averaged_noise_is_a_chain_whose_score_is_asked_between_two_noises(eta: float) -> None:
    r"""With :math:`X_k = x_k - \sqrt{\alpha / 2} z_k`: half of the noise, the score, the rest."""
    sigma, steps = 0.7, 20
    alpha = eta * sigma**2
    x, noises = normal(9, 1), normal(steps + 1, 9, 1, seed=1)
    sampler = AveragedNoiseLangevinSampler(sigma=sigma, step_size=alpha, num_steps=steps)
    half = math.sqrt(2 * alpha) / 2
    # Tweedie's formula on noise of this size, about the law that the score is of.
    first = noises[0] - half * MIXTURE.score(x, sigma)
    clean, states = x - half * first, []
    for z in (first, *noises[1:]):
        states.append(clean + half * z)
        clean = states[-1] + alpha * MIXTURE.score(states[-1], sigma) + half * z
    assert_equal(states_on(sampler, x, noises), states)
    if eta == 0.5:
        # Half-denoising with half of the noise used again.
        old, states = first, [x]
        for z in noises[1:]:
            denoised = states[-1] + sigma**2 / 2 * MIXTURE.score(states[-1], sigma)
            states.append(denoised + sigma / 2 * (old + z))
            old = z
        assert_equal(states_on(sampler, x, noises), states)


def test_averaged_noise_begins_with_half_a_langevin_step() -> None:
    sampler = AveragedNoiseLangevinSampler(sigma=0.5, step_size=0.2)
    langevin = LangevinSampler(sigma=0.5, step_size=0.1)
    for one in (sampler, langevin):
        one.set_timesteps(1)
    target = Gaussian.of([0.3, 1.0], [[0.5, 0.1], [0.1, 0.2]])
    start = natural_start(sampler, target)
    assert deviation(exact_law(sampler, target, start), exact_law(langevin, target, start)) < 1e-14


# ---- underdamped ----------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["step", "time"])
@pytest.mark.parametrize(("d", "g", "u"), [(0.4, 1.0, 1.0), (0.9, 0.05, 0.4), (0.2, 3.0, 2.5)])
def test_underdamped_is_the_published_chain(d: float, g: float, u: float, per: str) -> None:
    """With their step d, friction g and inverse mass u."""
    steps, sigma = 20, 0.7
    y, noises = normal(9, 1), normal(steps, 9, 1, seed=1)
    # With unit mass, time is sqrt(u) times as long.
    friction = g if per == "step" else g / math.sqrt(u)
    sampler = UnderdampedLangevinSampler(
        sigma=sigma, step_size=u * d**2 / 2, friction=friction, friction_per=per, num_steps=steps
    )
    decay = math.exp(-g) if per == "step" else math.exp(-g * d)
    v, asked = torch.zeros_like(y), []
    for z in noises:
        y = y + d * v / 2
        asked.append(y)
        push = u * d * MIXTURE.score(y, sigma) / 2
        v = v + push
        v = decay * v + push + math.sqrt(u * (1 - decay**2)) * z
        y = y + d * v / 2
    assert_equal(states_on(sampler, asked[0], noises), [*asked, y])


def test_underdamped_beyond_all_friction() -> None:
    """In the middle of its steps Langevin's chain, at their ends that of averaged noise."""
    steps, sigma, alpha = 20, 0.7, 0.2
    x, noises = normal(9, 1), normal(steps, 9, 1, seed=1)
    options = {"sigma": sigma, "step_size": alpha, "num_steps": steps}
    states = states_on(UnderdampedLangevinSampler(friction=100.0, **options), x, noises)
    langevin = states_on(LangevinSampler(**options), x, noises)
    assert_equal(states[:-1], langevin[:-1])
    # The end of step k, from which averaged noise leads to the next, z_k being its old noise.
    half = math.sqrt(alpha / 2)
    ends = [
        one + alpha / 2 * MIXTURE.score(one, sigma) + half * z
        for one, z in zip(langevin[:-1], noises, strict=True)
    ]
    assert_equal([states[-1]], ends[-1:])


# ---- laws on Gaussian data ------------------------------------------------------------------


def averaged_noise_law(start: GaussianLaw, options: dict[str, Any], steps: int) -> GaussianLaw:
    """The covariance of (x, z) by the published recursion, for one coordinate."""
    total, alpha = start.total(options["sigma"]), options["step_size"]
    a, r = 1 - alpha / total, math.sqrt(alpha / 2)
    # z_0 = r (x - m) / V + z.
    tie = np.array([[1.0], [r / total]])
    mean, covariance = tie[:, 0] * (start.mean - start.data_mean), tie * start.variance @ tie.T
    covariance = covariance + np.diag([0.0, 1.0])
    move, fresh = np.array([[a, r], [0.0, 0.0]]), np.array([[r], [1.0]])
    for _ in range(steps):
        mean, covariance = move @ mean, move @ covariance @ move.T + fresh @ fresh.T
    return start._replace(mean=start.data_mean + mean[0], variance=covariance[0, 0])


def underdamped_law(start: GaussianLaw, options: dict[str, Any], steps: int) -> GaussianLaw:
    """The covariance of (y, v), drift by drift and kick by kick, for one coordinate."""
    total, delta = start.total(options["sigma"]), math.sqrt(2 * options["step_size"])
    time = delta if options["friction_per"] == "time" else 1.0
    decay = math.exp(-options["friction"] * time)
    drift = np.array([[1.0, delta / 2], [0.0, 1.0]])
    kick = np.array([[1.0, 0.0], [-delta / 2 / total, 1.0]])
    mean = np.array([start.mean - start.data_mean, 0.0])
    covariance = np.diag([start.variance, 0.0])
    for _ in range(steps):
        for matrix, noise in (
            (drift, 0.0),
            (kick, 0.0),
            (np.diag([1.0, decay]), 1 - decay**2),
            (kick, 0.0),
            (drift, 0.0),
        ):
            mean = matrix @ mean
            covariance = matrix @ covariance @ matrix.T + np.diag([0.0, noise])
    return start._replace(mean=start.data_mean + mean[0], variance=covariance[0, 0])


LAWS: dict[str, Callable[[GaussianLaw, dict[str, Any], int], GaussianLaw]] = {
    "averaged-noise-langevin": averaged_noise_law,
    "underdamped-langevin": underdamped_law,
}
EVERY_LAW = pytest.mark.parametrize("name", LAWS)


@EVERY_LAW
@pytest.mark.parametrize("coordinates", ["ve", "vp"])
@pytest.mark.filterwarnings("ignore:.* walks at one noise level")
def test_law_is_that_of_the_published_algorithm(name: str, coordinates: str) -> None:
    """By unit impulses, and by the declared closed form."""
    rng = np.random.default_rng([*name.encode(), *coordinates.encode()])
    kinds = ("score", "epsilon", "scaled_score", "sample", "v_prediction")
    for trial in range(30):
        sigma = float(np.exp(rng.uniform(np.log(0.05), np.log(5))))
        eta = float(rng.uniform(0.02, 1.95))
        options: dict[str, Any] = {
            "sigma": sigma,
            "step_size": eta * sigma**2,
            "prediction_type": kinds[trial % 5],
        }
        if name == "underdamped-langevin":
            options["friction"] = float(np.exp(rng.uniform(-3, 2)))
            options["friction_per"] = ("step", "time")[trial % 2]
        sampler = get_sampler(name)(**options)
        if coordinates == "vp":
            sampler = get_sampler(name).from_config(sampler.config, **DDPM)
        steps = int(rng.integers(1, 17))
        sampler.set_timesteps(steps)
        # A VP network knows some levels only.
        options["sigma"] = sampler.levels[0]
        scale = scale_of(sampler, options["sigma"])
        # Coordinates are independent, so that each has a law of its own; one is a point.
        variances = np.array([rng.uniform(0.05, 4), 0.0])
        means, starts = rng.uniform(-2, 2, 2), rng.uniform(-2, 2, 2)
        spreads = rng.uniform(0, 4, 2)
        target, start = Gaussian.of(means, variances), Gaussian.of(starts, spreads)
        laws = [
            LAWS[name](GaussianLaw(*numbers), options, steps)
            for numbers in zip(means, variances, starts, spreads, strict=True)
        ]
        expected = Gaussian.of([law.mean for law in laws], [law.variance for law in laws])
        first = start.scaled(1 / scale)
        # 16 steps of a few roundings, 1e-16 each of the largest number met on the way, which is up
        # to 1e3 times the last.
        assert deviation(exact_law(sampler, target, first), expected) < 1e-10
        declared = declared_law(sampler, target, first)
        assert declared is not None
        assert deviation(declared, expected) < 1e-10


STATIONARY = [
    # Worked out apart from this code: data N(1.3, 0.8^2).
    ("averaged-noise-langevin", 0.6, {"step_size": 0.5 * 0.36}, 1.0),
    ("averaged-noise-langevin", 0.6, {"step_size": 1.3 * 0.36}, 1.0),
    ("averaged-noise-langevin", 1.0, {"step_size": 0.2}, 1.64),
    ("averaged-noise-langevin", 0.6, {}, 1.0),
    # d = 1.2, g = 0.2, u = 0.7.
    ("underdamped-langevin", 0.6, {"step_size": 0.7 * 1.44 / 2, "friction": 0.2}, 1.0),
    ("underdamped-langevin", 1.0, {"step_size": 1.5, "friction": 3.0}, 1.64),
    ("underdamped-langevin", 0.6, {"friction_per": "time"}, 1.0),
]


@pytest.mark.parametrize(("name", "sigma", "options", "variance"), STATIONARY)
def test_stationary_variance_is_that_of_the_noisy_data(
    name: str, sigma: float, options: dict[str, Any], variance: float
) -> None:
    sampler = get_sampler(name)(sigma=sigma, **options)
    # The start is forgotten by 0.905 a step at the least, for a friction of 0.2: 0.905^250 = 1e-11.
    sampler.set_timesteps(250)
    law = exact_law(sampler, Gaussian.of(1.3, 0.64), Gaussian.of(-5.0, 7.0))
    assert law.mean.item() == pytest.approx(1.3, abs=1e-9)
    assert law.covariance.item() == pytest.approx(variance, rel=1e-9)
    if name.startswith("averaged") and sigma == 0.6:
        assert (1 - 0.18 / variance) ** 2 * law.covariance.item() == pytest.approx(0.6724, rel=1e-9)


@EVERY_LAW
def test_stable_below_twice_the_variance(name: str) -> None:
    """The step size is alpha < 2 V: the bounds u d^2 < 4 V of the publications."""
    target, sigma = Gaussian.of(0.0, 0.25), 0.5
    for share, steps in ((0.99, 1500), (1.01, 400)):
        sampler = get_sampler(name)(sigma=sigma, step_size=share * 2 * 0.5)
        sampler.set_timesteps(steps)
        start = GaussianLaw(0.0, 0.25, 0.0, 3.0)
        law = sampler.closed_form(start)
        assert law is not None
        if share < 1:
            # The memory falls by 1 - alpha / V = -0.98 a step, squared: 0.98^3000 = 5e-27.
            assert law.variance == pytest.approx(0.5, rel=1e-9)
        else:
            assert law.variance > 1e3
    sampler.set_timesteps(12)
    assert (
        deviation(
            exact_law(sampler, target, Gaussian.of(0.0, 3.0)),
            Gaussian.of(0.0, sampler.closed_form(start).variance),
        )
        < 1e-10
    )


@pytest.mark.parametrize("ratio", [0.01, 0.3, 1.0])
def test_averaged_noise_stays_near_the_law_that_it_starts_in(ratio: float) -> None:
    """Off by alpha^2 / 4 V after the first step, and less after every other."""
    total = 0.5
    sampler = AveragedNoiseLangevinSampler(sigma=0.5, step_size=ratio * total, num_steps=30)
    for k, law in enumerate(laws_along(sampler, Gaussian.of(0.7, 0.25))[1:]):
        excess = (ratio * total) ** 2 / (4 * total) * (1 - ratio) ** (2 * k)
        assert law.covariance.item() == pytest.approx(total + excess, rel=1e-12)


def test_joint_law() -> None:
    """Coordinate by coordinate, in numbers and in arrays."""
    data = GaussianLaw(np.array([1.0, -2.0]), np.array([0.5, 0.0]), np.array([0.0, 3.0]), 2.0)
    a, r = np.array([0.9, -0.4]), 0.3
    law = JointLaw.of(data).step((a, 0.5, r), (a / 2, 0.1, 1.0)).step((1.0, -2.0, 0.0), (0, 0, 0))
    for i in range(2):
        # x_2 - m = (a - a) (x_0 - m) + r z - 2 z.
        assert law.state.mean[i] == pytest.approx(data.data_mean[i], abs=1e-15)
        assert law.state.variance[i] == pytest.approx((r - 2) ** 2)


# ---- MALA -----------------------------------------------------------------------------------

SIGMA = 0.5
MEANS, VARIANCES = np.array([-1.0, 1.0]), np.array([0.04, 0.25]) + SIGMA**2
WEIGHTS = np.array([0.3, 0.7])


def log_density(x: np.ndarray) -> np.ndarray:
    parts = stats.norm.logpdf(x[..., None], MEANS, VARIANCES**0.5)
    return np.log(np.exp(parts) @ WEIGHTS)


def score(x: np.ndarray) -> np.ndarray:
    parts = WEIGHTS * stats.norm.pdf(x[..., None], MEANS, VARIANCES**0.5)
    pulls = (MEANS - x[..., None]) / VARIANCES
    return np.asarray((parts * pulls).sum(-1) / parts.sum(-1))


def cdf(x: np.ndarray) -> np.ndarray:
    return np.asarray(stats.norm.cdf(x[..., None], MEANS, VARIANCES**0.5) @ WEIGHTS)


def log_ratio(x: np.ndarray, y: np.ndarray, alpha: float, energies: bool) -> np.ndarray:
    """Of what a Metropolis test compares, each density written out."""
    spread = math.sqrt(2 * alpha)
    there = stats.norm.logpdf(y, x + alpha * score(x), spread)
    back = stats.norm.logpdf(x, y + alpha * score(y), spread)
    gain = log_density(y) - log_density(x) if energies else (y - x) * (score(x) + score(y)) / 2
    return np.asarray(gain + back - there)


def run_mala(
    x: torch.Tensor, steps: int, alpha: float | None, energies: bool = True, seed: int = 0
) -> list[torch.Tensor]:
    sampler = MALASampler(sigma=SIGMA, step_size=alpha, num_steps=steps)
    states, generator = [x], seeded(seed)
    for t in sampler.timesteps:
        output = MIXTURE(states[-1], t, extras=("energy",) if energies else ())
        given = {"energy": output.energy} if energies else {}
        states.append(sampler.step(output.sample, t, states[-1], generator, **given).prev_sample)
    return states


@pytest.mark.parametrize("energies", [True, False])
def test_mala_is_the_published_algorithm(energies: bool) -> None:
    """State by state, with all densities written out and the same random numbers."""
    alpha, steps, count = 0.5, 40, 50
    x = normal(count, 1, seed=3) * 1.5
    generator, points, proposal, expected = seeded(), x.numpy(), None, []
    uniforms, moved = [], 0
    for k in range(steps):
        uniforms = torch.rand(count, generator=generator, dtype=torch.float64).numpy()
        if proposal is not None:
            accept = uniforms[:, None] < np.exp(log_ratio(points, proposal, alpha, energies))
            points = np.where(accept, proposal, points)
            moved += accept.sum()
        if k < steps - 1:
            z = torch.randn((count, 1), generator=generator, dtype=torch.float64).numpy()
            proposal = points + alpha * score(points) + math.sqrt(2 * alpha) * z
            expected.append(torch.from_numpy(proposal))
    expected.append(torch.from_numpy(points))
    # Both outcomes are there.
    assert 0.5 * count * steps < moved < 0.95 * count * steps
    assert_equal(run_mala(x, steps, alpha, energies), [x, *expected])


def test_log_acceptance_in_many_dimensions() -> None:
    """On images: with energies, with the trapezoid, which is exact on Gaussian data, and back."""
    model = GaussianMixtureScore.from_components(
        normal(1, 12), 0.3 + normal(1, 12, seed=1) ** 2, sample_shape=(3, 2, 2)
    )
    alpha, sigma = 0.4, 0.6
    x, y = (2 * normal(7, 3, 2, 2, seed=seed) for seed in (2, 3))
    old, new = ({"x": a, "score": model.score(a, sigma)} for a in (x, y))

    def log_q(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        law = torch.distributions.Normal(a + alpha * model.score(a, sigma), math.sqrt(2 * alpha))
        return law.log_prob(b).flatten(1).sum(1)

    expected = model.log_density(y, sigma) - model.log_density(x, sigma) + log_q(y, x) - log_q(x, y)
    found = log_acceptance(old, new, alpha)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(log_acceptance(new, old, alpha), -found, rtol=1e-11, atol=1e-11)
    for one in (old, new):
        one["energy"] = -model.log_density(one["x"], sigma) + 5.0
    torch.testing.assert_close(log_acceptance(old, new, alpha), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.5])
def test_mala_leaves_the_noisy_data_as_they_are(alpha: float) -> None:
    """A million steps from exact samples. Langevin steps of this length do not pass."""
    count, steps = 10_000, 101
    x = MIXTURE.sample(count, seeded(1), SIGMA).double()
    ends = run_mala(x, steps, alpha)[-1].numpy()[:, 0]
    # Fails once in a million.
    assert stats.kstest(ends, cdf).pvalue > 1e-6
    # It is not that nothing moves: the first step accepts as often as quadrature says.
    after = run_mala(x, 2, alpha)[-1]
    grid = np.linspace(-6, 6, 401)
    points, ys = np.meshgrid(grid, grid, indexing="ij")
    there = np.exp(stats.norm.logpdf(ys, points + alpha * score(points), math.sqrt(2 * alpha)))
    accepted = np.exp(np.minimum(0.0, log_ratio(points, ys, alpha, True)))
    share = (np.exp(log_density(points)) * there * accepted).sum() * (grid[1] - grid[0]) ** 2
    found = (after != x).double().mean().item()
    assert abs(found - share) < 5 * math.sqrt(share * (1 - share) / count)
    unadjusted = LangevinSampler(sigma=SIGMA, step_size=alpha, num_steps=steps - 1)
    generator = seeded(2)
    for t in unadjusted.timesteps:
        x = unadjusted.step(MIXTURE.score(x, SIGMA), t, x, generator).prev_sample
    assert stats.kstest(x.numpy()[:, 0], cdf).pvalue < (1e-6 if alpha > 0.1 else 1.0)


@pytest.mark.parametrize(
    ("target", "sigma", "alpha"), [("eight-gaussians", 0.3, 0.1), ("circle", 0.1, 0.01)]
)
def test_mala_leaves_the_noisy_targets_in_the_plane_as_they_are(
    target: str, sigma: float, alpha: float
) -> None:
    """A million steps in a pipeline, which asks for the energies. Langevin steps do not pass."""
    model = plugins.get("targets", target)()
    start = model.sample(5000, seeded(), sigma)
    exact = model.sample(50_000, seeded(1), sigma).double()
    views: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda x: x[:, 0],
        lambda x: x[:, 1],
        lambda x: x.norm(dim=1),
        lambda x: model.log_density(x, sigma),
    ]

    def p_values(sampler: Any) -> list[float]:
        pipe = HDPipeline(model, sampler)
        pipe.set_progress_bar_config(disable=True)
        ends = pipe(latents=start.float(), generator=seeded(2)).images.double()
        return [stats.ks_2samp(view(ends), view(exact)).pvalue for view in views]

    # Fails once in a quarter of a million.
    assert min(p_values(MALASampler(sigma=sigma, step_size=alpha, num_steps=201))) > 1e-6
    assert min(p_values(LangevinSampler(sigma=sigma, step_size=alpha, num_steps=50))) < 1e-12


def test_mala_arrives_at_the_noisy_data() -> None:
    """From a law of another mean and a tenth of the width, .78 of which is left by each step."""
    x = -1.0 + 0.05 * normal(10_000, 1, seed=4)
    ends = run_mala(x, 50, 0.5)[-1].numpy()[:, 0]
    assert stats.kstest(ends, cdf).pvalue > 1e-6


def test_mala_on_gaussian_data_needs_no_energy() -> None:
    """The trapezoid of the scores is exact there."""
    model = GaussianMixtureScore.from_components([[0.4]], 0.2)
    variance = 0.2 + SIGMA**2
    x = model.sample(20_000, seeded(1), SIGMA).double()
    sampler = MALASampler(sigma=SIGMA, step_size=0.9 * variance, num_steps=50)
    generator = seeded(2)
    for t in sampler.timesteps:
        x = sampler.step(model.score(x, t), t, x, generator).prev_sample
    p_value = stats.kstest(x.numpy()[:, 0], stats.norm(0.4, variance**0.5).cdf).pvalue
    assert p_value > 1e-6


@pytest.mark.parametrize(("dimension", "count"), [(20, 20_000), (500, 2000)])
def test_default_step_of_mala_accepts_57_percent_of_what_has_no_width(
    dimension: int, count: int
) -> None:
    """2 Phi(-w / 2), w^2 = eta^3 d / 2, for large d."""
    sampler = MALASampler(sigma=SIGMA, num_steps=2)
    x = SIGMA * normal(count, dimension)
    start, generator = x, seeded(1)
    for t in sampler.timesteps:
        x = sampler.step(-x / SIGMA**2, t, x, generator).prev_sample
    accepted = (x != start).any(1).double().mean().item()
    exact = 2 * stats.norm.sf(math.sqrt(1.36**3 / 2) / 2)
    assert exact == pytest.approx(0.574, abs=0.005)
    # The next order is some 1 % at d = 20; and four standard errors.
    assert accepted == pytest.approx(exact, abs=0.01 + 4 * math.sqrt(0.25 / count))


def test_a_pipeline_gives_mala_the_energies_of_its_network() -> None:
    """And where the network has none, MALA does with its scores."""
    x = MIXTURE.sample(50, seeded(1), SIGMA).float()
    sampler = MALASampler(sigma=SIGMA, step_size=1.5)
    ends = []
    for network in (MIXTURE, Silent.from_components(MIXTURE.means, [0.04, 0.25], [0.3, 0.7])):
        pipe = HDPipeline(network, sampler)
        pipe.set_progress_bar_config(disable=True)
        ends.append(pipe(latents=x, num_inference_steps=9, generator=seeded()).images)
        expected = run_mala(x, 9, 1.5, energies=network is MIXTURE)[-1]
        assert torch.equal(ends[-1], expected)
    assert not torch.equal(*ends)


def test_mala_rejects_what_is_not_finite() -> None:
    """A sample whose proposal has left the range of the numbers stays; the others go on."""
    sampler = MALASampler(sigma=SIGMA, step_size=0.2, num_steps=2)
    x = normal(3, 1)
    first = sampler.step(-x, sampler.timesteps[0], x, seeded()).prev_sample
    output = -first.clone()
    output[1] = math.nan
    after = sampler.step(output, sampler.timesteps[1], first, seeded(1)).prev_sample
    assert after[1] == x[1]
    assert torch.isfinite(after).all()


def test_mala_does_not_keep_what_is_not_its_own() -> None:
    """A caller, or a compiled network, may write again to where the state and the score were."""
    ends = []
    for overwrite in (False, True):
        sampler = MALASampler(sigma=SIGMA, step_size=0.9, num_steps=6)
        state, generator = 2 * normal(40, 1), seeded()
        for t in sampler.timesteps:
            output = MIXTURE(state, t, extras=("energy",))
            after = sampler.step(output.sample, t, state, generator, energy=output.energy)
            if overwrite:
                for used in (state, output.sample, output.energy):
                    used.fill_(7.0)
            state = after.prev_sample.clone()
        ends.append(state)
    assert torch.equal(*ends)


def test_what_the_walks_refuse() -> None:
    with pytest.raises(HDZooError, match="num_inference_steps is 1; MALA needs at least 2"):
        MALASampler(num_steps=1)
    sampler = MALASampler()
    x = normal(3, 2)
    with pytest.raises(HDZooError, match=r"energy has the shape \(3, 1\).*must be \(3,\)"):
        sampler.step(x, sampler.timesteps[0], x, energy=x[:, :1])
    for friction in (0, -1.0, math.inf, math.nan, "1", None):
        with pytest.raises(HDZooError, match=r"friction is .* must be a finite number above 0"):
            UnderdampedLangevinSampler(friction=friction)  # type: ignore[arg-type]
    with pytest.raises(HDZooError, match="friction_per is 'second'; allowed are 'step', 'time'"):
        UnderdampedLangevinSampler(friction_per="second")
