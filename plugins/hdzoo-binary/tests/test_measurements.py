"""Several measurements: the exact law of the whole chain, by matrices, and mutants."""

import pytest
import torch
from hdzoo_binary import exact
from hdzoo_binary.measurements import BinaryMultimeasurementSampler
from hdzoo_binary.signs import signs_score
from hdzoo_binary.targets import SignsMixtureScore
from scipy import stats

from hdzoo import HDZooError, get_sampler
from hdzoo.samplers.noise import Noise
from hdzoo.verification import signs_limit
from hdzoo.verification.checks import CheckFailed
from hdzoo.verification.limit import check_limit

# Three signs that depend on one another.
MODEL = SignsMixtureScore.from_components([[0.8, 0.5, -0.9], [-0.7, 0.9, 0.4]], [0.3, 0.7])
POINTS = exact.states(3)
SIGMA, ALPHA = 1.2, 0.8


def moves(past: torch.Tensor | None, stages: int, steps: int) -> torch.Tensor:
    """From where the network is asked first to the measurement, by so many moves of the formula.

    Args:
        past: the measurements before, shape (t - 1, 3), or None.
        stages: of the walk.
        steps: how many moves; with none, the measurement is where the network is asked.
    """
    t = 1 if past is None else len(past) + 1
    total = POINTS if past is None else POINTS + past.sum(0)
    mean = MODEL.denoise(total / t, SIGMA / t**0.5)
    scores = signs_score(POINTS, mean, SIGMA, "difference")
    matrix = exact.independent(stages * scores + POINTS / ALPHA)
    again = exact.independent(POINTS / ALPHA) @ matrix if stages == 2 else matrix
    found = torch.eye(8, dtype=torch.float64)
    for step in range(steps):
        found = found @ (again if step else matrix)
    return found


def law_of_two(stages: int, steps: int) -> torch.Tensor:
    """The law of the jump by rounding from two measurements, with so many evaluations each."""
    uniform = torch.full((8,), 1 / 8, dtype=torch.float64)
    law = torch.zeros(8, dtype=torch.float64)
    for y, share in zip(POINTS, uniform @ moves(None, stages, steps - 1), strict=True):
        clean = exact.independent(2 * MODEL.denoise(y[None], SIGMA).atanh())[0]
        asked = clean @ exact.flips(3, SIGMA)
        if stages == 2 and steps > 1:
            asked = asked @ exact.independent(POINTS / ALPHA)
        second = asked @ moves(y[None], stages, steps - 1)
        both = MODEL.denoise((POINTS + y) / 2, SIGMA / 2**0.5)
        law += share * second @ exact.independent(2 * both.atanh())
    return law


def simulated(sampler: BinaryMultimeasurementSampler, steps: int, count: int):
    generator = torch.Generator().manual_seed(1)
    sampler.set_timesteps(steps)
    x = sampler.first_state((count, 3), Noise(generator, dtype=torch.float64))
    for t, sigma in zip(sampler.timesteps, sampler.levels, strict=False):
        x = sampler.step(MODEL.score(x, sigma), t, x, generator=generator).prev_sample
    return torch.bincount(((x + 1) / 2).long() @ torch.tensor([4, 2, 1]), minlength=8).numpy()


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_law_of_two_measurements(stages: int, steps: int) -> None:
    """Of every evaluation: where it is asked, the moves, the warm start and the jump."""
    count, law = 20_000, law_of_two(stages, steps)
    assert law.sum().item() == pytest.approx(1, abs=1e-12)
    sampler = BinaryMultimeasurementSampler(SIGMA, ALPHA, measurements=2, stages=stages)
    counts = simulated(sampler, 2 * steps, count)
    # Fixed seed; by chance once in a thousand.
    assert stats.chisquare(counts, law.numpy() * count).pvalue > 1e-3


@pytest.mark.parametrize("stages", [1, 2])
def test_mutants_have_another_law(stages: int) -> None:
    """What a wrong number of evaluations would do to that law shows in as many samples."""
    count = 20_000
    sampler = BinaryMultimeasurementSampler(SIGMA, ALPHA, measurements=2, stages=stages)
    counts = simulated(sampler, 4, count)
    assert stats.chisquare(counts, law_of_two(stages, 4).numpy() * count).pvalue < 1e-6


def test_levels() -> None:
    sampler = BinaryMultimeasurementSampler(sigma=2.0, measurements=3, steps_per_measurement=2)
    expected = [2.0] * 2 + [2 / 2**0.5] * 2 + [2 / 3**0.5] * 2
    assert list(sampler.levels[:-1]) == pytest.approx(expected, rel=1e-12)
    assert get_sampler("binary-multimeasurement") is BinaryMultimeasurementSampler
    with pytest.raises(HDZooError, match=r"level 2 is 1\.9; it must be 2 / sqrt\(2\)"):
        sampler.set_timesteps(sigmas=[2.0, 1.9])
    with pytest.raises(HDZooError, match="needs at least 3: one for each noise level"):
        sampler.set_timesteps(2)
    for options, said in (
        ({"measurements": 0}, "measurements is 0"),
        ({"stages": 3}, "stages is 3"),
        ({"jump": None}, "jump is None; allowed are"),
    ):
        with pytest.raises(HDZooError, match=said):
            BinaryMultimeasurementSampler(**options)


def test_network_is_asked_at_means_of_signs() -> None:
    sampler = BinaryMultimeasurementSampler(SIGMA, ALPHA, measurements=3)
    sampler.set_timesteps(9)
    generator = torch.Generator().manual_seed(0)
    x = sampler.first_state((50, 3), Noise(generator, dtype=torch.float64))
    for k, (t, sigma) in enumerate(zip(sampler.timesteps, sampler.levels, strict=False)):
        ones = (x + 1) / 2 * (k // 3 + 1)
        # Roundings of 1e-16, of counts up to 3.
        torch.testing.assert_close(ones, ones.round(), rtol=0, atol=1e-14)
        x = sampler.step(MODEL.score(x, sigma), t, x, generator=generator).prev_sample
    assert x.abs().eq(1).all()


# ---- mutants, which `hdzoo verify` must find -----------------------------------------------------


class JumpsAtOne(BinaryMultimeasurementSampler):
    """It rounds the last measurement alone."""

    def update(self, k, x, score, noise):
        if self.levels[k + 1]:
            return super().update(k, x, score, noise)
        t = self.config.measurements
        return torch.where(t * x - (t - 1) * self.memory["past"] < 0, -1.0, 1.0).to(x.dtype)


class ForgetsPast(BinaryMultimeasurementSampler):
    """Measurements as if there were none before."""

    def update(self, k, x, score, noise):
        self.memory.pop("past", None)
        return super().update(k, x, score, noise).sign()


class BySign(BinaryMultimeasurementSampler):
    """The most likely signs, which have another law than the data."""

    def __init__(self, sigma: float = 1.0, measurements: int = 1):
        super().__init__(sigma=sigma, measurements=measurements, jump="sign")


@pytest.mark.parametrize("mutant", [JumpsAtOne, ForgetsPast, BySign])
def test_mutants_do_not_converge(mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they do wrong shows in 4,000 chains, and in a few evaluations."""
    monkeypatch.setattr(signs_limit, "NUM_SAMPLES", 4000)
    monkeypatch.setattr(signs_limit, "MOST_EVALUATIONS", 64)
    with pytest.raises(CheckFailed, match="does not converge to the data along num_inference_step"):
        check_limit(mutant)
