"""HMC and adjusted underdamped Langevin: leapfrog, the test, and the law that they leave as it is.

Chains are compared with the published algorithms, written out for one sample at a time; laws with
quadrature, on data that are not Gaussian.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hdzoo_energy.hamiltonian import AdjustedUnderdampedLangevinSampler, HMCSampler

from hdzoo import (
    GaussianMixtureScore,
    HDPipeline,
    HDZooError,
    MALASampler,
    get_sampler,
    list_samplers,
)
from hdzoo.plugins import provider

SIGMA = 0.5
# As long as a mode is wide, and with friction that lets a momentum live for some steps.
WALKS = {
    "hmc": lambda alpha: HMCSampler(sigma=SIGMA, step_size=alpha, leapfrog_steps=3),
    "adjusted": lambda alpha: AdjustedUnderdampedLangevinSampler(
        sigma=SIGMA, step_size=alpha, friction=0.3
    ),
}
EVERY_WALK = pytest.mark.parametrize("walk", WALKS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def test_registered() -> None:
    for name, found in (
        ("hmc", HMCSampler),
        ("adjusted-underdamped-langevin", AdjustedUnderdampedLangevinSampler),
    ):
        assert name in list_samplers()
        assert get_sampler(name) is found
        assert provider("samplers", name).distribution == "hdzoo-energy"


# ---- the chain ------------------------------------------------------------------------------


def published(
    target: Any, points: torch.Tensor, steps: int, alpha: float, keep: float, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each sample by itself, with the formulas as they are printed.

    Returns:
        The accepted points after so many evaluations, and how many trajectories were accepted.
    """
    generator, delta, n = seeded(1), math.sqrt(2 * alpha), len(points)

    def energy(x: torch.Tensor) -> torch.Tensor:
        return target.energy(x[None])[0]

    def score(x: torch.Tensor) -> torch.Tensor:
        return target.score(x[None])[0]

    at = list(points)
    momenta = list(torch.randn(points.shape, generator=generator, dtype=torch.float64))
    counts = torch.zeros(n, dtype=torch.float64)
    left = steps - 1
    while left:
        moves, left = min(length, left), left - min(length, left)
        thresholds = torch.rand(n, generator=generator, dtype=torch.float64)
        fresh = torch.randn(points.shape, generator=generator, dtype=torch.float64)
        for i in range(n):
            x, v = at[i], momenta[i]
            for _ in range(moves):
                v = v + delta / 2 * score(x)
                x = x + delta * v
                v = v + delta / 2 * score(x)
            before = energy(at[i]) + momenta[i] @ momenta[i] / 2
            if thresholds[i] < torch.exp(before - energy(x) - v @ v / 2):
                at[i], momenta[i] = x, v
                counts[i] += 1
            else:
                momenta[i] = -momenta[i]
            momenta[i] = keep * momenta[i] + math.sqrt(1 - keep**2) * fresh[i]
    return torch.stack(at), counts


@pytest.mark.parametrize("steps", [2, 3, 10, 11, 12, 13])
@pytest.mark.parametrize("length", [1, 3, 20])
def test_hmc_is_the_published_algorithm(banana: Any, length: int, steps: int) -> None:
    """With any number of evaluations: a trajectory that would not end in time is a shorter one.

    To 1e-12: a dozen steps of a few roundings each of numbers of order 1.
    """
    x = banana.sample(6, seeded())
    sampler = HMCSampler(sigma=SIGMA, step_size=0.1, leapfrog_steps=length)
    expected, counts = published(banana, x, steps, 0.1, 0.0, length)
    torch.testing.assert_close(banana.end(sampler, x, steps), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(sampler.memory["accepted"], counts)


@pytest.mark.parametrize("per", ["step", "time"])
def test_adjusted_underdamped_is_the_published_algorithm(banana: Any, per: str) -> None:
    x, steps, alpha = banana.sample(8, seeded()), 25, 0.1
    sampler = AdjustedUnderdampedLangevinSampler(
        sigma=SIGMA, step_size=alpha, friction=0.3, friction_per=per
    )
    keep = math.exp(-0.3 * (math.sqrt(2 * alpha) if per == "time" else 1))
    expected, counts = published(banana, x, steps, alpha, keep, 1)
    # Some are rejected, or the turned momentum would not be seen.
    assert counts.min() > 0
    assert counts.max() < steps - 1
    torch.testing.assert_close(banana.end(sampler, x, steps), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(sampler.memory["accepted"], counts)


@pytest.mark.parametrize(
    "sampler",
    [
        HMCSampler(sigma=SIGMA, step_size=0.4, leapfrog_steps=1),
        AdjustedUnderdampedLangevinSampler(sigma=SIGMA, step_size=0.4, friction=1e3),
    ],
)
def test_one_leapfrog_step_is_mala(targets: Any, sampler: Any) -> None:
    """On the same noise, of which `MALASampler` draws a number more: for its first test."""
    (target, alpha), steps = targets["mixture"], 30
    x = target.sample(40, seeded())
    mala = target.end(MALASampler(sigma=SIGMA, step_size=alpha), x, steps)
    generator = seeded(1)
    torch.rand(40, generator=generator, dtype=torch.float64)
    *_, last = target.chain(sampler, x, steps, generator)
    assert 0.5 < sampler.memory["accepted"].mean() / (steps - 1) < 0.95
    torch.testing.assert_close(last, mala, rtol=1e-12, atol=1e-12)


# ---- leapfrog -------------------------------------------------------------------------------


def velocity_after(sampler: Any, x: torch.Tensor, target: Any, delta: float) -> torch.Tensor:
    """The momentum at a point of a trajectory, half a kick before what is remembered there."""
    return sampler.memory["velocity"] - delta / 2 * target.score(x)


def test_leapfrog_is_reversible(banana: Any) -> None:
    """From its end with the momentum turned round a trajectory leads back to where it began.

    To 1e-11: 80 steps, and the way back multiplies roundings of 1e-16 by what the trajectory
    stretches, 1e3 here.
    """
    alpha, length, delta = 0.01, 40, math.sqrt(0.02)
    x = banana.sample(50, seeded())
    sampler = HMCSampler(sigma=SIGMA, step_size=alpha, leapfrog_steps=1000)
    walk = banana.chain(sampler, x, 1000, seeded(1))
    there = [next(walk) for _ in range(length)][-1]
    # What the network is asked here brings out the momentum here, and the next point.
    next(walk)
    momentum = velocity_after(sampler, there, banana, delta)
    back = HMCSampler(sigma=SIGMA, step_size=alpha, leapfrog_steps=1000)
    next(banana.chain(back, there, 1000, seeded(2)))
    back.memory["velocity"] = -momentum + delta / 2 * banana.score(there)
    state = there + delta * back.memory["velocity"]
    for t in back.timesteps[1:length]:
        score, energy = banana.score(state), banana.energy(state)
        state = back.step(score, t, state, energy=energy).prev_sample
    assert (there - x).abs().max() > 1
    torch.testing.assert_close(state, x, rtol=0, atol=1e-11)


@pytest.mark.parametrize("eta", [0.1, 1.0, 1.9])
def test_leapfrog_keeps_the_modified_energy_of_a_gaussian(normal_target: Any, eta: float) -> None:
    """v^2 / 2 + (1 - alpha / 2V) x^2 / 2V, at every point of a trajectory, to roundings."""
    variance, alpha = 0.7, 0.7 * eta
    target, delta, x = normal_target(0.7), math.sqrt(2 * 0.7 * eta), normal(20, 1)
    sampler = HMCSampler(sigma=SIGMA, step_size=alpha, leapfrog_steps=100)
    kept = []
    walk = [x]
    for state in target.chain(sampler, x, 60, seeded(1)):
        if "velocity" in sampler.memory:
            v = velocity_after(sampler, walk[-1], target, delta)
            kept.append(v**2 / 2 + (1 - alpha / (2 * variance)) * walk[-1] ** 2 / (2 * variance))
        walk.append(state)
    assert len(kept) == 59
    first = kept[0].expand(59, -1, -1)
    torch.testing.assert_close(torch.stack(kept), first, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("length", [1, 3, 7])
@pytest.mark.parametrize("eta", [0.3, 0.8, 1.5])
def test_acceptance_on_a_gaussian_is_exact(normal_target: Any, eta: float, length: int) -> None:
    r"""On the line leapfrog is a matrix of determinant 1, of singular values r and 1 / r.

    As the move is reversible the rate is 2 P(H' < H), and H' - H is a quadratic form of two
    normal numbers with the coefficients (r^2 - 1) / 2 and (1 / r^2 - 1) / 2: so the rate is
    (4 / pi) arctan(1 / r).
    """
    alpha, delta = eta, math.sqrt(2 * eta)
    kick, drift = np.array([[1, 0], [-delta / 2, 1]]), np.array([[1, delta], [0, 1]])
    stretch = np.linalg.norm(np.linalg.matrix_power(kick @ drift @ kick, length), 2)
    expected = 4 / math.pi * math.atan(1 / stretch)
    sampler, chains, trajectories = HMCSampler(1.0, alpha, length), 20_000, 2
    normal_target(1.0).end(sampler, normal(chains, 1), 1 + length * trajectories)
    found = sampler.memory["accepted"].mean().item() / trajectories
    # Trajectories of one chain are not independent: as if there were one of each.
    error = math.sqrt(expected * (1 - expected) / chains)
    assert found == pytest.approx(expected, abs=5 * error)


@pytest.mark.parametrize(("order", "fixed_time"), [(2, True), (3, False)])
def test_order_of_what_is_not_accepted(banana: Any, order: int, fixed_time: bool) -> None:
    """The energy is off by delta^2 at the end of a trajectory, in one step by delta^3."""
    rejected = []
    x, trajectories = banana.sample(20_000, seeded()), 4
    for halving in range(3):
        delta = 0.3 / 2**halving
        length = 3 * 2**halving if fixed_time else 1
        sampler = HMCSampler(sigma=SIGMA, step_size=delta**2 / 2, leapfrog_steps=length)
        banana.end(sampler, x, 1 + trajectories * length)
        rejected.append(1 - sampler.memory["accepted"].mean().item() / trajectories)
    rates = np.log2(np.array(rejected[:-1]) / rejected[1:])
    # The last share has a standard error of sqrt(share / 80,000), and orders come with delta^2.
    error = 1.5 / math.sqrt(80_000 * rejected[-1])
    assert rates[-1] == pytest.approx(order, abs=0.15 + 5 * error)
    assert abs(rates[-1] - order) <= abs(rates[0] - order) + 5 * error


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [("hmc", {"leapfrog_steps": 6}, 0.80), ("adjusted-underdamped-langevin", {}, 0.90)],
)
def test_default_step_sizes(
    normal_target: Any, name: str, options: dict[str, Any], expected: float
) -> None:
    """1,000 dimensions without width: 2 Phi(-1/4) = 80 % after a quarter of a period (six steps of
    0.25), 2 Phi(-1/8) = 90 % after one step."""
    sampler = get_sampler(name)(sigma=SIGMA, **options)
    x, trajectories = SIGMA * normal(400, 1000), 5
    steps = 1 + trajectories * options.get("leapfrog_steps", 1)
    normal_target(SIGMA**2).end(sampler, x, steps)
    found = sampler.memory["accepted"].mean().item() / trajectories
    # 2,000 trajectories, of which those of a chain are alike; and terms of 1 / sqrt(d).
    assert found == pytest.approx(expected, abs=0.03)


# ---- the law --------------------------------------------------------------------------------


@EVERY_WALK
@pytest.mark.parametrize("name", ["mixture", "laplace", "banana"])
def test_stays_in_the_law(targets: Any, walk: str, name: str) -> None:
    target, alpha = targets[name]
    sampler, steps = WALKS[walk](alpha), 15
    assert target.p_value(target.end(sampler, target.sample(20_000, seeded()), steps)) > 1e-6
    rate = sampler.memory["accepted"].mean() / (5 if walk == "hmc" else 14)
    # Where nearly all is accepted the test would hardly be tested.
    assert 0.3 < rate < 0.97


@EVERY_WALK
def test_comes_to_the_law(targets: Any, walk: str) -> None:
    """From a single point, in one of the two wells."""
    target, alpha = targets["banana"]
    x = torch.tensor([[-1.3, 0.0]], dtype=torch.float64).repeat(5000, 1)
    assert target.p_value(target.end(WALKS[walk](alpha), x, 400)) > 1e-6


@EVERY_WALK
def test_the_law_does_not_depend_on_the_score(targets: Any, walk: str) -> None:
    """Leapfrog is reversible and keeps volumes whatever the score; the energy alone decides."""
    target, alpha = targets["banana"]

    class Wrong(type(target)):  # type: ignore[misc]
        def score(self, x: torch.Tensor) -> torch.Tensor:
            return 0.8 * super().score(x) + 0.3 * x.flip(1).sin()

    end = Wrong().end(WALKS[walk](alpha), target.sample(20_000, seeded()), 15)
    assert target.p_value(end) > 1e-6


# ---- what is not accepted ---------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 4, 5, 6, 7, 11])
@pytest.mark.parametrize("alpha", [0.3, 1e6])
def test_a_trajectory_that_is_not_accepted_leaves_nothing(
    banana: Any, alpha: float, steps: int
) -> None:
    """Whether it ends at an energy that is far too high, or at one that is no number."""
    x = banana.sample(20, seeded()).float()
    sampler = HMCSampler(sigma=SIGMA, step_size=alpha, leapfrog_steps=4)

    class Cliff(type(banana)):  # type: ignore[misc]
        """As the banana near its wells, and far higher everywhere else."""

        def energy(self, at: torch.Tensor) -> torch.Tensor:
            return banana.energy(at) + 1e4 * (at != x).any(1)

    last = Cliff().end(sampler, x, steps)
    assert torch.equal(last, x)
    assert sampler.memory["accepted"].sum() == 0


def test_what_is_accepted_is_said_for_each_sample(banana: Any) -> None:
    sampler = WALKS["hmc"](0.06)
    banana.end(sampler, banana.sample(200, seeded()), 31)
    counts = sampler.memory["accepted"]
    assert counts.shape == (200,)
    assert set(counts.tolist()) <= set(range(11))
    assert len(set(counts.tolist())) > 3


# ---- in a pipeline --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hmc", "adjusted-underdamped-langevin"])
def test_samples_of_a_pipeline(targets: Any, name: str) -> None:
    """In float32, as users draw: in the law after a few steps from it."""
    mixture, _ = targets["mixture"]
    pipe = HDPipeline(mixture.model, get_sampler(name)(sigma=SIGMA))
    pipe.set_progress_bar_config(disable=True)
    start = mixture.sample(20_000, seeded()).float()
    drawn = pipe(latents=start, num_inference_steps=12, generator=seeded(1)).images
    assert mixture.p_value(drawn.double()) > 1e-6


@pytest.mark.parametrize("name", ["hmc", "adjusted-underdamped-langevin"])
def test_a_network_without_an_energy_is_refused(name: str) -> None:
    class Silent(GaussianMixtureScore):
        provides = ()

    pipe = HDPipeline(Silent((1,)), get_sampler(name)())
    with pytest.raises(HDZooError, match=r"needs the network's energy .* gives nothing beside"):
        pipe(latents=torch.zeros(2, 1))


@pytest.mark.parametrize("sampler", [HMCSampler, AdjustedUnderdampedLangevinSampler])
def test_one_evaluation_proposes_nothing(sampler: type[Any]) -> None:
    with pytest.raises(HDZooError, match=r"num_inference_steps is 1; .* needs at least 2"):
        sampler().set_timesteps(1)


@pytest.mark.parametrize("steps", [0, -1, 2.5, "3", True, None])
def test_leapfrog_steps_is_a_number(steps: Any) -> None:
    with pytest.raises(HDZooError, match="leapfrog_steps"):
        HMCSampler(leapfrog_steps=steps)
