"""Walks on signs: their exact stationary laws, that they draw by them, and mutants."""

import math

import numpy as np
import pytest
import torch
from hdzoo_binary import exact
from hdzoo_binary.one_stage import DiscreteLangevinSampler, DiscreteMALASampler
from hdzoo_binary.signs import draw_signs
from hdzoo_binary.targets import SignsMixtureScore, independent_signs, ising, signs_mixture
from hdzoo_binary.two_stage import TwoStageDiscreteLangevinSampler
from scipy import stats

from hdzoo import HDZooError, get_sampler
from hdzoo.plugins import provider
from hdzoo.samplers.noise import Noise
from hdzoo.verification import signs_limit
from hdzoo.verification.checks import CheckFailed
from hdzoo.verification.limit import check_limit
from hdzoo.verification.stationary import check_stationary_law

WALKS = {
    "discrete-langevin": DiscreteLangevinSampler,
    "discrete-mala": DiscreteMALASampler,
    "two-stage-discrete-langevin": TwoStageDiscreteLangevinSampler,
}
STEP_SIZES = [0.25, 0.5, 1.0, 3.0]


def distance(matrix: torch.Tensor, law: torch.Tensor) -> float:
    return exact.total_variation(exact.stationary(matrix), law)


@pytest.mark.parametrize("name", WALKS)
def test_registered(name: str) -> None:
    assert get_sampler(name) is WALKS[name]
    assert provider("samplers", name).distribution == "hdzoo-binary"


# ---- stationary laws by matrix -------------------------------------------------------------------


def test_known_numbers() -> None:
    """One sign of odds e^0.6 at eta = 2 alpha = 2, worked out apart from this code."""
    field = torch.full((2, 1), 0.3, dtype=torch.float64)
    one, two = (kernel(field, 1.0) for kernel in (exact.one_stage, exact.two_stage))
    assert exact.stationary(one)[1].item() == pytest.approx(0.60774, abs=5e-6)
    assert exact.stationary(two)[1].item() == pytest.approx(0.64566, abs=5e-6)
    assert 1 / (1 + math.exp(-0.6)) == pytest.approx(0.64566, abs=5e-6)


@pytest.mark.parametrize("step_size", STEP_SIZES)
def test_one_stage_on_independent_signs(step_size: float) -> None:
    """The odds are sigmoid(b - 1 / alpha) over sigmoid(-b - 1 / alpha)."""
    scores = exact.scores(independent_signs(), 1.1, "difference")
    # It does not depend on the signs.
    torch.testing.assert_close(scores, scores[:1].expand_as(scores), rtol=0, atol=1e-12)
    up, down = torch.sigmoid(scores[:1] - 1 / step_size), torch.sigmoid(-scores[:1] - 1 / step_size)
    (law,) = exact.independent(up.log() - down.log())
    assert distance(exact.one_stage(scores, step_size), law) < 1e-8
    assert (
        distance(exact.one_stage(scores, step_size), exact.noisy_law(independent_signs(), 1.1))
        > 1e-3
    )


@pytest.mark.parametrize("step_size", STEP_SIZES)
def test_two_stages_are_exact_on_independent_signs(step_size: float) -> None:
    model = independent_signs()
    scores = exact.scores(model, 0.9, "difference")
    assert distance(exact.two_stage(scores, step_size), exact.noisy_law(model, 0.9)) < 1e-8


@pytest.mark.parametrize("kind", ["difference", "gradient"])
@pytest.mark.parametrize("step_size", STEP_SIZES)
def test_metropolis_is_exact_on_any_law(step_size: float, kind: str) -> None:
    model = signs_mixture()
    law = exact.noisy_law(model, 1.0)
    matrix = exact.metropolis(exact.scores(model, 1.0, kind), law.log(), step_size)
    assert distance(matrix, law) < 1e-8


def test_on_1024_points() -> None:
    """A law without structure, of ten signs."""
    weights = torch.rand(1024, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = SignsMixtureScore.from_law(weights**4)
    law = exact.noisy_law(model, 1.5)
    matrix = exact.metropolis(exact.scores(model, 1.5, "difference"), law.log(), 1.0)
    assert matrix.shape == (1024, 1024)
    assert distance(matrix, law) < 1e-8


@pytest.mark.parametrize("kernel", [exact.one_stage, exact.two_stage])
def test_small_steps(kernel) -> None:
    """By the difference the bias is about exp(-1 / alpha), on any law; by the gradient it stays."""
    model = ising(side=2)
    law = exact.noisy_law(model, 1.0)
    by = {
        kind: [distance(kernel(exact.scores(model, 1.0, kind), a), law) for a in (1 / 4, 1 / 8)]
        for kind in ("difference", "gradient")
    }
    first, second = by["difference"]
    assert first / second == pytest.approx(math.exp(4), rel=0.2)
    assert min(by["gradient"]) > 0.05


def test_two_stages_are_nearer_than_one() -> None:
    law, scores = (
        exact.noisy_law(signs_mixture(), 1.0),
        exact.scores(signs_mixture(), 1.0, "difference"),
    )
    for step_size in STEP_SIZES:
        two, one = (distance(k(scores, step_size), law) for k in (exact.two_stage, exact.one_stage))
        assert two < one


def test_published_gradient_is_exact_for_small_steps_on_spins() -> None:
    """A log-quadratic law: the gradient is the difference."""
    coupling = torch.tensor([[0, 0.4, -0.2], [0.4, 0, 0.3], [-0.2, 0.3, 0]], dtype=torch.float64)
    points = exact.states(3)
    law = ((points @ coupling) * points).sum(1).div(2).softmax(0)
    assert distance(exact.one_stage(points @ coupling, 0.1), law) < 2 * math.exp(-10)


# ---- samplers draw by these matrices -------------------------------------------------------------


class Given(Noise):
    """Uniform numbers that are given, in turn."""

    def __init__(self, *numbers: torch.Tensor) -> None:
        super().__init__(None, dtype=torch.float64)
        self.numbers = list(numbers)

    def uniform(self, shape):
        return self.numbers.pop(0).expand(shape)


def drawn_with(sampler, points: torch.Tensor, model, numbers: list[torch.Tensor], steps: int):
    """The states after the last of some evaluations of a chain that starts at points."""
    sampler.set_timesteps(steps)
    sigma, x = float(sampler.sigmas[0]), points
    for k in range(steps):
        sampler.extras = {"energy": -model.log_density(x, sigma)}
        x = sampler.update(k, x, model.score(x, sigma), Given(*numbers[k]))
    return x


@pytest.mark.parametrize("kind", ["difference", "gradient"])
def test_one_stage_draws_by_its_matrix(kind: str) -> None:
    """A sign is 1 where the uniform number is below its chance, which is the matrix's."""
    model, sigma, alpha = signs_mixture(), 1.2, 0.7
    points = exact.states(8)
    matrix = exact.one_stage(exact.scores(model, sigma, kind), alpha)
    chances = matrix @ (points + 1) / 2
    for shift, expected in ((-1e-9, 1.0), (1e-9, -1.0)):
        sampler = DiscreteLangevinSampler(sigma=sigma, step_size=alpha, score=kind)
        found = drawn_with(sampler, points, model, [[chances + shift]], 1)
        assert (found == expected).all()


@pytest.mark.parametrize("kind", ["difference", "gradient"])
def test_two_stages_draw_by_their_matrices(kind: str) -> None:
    model, sigma, alpha = signs_mixture(), 1.2, 0.7
    points = exact.states(8)
    up = (points + 1) / 2
    first = torch.sigmoid(points / alpha)
    scores = exact.scores(model, sigma, kind)
    second = torch.sigmoid(2 * scores + points / alpha)
    # Together they are the matrix from signs to signs.
    torch.testing.assert_close(
        exact.two_stage(scores, alpha) @ up, exact.independent(points / alpha) @ second
    )
    sampler = TwoStageDiscreteLangevinSampler(sigma=sigma, step_size=alpha, score=kind)
    for shift, expected in ((-1e-9, 1.0), (1e-9, -1.0)):
        # The first stage, by the state after the first of two evaluations.
        sampler.set_timesteps(2)
        z = sampler.update(0, points, torch.full_like(points, torch.nan), Given(first + shift))
        assert (z == expected).all()
        end = sampler.update(1, points, model.score(points, sigma), Given(second + shift))
        assert (end == expected).all()


def test_metropolis_accepts_by_its_matrix() -> None:
    """From every point of 16 to every other, on both sides of the chance of acceptance."""
    model, sigma, alpha = ising(side=2), 1.0, 0.6
    points, law = exact.states(4), exact.noisy_law(model, sigma)
    scores = exact.scores(model, sigma, "difference")
    proposed = exact.one_stage(scores, alpha)
    accept = exact.metropolis(scores, law.log(), alpha) / proposed
    rows, columns = (~torch.eye(16, dtype=torch.bool)).nonzero().T
    # The definition: min(1, q(y') t(y | y') / q(y) t(y' | y)).
    ratio = law * proposed.T / (law[:, None] * proposed)
    torch.testing.assert_close(accept[rows, columns], ratio.clamp(max=1)[rows, columns])
    start, wanted = points[rows], points[columns]
    chance = accept[rows, columns]
    for shift, moved in ((-1e-9, True), (1e-9, False)):
        asked = chance < 1 if not moved else torch.ones_like(chance, dtype=torch.bool)
        sampler = DiscreteMALASampler(sigma=sigma, step_size=alpha)
        # The proposal is the wanted point where its signs' numbers are 0 or 1.
        numbers = [[torch.tensor(0.5), (1 - wanted) / 2], [chance + shift]]
        found = drawn_with(sampler, start, model, numbers, 2)
        assert torch.equal(found[asked], (wanted if moved else start)[asked])


@pytest.mark.parametrize(
    ("name", "kernel"),
    [("discrete-langevin", exact.one_stage), ("two-stage-discrete-langevin", exact.two_stage)],
)
def test_simulated(name: str, kernel) -> None:
    """20,000 chains, after so long that they have forgotten their start, are in the exact law."""
    model, sigma, alpha, count = ising(side=2), 1.5, 1.0, 20_000
    matrix = kernel(exact.scores(model, sigma, "difference"), alpha)
    # e^-12 of the start is left.
    steps = math.ceil(12 * exact.relaxation_time(matrix)) + 1
    counts = simulated(WALKS[name](sigma=sigma, step_size=alpha), model, steps, count)
    # Fixed seed; by chance once in a thousand.
    assert stats.chisquare(counts, exact.stationary(matrix).numpy() * count).pvalue > 1e-3


def test_simulated_metropolis() -> None:
    model, sigma, count = ising(side=2), 1.5, 20_000
    counts = simulated(DiscreteMALASampler(sigma=sigma, step_size=1.0), model, 40, count)
    law = exact.noisy_law(model, sigma).numpy()
    assert stats.chisquare(counts, law * count).pvalue > 1e-3


def simulated(sampler, model, steps: int, count: int) -> np.ndarray:
    """How many of some chains end on each point."""
    generator = torch.Generator().manual_seed(3)
    sampler.set_timesteps(steps)
    x = sampler.first_state((count, model.dimension), Noise(generator, dtype=torch.float64))
    points = exact.states(model.dimension)
    table, energies = (
        model.score(points, sampler.levels[0]),
        -model.log_density(points, sampler.levels[0]),
    )
    places = 2 ** torch.arange(model.dimension - 1, -1, -1)
    for t in sampler.timesteps:
        index = ((x + 1) / 2).long() @ places
        extras = {"energy": energies[index]} if "energy" in sampler.uses else {}
        x = sampler.step(table[index], t, x, generator=generator, **extras).prev_sample
    return torch.bincount(((x + 1) / 2).long() @ places, minlength=len(points)).numpy()


# ---- read-out, refusals --------------------------------------------------------------------------


@pytest.mark.parametrize("name", WALKS)
def test_jump_is_the_last_evaluation(name: str) -> None:
    """The walk with a jump is the walk of one evaluation less, and the sign of the mean there."""
    model, points = signs_mixture(), exact.states(8)
    short, long = (WALKS[name](sigma=1.1, jump=kind) for kind in (None, "sign"))
    ends = []
    for sampler, steps in ((short, 6), (long, 7)):
        generator, x = torch.Generator().manual_seed(0), points
        sampler.set_timesteps(steps)
        for t in sampler.timesteps:
            extras = {"energy": -model.log_density(x, 1.1)} if sampler.uses else {}
            x = sampler.step(model.score(x, 1.1), t, x, generator=generator, **extras).prev_sample
        ends.append(x)
    if name != "discrete-mala":
        assert torch.equal(ends[1], model.denoise(ends[0], 1.1).sign())
    assert ends[1].abs().eq(1).all()


def test_refusals() -> None:
    for sampler in (DiscreteMALASampler(), TwoStageDiscreteLangevinSampler()):
        with pytest.raises(HDZooError, match=r"num_inference_steps is 1; .* needs at least 2"):
            sampler.set_timesteps(1)
    for options, said in (
        ({"score": "slope"}, "score is 'slope'; allowed are 'difference', 'gradient'"),
        ({"jump": "half"}, "jump is 'half'; allowed are 'rounding', 'sign', or None"),
        ({"step_size": 0.0}, r"step_size is 0\.0; it must be a finite number above 0"),
    ):
        with pytest.raises(HDZooError, match=said):
            DiscreteLangevinSampler(**options)
    with pytest.raises(HDZooError, match="points are listed for 1 to 12"):
        exact.states(13)


# ---- mutants, which `hdzoo verify` must find -----------------------------------------------------


class OneStageAsTwo(TwoStageDiscreteLangevinSampler):
    """Without the first stage."""

    def update(self, k, x, score, noise):
        mean = x + self.levels[k] ** 2 * score
        return draw_signs(2 * self.score_of(x, mean) + x / self.moves[k].alpha, noise) if k else x


class HalfThePull(TwoStageDiscreteLangevinSampler):
    def score_of(self, y, mean):
        return super().score_of(y, mean) / 2


class PublishedGradient(TwoStageDiscreteLangevinSampler):
    def score_of(self, y, mean):
        return mean / self.levels[0] ** 2


class Unadjusted(DiscreteMALASampler):
    def update(self, k, x, score, noise):
        return DiscreteLangevinSampler.update(self, k, x, score, noise)


class AcceptsByEnergyAlone(DiscreteMALASampler):
    def update(self, k, x, score, noise):
        if self.memory:
            energy = self.extras["energy"]
            self.extras = {"energy": energy}
            gain = (self.memory["energy"] - energy).exp()
            accept = (noise.uniform(x.shape[:1]) < gain)[:, None]
            x = torch.where(accept, x, self.memory["x"])
            score = torch.where(accept, score, self.memory["raw"])
            self.extras = {"energy": torch.where(accept[:, 0], energy, self.memory["energy"])}
        self.memory = {"x": x, "raw": score, "energy": self.extras["energy"]}
        if not self.levels[k + 1]:
            return x
        mean = x + self.levels[k] ** 2 * score
        return draw_signs(self.score_of(x, mean) + x / self.moves[k].alpha, noise)


@pytest.mark.parametrize(
    "mutant", [OneStageAsTwo, HalfThePull, PublishedGradient, Unadjusted, AcceptsByEnergyAlone]
)
def test_mutants_do_not_stay(mutant) -> None:
    with pytest.raises(CheckFailed, match="do not stay there"):
        check_stationary_law(mutant)


class TwiceThePull(DiscreteLangevinSampler):
    def score_of(self, y, mean):
        return 2 * super().score_of(y, mean)


class OtherNoise(DiscreteLangevinSampler):
    def score_of(self, y, mean):
        return super().score_of(y, mean) * 0.8


@pytest.mark.parametrize("mutant", [TwiceThePull, OtherNoise])
def test_mutants_do_not_converge(mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they do wrong shows in 4,000 chains, and one step size."""
    monkeypatch.setattr(signs_limit, "NUM_SAMPLES", 4000)
    monkeypatch.setattr(signs_limit, "STEP_SIZES", (1 / 2,))
    monkeypatch.setattr(signs_limit, "MOST_EVALUATIONS", 128)
    with pytest.raises(CheckFailed, match="does not converge to the noisy data along step_size"):
        check_limit(mutant)
