"""The reverse process: numbers worked out apart from the code, and what is the same as what."""

import math

import numpy as np
import pytest
import torch
from hdzoo_reverse_diffusion.discretization import ve_steps, vp_betas
from hdzoo_reverse_diffusion.ornstein_uhlenbeck import OrnsteinUhlenbeckSampler
from hdzoo_reverse_diffusion.predictor_corrector import ScoreSDEPCSampler
from hdzoo_reverse_diffusion.probability_flow import ProbabilityFlowSampler
from hdzoo_reverse_diffusion.published import runge_kutta
from hdzoo_reverse_diffusion.reverse_sde import ReverseSDESampler
from hdzoo_reverse_diffusion.runge_kutta import ProbabilityFlowRK45Sampler, stage_levels
from scipy.integrate import RK45, solve_ivp

from hdzoo import HDZooError, get_sampler
from hdzoo.plugins import provider
from hdzoo.samplers.gaussian import GaussianLaw
from hdzoo.verification import Gaussian, exact_law
from hdzoo.verification.checks import CheckFailed
from hdzoo.verification.closed_form import check_exact_law

MEAN, STD = 1.3, 0.8
DATA = Gaussian.of(MEAN, STD**2)
NAMES = (
    "ornstein-uhlenbeck",
    "probability-flow",
    "probability-flow-rk45",
    "reverse-sde",
    "score-sde-pc",
)


def at(sampler, steps: int):
    sampler.set_timesteps(steps)
    return sampler


@pytest.mark.parametrize("name", NAMES)
def test_registered(name: str) -> None:
    assert get_sampler(name).__module__.startswith("hdzoo_reverse_diffusion.")
    assert provider("samplers", name).distribution == "hdzoo-reverse-diffusion"


# ---- the Ornstein-Uhlenbeck process --------------------------------------------------------------


def test_ornstein_uhlenbeck() -> None:
    """T = 3 and K = 60 from N(0, I), by the recursion of mean and variance in its own letters."""
    end, steps = 3.0, 60
    sampler = at(OrnsteinUhlenbeckSampler(sigma_max=math.sqrt(math.expm1(2 * end))), steps)
    law = exact_law(sampler, DATA, Gaussian.of(0.0, math.exp(2 * end)))
    mean, variance, g = 0.0, 1.0, end / steps
    for t in end - g * np.arange(steps):
        total = math.exp(-2 * t) * STD**2 - math.expm1(-2 * t)
        mean = (1 + g) * mean - 2 * g / total * (mean - math.exp(-t) * MEAN)
        variance = (1 + g - 2 * g / total) ** 2 * variance + 2 * g
    # 60 steps of a few roundings of numbers up to e^6.
    assert law.mean.item() == pytest.approx(mean, abs=1e-11)
    assert law.covariance.item() == pytest.approx(variance, abs=1e-11)
    # Worked out apart from this code, to six digits.
    assert (law.mean.item(), law.covariance.item()) == pytest.approx((1.2850, 0.678702), abs=5e-5)
    assert law.covariance.item() == pytest.approx(0.678702, abs=5e-7)


def test_ornstein_uhlenbeck_is_the_vp_sde() -> None:
    """Of constant rate 2: euler-maruyama on its levels, but for the last step's length."""
    ou = at(OrnsteinUhlenbeckSampler(sigma_max=5.0), 10)
    levels = ou.sigmas[:-1].tolist()
    sde = ReverseSDESampler(sde="vp", predictor="euler-maruyama", denoise=False, sampling_eps=0.0)
    sde.set_timesteps(sigmas=levels)
    # Steps of score_sde are 1 / n long where levels are 1 / (n - 1) apart.
    ratio = 10 / 9
    scale = np.sqrt(1 + np.append(levels, 0) ** 2)
    for k, (one, other) in enumerate(zip(ou.moves, sde.moves, strict=True)):
        assert one.alpha == pytest.approx(other.alpha * ratio, rel=1e-12)
        after = scale[k + 1] / scale[k]
        expected = (sde.keeps[k] / after - 1) * ratio
        assert ou.keeps[k] / after - 1 == pytest.approx(expected, rel=1e-9)


def test_denoised_end_of_ornstein_uhlenbeck() -> None:
    law = exact_law(
        at(OrnsteinUhlenbeckSampler(sigma_max=5.0, denoise=True), 20), Gaussian.of(0.4, 0.0)
    )
    assert (law.mean.item(), law.covariance.item()) == pytest.approx((0.4, 0.0), abs=1e-12)


# ---- the reverse SDE -----------------------------------------------------------------------------


def test_ancestral_on_a_ladder() -> None:
    """The variance on reaching the last of 8 levels, worked out apart from this code; the last step
    denoises."""
    sampler = at(ReverseSDESampler(3.0, 0.1, predictor="ancestral", sampling_eps=0.0), 8)
    law = exact_law(sampler, DATA, DATA.noisy(3.0))
    shrunk = (STD**2 / (STD**2 + 0.1**2)) ** 2
    assert law.covariance.item() / shrunk == pytest.approx(0.419693, abs=5e-7)


def test_steps_from_time_1_to_0_and_questions_from_1_to_epsilon() -> None:
    eps, n = 1e-2, 50
    sampler = at(ReverseSDESampler(5.0, 0.01, sampling_eps=eps), n)
    times = np.linspace(1, eps, n)
    np.testing.assert_allclose(sampler.levels[:-1], 0.01 * 500**times, rtol=1e-12)
    ladder = np.append(np.geomspace(5.0, 0.01, n), 0)
    found = [move.alpha for move in sampler.moves]
    np.testing.assert_allclose(found, ladder[:-1] ** 2 - ladder[1:] ** 2, rtol=1e-10)


def test_euler_maruyama_of_a_geometric_ladder() -> None:
    """sigma^2 2 log(sigma_max / sigma_min) / n, the square of the authors' diffusion over n."""
    steps = ve_steps("euler-maruyama", np.geomspace(5.0, 0.01, 20).tolist(), 0.0)
    expected = np.geomspace(5.0, 0.01, 20) ** 2 * 2 * math.log(500) / 20
    np.testing.assert_allclose(steps.push, expected, rtol=1e-12)
    np.testing.assert_allclose(steps.noise**2, expected, rtol=1e-12)


def test_betas_lead_from_level_to_level() -> None:
    levels = [3.0, 1.5, 0.4]
    signal = np.append(1 / (1 + np.square(levels)), 1.0)
    found = vp_betas(levels, 0.0, None)
    np.testing.assert_allclose(1 - found, signal[:-1] / signal[1:], rtol=1e-14)


def test_too_few_levels_are_refused() -> None:
    config = {"_class_name": "ScoreSdeVpScheduler", "beta_min": 0.1, "beta_max": 20.0}
    sampler = ReverseSDESampler.from_config(config)
    with pytest.raises(HDZooError, match=r"beta is 2 at the first.*at least 21 levels"):
        sampler.set_timesteps(10)
    sampler.set_timesteps(21)
    for steps in (1, 2):
        with pytest.raises(HDZooError, match="at least 2 levels"):
            ScoreSDEPCSampler().set_timesteps(steps)
    with pytest.raises(HDZooError, match="repeated"):
        ReverseSDESampler().set_timesteps(sigmas=[1.0, 1.0, 0.5])
    for option, value in (("sde", "sub-vp"), ("predictor", "none"), ("sampling_eps", 1.0)):
        with pytest.raises(HDZooError, match=option):
            ReverseSDESampler(**{option: value})


# ---- predictor-corrector -------------------------------------------------------------------------


def test_without_corrections_it_is_the_reverse_sde() -> None:
    """Corrections at one level are Langevin steps; what follows is the step of the reverse SDE."""
    corrected = at(ScoreSDEPCSampler(5.0, 0.01, correct_steps=2), 30)
    plain = at(ReverseSDESampler(5.0, 0.01), 10)
    assert [*corrected.moves][2::3] == [*plain.moves]
    for k in range(0, 30, 3):
        move = corrected.moves[k]
        assert move == corrected.moves[k + 1]
        assert move.alpha == pytest.approx(2 * (0.16 * move.sigma) ** 2, rel=1e-12)
        assert move.noise**2 == pytest.approx(2 * move.alpha, rel=1e-12)


def test_norms_come_near_to_their_expectation() -> None:
    """In 20,000 dimensions the norms are those of the law to about 1 / sqrt(20,000): on data on a
    point, where a score is z / sigma exactly, both correctors end alike."""
    ends = []
    z = torch.randn(1, 20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for corrector in ("ald", "langevin"):
        sampler = at(ScoreSDEPCSampler(5.0, 0.1, corrector=corrector, denoise=False), 10)
        state, rng = 5 * z, torch.Generator().manual_seed(1)
        for k, t in enumerate(sampler.timesteps):
            state = sampler.step(-state / sampler.levels[k] ** 2, t, state, rng).prev_sample
        ends.append(state.std().item())
    assert ends[0] == pytest.approx(ends[1], rel=0.02)


# ---- the probability flow ------------------------------------------------------------------------


def test_euler_in_the_variance_is_half_denoising() -> None:
    levels = np.geomspace(3.0, 0.1, 8)
    sampler = ProbabilityFlowSampler(
        3.0, 0.1, predictor="reverse-diffusion", sampling_eps=0.0, denoise=False
    )
    law, expected = exact_law(at(sampler, 8), DATA, DATA.noisy(3.0)), STD**2 + 9.0
    for here, below in zip(levels, [*levels[1:], 0.0], strict=True):
        expected *= (1 - (here**2 - below**2) / 2 / (STD**2 + here**2)) ** 2
    assert law.covariance.item() == pytest.approx(expected, rel=1e-12)
    assert [move.noise for move in sampler.moves] == [0.0] * 8


@pytest.mark.parametrize("cls", [ProbabilityFlowSampler, ProbabilityFlowRK45Sampler])
def test_order_of_convergence(cls) -> None:
    """The standard deviation follows sqrt(s^2 + sigma^2) to the sampler's order: the error falls by
    2, and by 2^5, as steps are halved."""
    ratio = {ProbabilityFlowSampler: 2, ProbabilityFlowRK45Sampler: 2**5}[cls]
    start, exact = DATA.noisy(3.0), STD**4 / (STD**2 + 0.1**2)
    counts = {ProbabilityFlowSampler: (100, 200), ProbabilityFlowRK45Sampler: (97, 193)}[cls]
    errors = [
        exact_law(at(cls(3.0, 0.1), n), DATA, start).covariance.item() - exact for n in counts
    ]
    # The next order is about a step's length of the first.
    assert errors[0] / errors[1] == pytest.approx(ratio, rel=0.25)


def test_the_tableau_is_scipys() -> None:
    """One step on Gaussian data, by the published table, and by scipy's solver itself."""
    levels = np.exp(np.log(3.0) + np.log(0.5) * RK45.C)
    law = runge_kutta(GaussianLaw(0.0, STD**2, 0.0, 1.0), levels.tolist())
    found = solve_ivp(
        lambda u, x: x * np.exp(2 * u) / (STD**2 + np.exp(2 * u)),
        np.log([3.0, 1.5]),
        [1.0],
        first_step=math.log(2),
        rtol=1.0,
        atol=1.0,
    )
    assert found.t[1] == pytest.approx(math.log(1.5), abs=1e-12)
    assert math.sqrt(law.variance) == pytest.approx(found.y[0, 1], rel=1e-12)


@pytest.mark.parametrize("evaluations", [7, 8, 12, 13, 25, 60])
def test_the_budget_is_spent_exactly(evaluations: int) -> None:
    sampler = at(ProbabilityFlowRK45Sampler(5.0, 0.1), evaluations)
    assert len(sampler) == evaluations
    levels, counts = np.unique(-sampler.sigmas[:-1].numpy(), return_counts=True)
    assert (-levels).tolist() == stage_levels(5.0, 0.1, 0.5, evaluations)
    # Once more at the end of each step of six.
    assert (counts == 2).sum() == (evaluations - 1) // 6
    with pytest.raises(HDZooError, match="ask for at least that"):
        sampler.set_timesteps(6)
    with pytest.raises(HDZooError, match="a schedule for"):
        sampler.set_timesteps(sigmas=[1.0, 0.9, 0.9, 0.5, 0.4, 0.3, 0.2])


def test_steps_are_where_scipy_puts_them() -> None:
    """In proportion to those of its adaptive solver: at each step's beginning as many of scipy's
    steps have been made as its share of the way."""
    ladder = np.array([*stage_levels(50.0, 0.01, 0.5, 6 * 30 + 1)][::5])
    spreads = np.array([0.25, 0.25 / 16, 0.0])
    found = solve_ivp(
        lambda u, x: x * np.exp(2 * u) / (spreads + np.exp(2 * u)),
        np.log([50.0, 0.01]),
        np.sqrt(spreads + 50.0**2),
        rtol=1e-7,
        atol=1e-7,
    ).t
    made = np.interp(-np.log(ladder), -found, np.arange(len(found)))
    # But for the first steps of scipy's own choice and the last, which is cut short, and for what a
    # hundred times the tolerance changes in the proportions.
    shares = (made - made[5]) / (made[25] - made[5])
    np.testing.assert_allclose(shares[5:26], np.linspace(0, 1, 21), atol=0.03)
    lengths = -np.diff(np.log(ladder))
    assert lengths[-1] > 1.5 * lengths[0]


# ---- planted faults ------------------------------------------------------------------------------


class NoDrift(ReverseSDESampler):
    """The VP SDE without its own drift."""

    def plan(self, sigmas, counts):
        moves = super().plan(sigmas, counts)
        self.keeps = [1.0] * len(moves)
        return moves


class LevelAfter(ScoreSDEPCSampler):
    """Corrections with the step of the next level."""

    def plan(self, sigmas, counts):
        moves = super().plan(sigmas, counts)
        alphas = [*(move.alpha for move in moves[1:]), moves[-1].alpha]
        return [
            move._replace(alpha=alpha)
            if move.sigma == moves[min(k + 1, len(moves) - 1)].sigma
            else move
            for k, (move, alpha) in enumerate(zip(moves, alphas, strict=True))
        ]


class WholeScore(ProbabilityFlowSampler):
    """The flow with the whole score in place of half of it."""

    def plan(self, sigmas, counts):
        *moves, last = super().plan(sigmas, counts)
        return [*(move._replace(alpha=2 * move.alpha) for move in moves), last]


class SlopesForgotten(ProbabilityFlowRK45Sampler):
    """A step that forgets its first slope."""

    def update(self, k, x, score, noise):
        if k % 6 == 3 and self.memory:
            self.memory["slopes"][:, 0] = 0
        return super().update(k, x, score, noise)


class EndNoisier(OrnsteinUhlenbeckSampler):
    """Noise of the time after."""

    def plan(self, sigmas, counts):
        return [move._replace(noise=1.01 * move.noise) for move in super().plan(sigmas, counts)]


@pytest.mark.parametrize("fault", [NoDrift, LevelAfter, WholeScore, SlopesForgotten, EndNoisier])
def test_faults_are_found(fault) -> None:
    with pytest.raises(CheckFailed, match="not that of the declared closed form"):
        check_exact_law(fault)
