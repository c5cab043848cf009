"""Annealed walks that remember, and what is matched to a network's loss."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from hdzoo import HDPipeline, get_sampler
from hdzoo.errors import HDZooError
from hdzoo.samplers.gaussian import GaussianLaw
from hdzoo.samplers.held_out import loss_at
from hdzoo.samplers.noise import Noise
from hdzoo.sampling import load_pipeline
from hdzoo.targets.named import spectrum_target
from hdzoo.verification.draws import Draws
from hdzoo.verification.laws import Gaussian, exact_law, laws_along

AVERAGED, UNDERDAMPED = "averaged-noise-annealed-langevin", "underdamped-annealed-langevin"
CONSISTENT, ANNEALED = "consistent-annealed-sampling", "annealed-langevin"
# A few dozen float64 operations, of numbers up to a hundred times the last.
EXACT = 1e-12
LADDER = np.geomspace(3, 0.1, 8).tolist()
# The data of the tables of laws, N(1.3, 0.8^2).
MEAN, VARIANCE = 1.3, 0.8**2


def score(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """That of no law, and not linear."""
    return torch.tanh(1 - x) / sigma**2


def run(sampler: Any, x: torch.Tensor, noises: torch.Tensor) -> torch.Tensor:
    """The end of a chain on given noise."""
    draws = Draws(lambda draw, _: noises[draw])
    sampler.set_begin_index(0)
    for sigma, t in zip(sampler.levels, sampler.timesteps, strict=False):
        with draws:
            x = sampler.step(score(x, sigma), t, x).prev_sample
    return x


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()


def record(variance: float, levels: list[float]) -> dict[str, list[float]]:
    """The loss of the exact score of isotropic normal data, s^2 / V."""
    return {"sigmas": levels, "loss": [variance / (variance + sigma**2) for sigma in levels]}


# ---- the walks ------------------------------------------------------------------------------


def test_averaged_noise_down_a_ladder_is_what_is_written() -> None:
    """Four steps in which each noise is used twice, then half-denoising, of the same noise."""
    eta, sigmas, z = 1.1, [2.0, 1.0, 0.5], normal(20, 4, 3)
    sampler = get_sampler(AVERAGED)(sigmas=sigmas, step_size=eta * 0.5**2)
    sampler.set_timesteps(15)
    x = start = normal(4, 3)
    kept = iter(z)
    share = math.sqrt(eta / 2)
    old = next(kept) - share * 2.0 * score(x, 2.0)
    for sigma, below in pairwise([*sigmas, 0.0]):
        for _ in range(4):
            new = next(kept)
            denoised = x + sigma**2 * score(x, sigma)
            x = x + eta * (denoised - x) + sigma * share * (old + new)
            old = new
        fraction = 0.5 if below else 1.0
        x = x + fraction * (sigma**2 - below**2) * score(x, sigma)
    torch.testing.assert_close(run(sampler, start, z), x, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("per", ["step", "time"])
def test_underdamped_down_a_ladder_is_what_is_written(per: str) -> None:
    """Whole steps of ABOBA on each rung, with the velocity kept, and half-denoising after them."""
    eta, friction, sigmas, z = 0.5, 0.7, [2.0, 1.0, 0.5], normal(20, 4, 3)
    sampler = get_sampler(UNDERDAMPED)(sigmas=sigmas, friction=friction, friction_per=per)
    sampler.set_timesteps(15)
    x = start = normal(4, 3)
    kept, v = iter(z), torch.zeros(4, 3).double()
    for sigma, below in pairwise([*sigmas, 0.0]):
        delta = math.sqrt(2 * eta) * sigma
        gamma = friction * (delta if per == "time" else 1)
        for _ in range(4):
            # The very first step has no velocity to move by before the score is asked.
            x = x + delta / 2 * v
            s = score(x, sigma)
            v = v + delta / 2 * s
            v = math.exp(-gamma) * v + math.sqrt(1 - math.exp(-2 * gamma)) * next(kept)
            v = v + delta / 2 * s
            x = x + delta / 2 * v
        fraction = 0.5 if below else 1.0
        x = x + fraction * (sigma**2 - below**2) * score(x, sigma)
    torch.testing.assert_close(run(sampler, start, z), x, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("name", ["averaged-noise", "underdamped"])
def test_on_one_rung_it_is_the_walk_at_one_level(name: str) -> None:
    z, x, options = normal(20, 4, 3), normal(4, 3), {"step_size": 0.1}
    ends = []
    for kind, level in (
        (f"{name}-langevin", {"sigma": 0.6}),
        (f"{name}-annealed-langevin", {"sigmas": [0.6], "readout": None}),
    ):
        sampler = get_sampler(kind)(**options, **level)
        sampler.set_timesteps(9)
        ends.append(run(sampler, x, z))
    assert torch.equal(*ends)


@pytest.mark.parametrize("name", [AVERAGED, UNDERDAMPED])
@pytest.mark.parametrize("hand_off", ["own", "next"])
def test_hand_offs_with_noise_are_steps(name: str, hand_off: str) -> None:
    """Of the underdamped walk both are one; of the other, both halves have the next one's size."""
    sampler = get_sampler(name)(sigmas=[1.0, 0.5], hand_off=hand_off, readout=None, step_size=0.05)
    sampler.set_timesteps(2)
    noises = [move.noise for move in sampler.moves]
    expected = [math.sqrt(2 * 0.2), math.sqrt(2 * 0.05)]
    assert noises == pytest.approx([expected[hand_off == "next"], expected[1]])
    z, x = normal(5, 4, 3), normal(4, 3)
    own = get_sampler(name)(sigmas=[1.0, 0.5], hand_off="own", readout=None, step_size=0.05)
    own.set_timesteps(2)
    same = name == UNDERDAMPED or hand_off == "own"
    assert torch.equal(run(sampler, x, z), run(own, x, z)) is same


@pytest.mark.parametrize(("eta", "readout", "variance"), [(0.5, None, 1.0), (1.3, "half", 0.6724)])
def test_neither_walk_has_a_bias_at_any_step(
    eta: float, readout: str | None, variance: float
) -> None:
    """On N(1.3, 0.8^2) at sigma = 0.6, V = 1; (1 - 0.18)^2 after half-denoising."""
    options = {"sigmas": [0.6], "step_size": eta * 0.36, "readout": readout}
    for name in (AVERAGED, UNDERDAMPED):
        sampler = get_sampler(name)(**options)
        sampler.set_timesteps(200)
        law = exact_law(sampler, Gaussian.of(MEAN, VARIANCE), Gaussian.of(0.0, 4.0))

        assert law.mean.item() == pytest.approx(MEAN, rel=1e-10)
        assert law.covariance.item() == pytest.approx(variance, rel=1e-10)


def test_the_hand_off_is_what_annealed_langevin_lacks_on_the_spectrum_of_images() -> None:
    """The distances after 1,000 evaluations, every chain read out by the exact map of normal laws.

    Known as .0427, .0175, .0004 and .0002 up to the scaling of the spectrum, which is one factor;
    of these roundings.
    """
    variances = spectrum_target().variances[0].numpy()
    levels = np.geomspace(1, 0.01, 10)
    losses = [float(np.mean(variances / (variances + s**2))) for s in levels]
    found = []
    for hand_off in ("own", "next", "half", "variance-matched"):
        loss = {"sigmas": levels.tolist(), "loss": losses}
        sampler = get_sampler(ANNEALED)(hand_off=hand_off, held_out_loss=loss)
        zero = 0 * variances
        law = sampler.closed_form(GaussianLaw(zero, variances, zero, zero + 1 / 12))
        clean = law.variance * variances / (variances + 1e-4)
        found.append(float(np.sum((np.sqrt(clean) - np.sqrt(variances)) ** 2)))
    scale = found[0] / 0.0427
    for distance, known in zip(found, (0.0427, 0.0175, 0.0004, 0.0002), strict=True):
        assert distance / scale == pytest.approx(known, abs=6e-5)


# ---- the variance that is known from the loss -----------------------------------------------


def test_the_loss_between_its_levels() -> None:
    loss = {"sigmas": [1.0, 0.1, 10.0], "loss": [0.2, 0.6, 0.0]}
    found = [loss_at(loss, sigma) for sigma in (0.01, 0.1, 10**-0.5, 1.0, 10**0.25, 10.0, 99.0)]
    assert found == pytest.approx([0.6, 0.6, 0.4, 0.2, 0.15, 0.0, 0.0])
    # More than a score of zero has: a network that is worse than none, at a level too small for it.
    assert loss_at({"sigmas": [0.1], "loss": [1.2]}, 0.1) == 1.0


def test_noise_and_hand_offs_keep_the_variance_on_the_ladder() -> None:
    """On N(1.3, 0.8^2) and on a point, from the noisy data at the first level."""
    for variance in (VARIANCE, 0.0):
        loss, target = record(variance, LADDER), Gaussian.of(MEAN, variance)
        for name, options in (
            (CONSISTENT, {"consistent_with": "data"}),
            (CONSISTENT, {"consistent_with": "data", "step_size": 0.9 * LADDER[-1] ** 2}),
            (ANNEALED, {"hand_off": "variance-matched", "readout": "full"}),
        ):
            sampler = get_sampler(name)(sigmas=LADDER, held_out_loss=loss, **options)
            sampler.set_timesteps(len(LADDER))
            laws = laws_along(sampler, target, target.noisy(LADDER[0]))
            found = [law.covariance.item() for law in laws[:-1]]
            assert found == pytest.approx([variance + s**2 for s in LADDER], rel=1e-12)
    # With the noise of a point there is too little left: what the tables have.
    sampler = get_sampler(CONSISTENT)(sigmas=LADDER, step_size=0.5 * 0.1**2)
    sampler.set_timesteps(len(LADDER))
    target = Gaussian.of(MEAN, VARIANCE)
    law = exact_law(sampler, target, target.noisy(3.0))
    assert law.covariance.item() == pytest.approx(0.463349, abs=1e-6)


@pytest.mark.parametrize("readout", ["variance-matched", "full"])
def test_read_outs_by_the_loss_have_the_variance_of_normal_data(readout: str) -> None:
    """lambda* = 1 / (1 + s / sqrt V) is exact; full denoising leaves s^4 / V."""
    sigma, target = 0.6, Gaussian.of(MEAN, VARIANCE)
    sampler = get_sampler(ANNEALED)(
        sigmas=[sigma], readout=readout, held_out_loss=record(VARIANCE, [sigma])
    )
    sampler.set_timesteps(1)
    found = exact_law(sampler, target, target.noisy(sigma)).covariance.item()
    expected = VARIANCE if readout == "variance-matched" else VARIANCE**2
    assert found == pytest.approx(expected, rel=1e-12)


def test_total_variance_is_right_whatever_the_data() -> None:
    """On two points of unequal weight, whose score is not affine: everything by quadrature."""
    points, weights = np.array([-1.0, 1.5]), np.array([0.7, 0.3])
    mean = weights @ points
    spread = weights @ points**2 - mean**2

    def expectation(value: Any, sigma: float) -> float:
        def integrand(x: float) -> float:
            parts = weights * np.exp(-((x - points) ** 2) / 2 / sigma**2)
            density = parts.sum() / sigma / math.sqrt(2 * math.pi)
            s = (parts @ points / max(parts.sum(), 1e-300) - x) / sigma**2
            return float(value(x, s) * density)

        return quad(integrand, -12, 12, points=[-1.0, 0.25, 1.5], epsabs=1e-11, limit=200)[0]

    sigma, below = 0.9, 0.5
    # In one dimension the loss is 1 - sigma^2 E s^2.
    loss = {"sigmas": [sigma], "loss": [1 - sigma**2 * expectation(lambda x, s: s * s, sigma)]}
    matched = (
        (CONSISTENT, {"consistent_with": "data"}),
        (ANNEALED, {"hand_off": "variance-matched"}),
    )
    for name, options in matched:
        sampler = get_sampler(name)(sigmas=[sigma, below], held_out_loss=loss, **options)
        sampler.set_timesteps(2)
        _, alpha, noise = sampler.moves[0]
        moved = expectation(lambda x, s, a=alpha: (x + a * s - mean) ** 2, sigma)
        assert moved + noise**2 == pytest.approx(spread + below**2, rel=1e-8)
    sampler = get_sampler(ANNEALED)(sigmas=[sigma], readout="variance-matched", held_out_loss=loss)
    sampler.set_timesteps(1)
    alpha = sampler.moves[0].alpha
    moved = expectation(lambda x, s: (x + alpha * s - mean) ** 2, sigma)
    assert moved == pytest.approx(spread, rel=1e-8)


def test_half_corrected_is_unbiased_to_first_order_after_a_walk_with_fresh_noise() -> None:
    """The error of half-denoising falls with sigma^2, this one with sigma^4."""
    errors = {}
    for readout in ("half", "half-corrected"):
        for sigma in (0.2, 0.1):
            sampler = get_sampler(ANNEALED)(
                sigmas=[sigma], step_size=0.5 * sigma**2, readout=readout
            )
            sampler.set_timesteps(1)
            # Where the walk stays, V / (1 - alpha / 2 V).
            total = 1 + sigma**2
            stays = Gaussian.of(0.0, total / (1 - 0.5 * sigma**2 / 2 / total))
            law = exact_law(sampler, Gaussian.of(0.0, 1.0), stays)
            errors[readout, sigma] = abs(law.covariance.item() - 1)
    ratios = {word: errors[word, 0.2] / errors[word, 0.1] for word in ("half", "half-corrected")}
    assert ratios["half"] == pytest.approx(4, rel=0.05)
    assert ratios["half-corrected"] == pytest.approx(16, rel=0.1)


def test_where_the_loss_is_from() -> None:
    pipe = load_pipeline("ncsn-mnist", ANNEALED, {"hand_off": "variance-matched"})
    assert pipe.scheduler.config.held_out_loss == pipe.unet.config.held_out_loss is not None
    pipe = load_pipeline("ncsn-mnist", ANNEALED)
    assert pipe.scheduler.config.held_out_loss is None
    point = {"sigmas": [1], "loss": [0]}
    again = type(pipe.scheduler).from_config(
        pipe.scheduler.config, readout="variance-matched", held_out_loss=point
    )
    assert again.moves[-1].alpha == again.levels[-2] ** 2


LOSS = r"held_out_loss is \{?.*it must be a network's record"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (ANNEALED, {"hand_off": "variance-matched"}, "give held_out_loss=pipe.unet.config"),
        (ANNEALED, {"readout": "variance-matched"}, "give held_out_loss=pipe.unet.config"),
        (
            CONSISTENT,
            {"consistent_with": "data"},
            "needs the loss that the network was measured to have",
        ),
        (
            CONSISTENT,
            {"consistent_with": "much"},
            "consistent_with is 'much'; allowed are 'point', 'data'",
        ),
        (ANNEALED, {"held_out_loss": [0.1]}, LOSS),
        (ANNEALED, {"held_out_loss": {"sigmas": [1]}}, LOSS),
        (
            AVERAGED,
            {"held_out_loss": {"sigmas": [1], "loss": [-1]}},
            r"held_out_loss\['loss'\]\[",
        ),
        (AVERAGED, {"held_out_loss": {"sigmas": [1, 2], "loss": [1]}}, "2 noise levels.*1 losses"),
        (AVERAGED, {"held_out_loss": {"sigmas": [1, 1], "loss": [1, 0]}}, "of which 1 differ"),
        (
            ANNEALED,
            {"readout": "twice"},
            "half-corrected.*variance-matched.*or a number from",
        ),
        (UNDERDAMPED, {"friction": 0}, "friction is 0"),
        (UNDERDAMPED, {"hand_off": "whole"}, "hand_off is 'whole'; allowed are 'own', 'next'"),
    ],
)
def test_what_cannot_be_is_said(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        get_sampler(name)(**options)


# ---- where chains start ---------------------------------------------------------------------


@pytest.mark.parametrize("coordinates", ["ve", "vp"])
def test_a_chain_may_start_with_the_variance_of_the_noisy_data(coordinates: str) -> None:
    states = {}
    for start in ("normal", "gaussian"):
        sampler = get_sampler(ANNEALED)(sigmas=[2.0, 1.0], start=start)
        sampler = type(sampler).from_config(sampler.config, coordinates=coordinates)
        noise = Noise(torch.Generator().manual_seed(0), dtype=torch.float64)
        states[start] = sampler.first_state((3, 2), noise, 0.3, (0.0, 1.0), 1.5)
    scale = 1.0 if coordinates == "ve" else math.sqrt(1 + 2.0**2)
    about, wider = (states[start] * scale - 0.3 for start in ("normal", "gaussian"))
    # 1.5, 2 and 2.5 are the sides of a right triangle; in VP chains start at variance 1.
    wide = 2.5 / (2.0 if coordinates == "ve" else scale)
    torch.testing.assert_close(wider, wide * about, rtol=EXACT, atol=EXACT)


def test_networks_say_how_wide_their_data_are() -> None:
    pipe = HDPipeline.from_pretrained("ncsn-mnist")
    assert pipe.data_std == pipe.unet.config.data_std == 0.3081
    options = {"start": "gaussian", "sigmas": [0.1]}
    sampler = get_sampler(ANNEALED)(**options)
    pipe.scheduler = type(sampler).from_config(pipe.scheduler.config, **options)
    generator = torch.Generator().manual_seed(0)
    drawn = pipe._first_state(pipe.scheduler, 200, generator, None, None, pipe.device)
    # Of 156,800 numbers the deviation is known to 0.2 %.
    assert float(drawn.std()) == pytest.approx(math.hypot(0.1, 0.3081), rel=0.01)
    with pytest.raises(HDZooError, match=r"data_std.*use start='normal'"):
        sampler.first_state((3, 2), Noise(None), 0.3, (0.0, 1.0))


# ---- where data are not normal --------------------------------------------------------------


@pytest.mark.parametrize(("name", "known"), [(ANNEALED, 0.0802), (AVERAGED, 0.0530)])
def test_half_denoising_gains_by_noise_that_is_used_twice(name: str, known: float) -> None:
    """The Wasserstein distance to a mixture of two normal laws, known from a grid, at sigma = 0.6.

    That of so many exact samples is 0.003, and varies by as much.
    """
    count, sigma, rng = 100_000, 0.6, np.random.default_rng(0)
    means, deviations = torch.tensor([-1.0, 1.0]).double(), torch.tensor([0.6, 0.5]).double()
    variances = deviations**2 + sigma**2
    sampler = get_sampler(name)(sigmas=[sigma], step_size=sigma**2 / 2, readout="half")
    sampler.set_timesteps(25)
    generator = torch.Generator().manual_seed(0)
    place = torch.from_numpy(rng.integers(0, 2, count))
    x = means[place] + variances[place].sqrt() * torch.from_numpy(rng.standard_normal(count))
    for t in sampler.timesteps:
        away = means - x[:, None]
        shares = (-(away**2) / 2 / variances - variances.log() / 2).softmax(1)
        x = sampler.step((shares * away / variances).sum(1), t, x, generator).prev_sample
    grid = np.linspace(-5, 5, 20_001)
    below = sum(norm.cdf(grid, m, s) for m, s in ((-1.0, 0.6), (1.0, 0.5))) / 2
    exact = np.interp((np.arange(count) + 0.5) / count, below, grid)
    found = math.sqrt(np.mean((np.sort(x.numpy()) - exact) ** 2))
    assert found == pytest.approx(known, abs=0.006)
