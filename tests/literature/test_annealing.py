"""The reproductions on annealing: their exact parts against formulas written out here, and runs.

The numbers with many digits are the recursions of the papers, followed on their own before.
"""

import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.stats import norm

from hdzoo import (
    AlphaHalfDenoisingSampler,
    AnnealedLangevinSampler,
    ConsistentAnnealedSampler,
    EmpiricalScore,
    GaussianMixtureScore,
    HDPipeline,
)
from hdzoo.literature import alpha_half, consistent_annealing, ncsn_toy, ncsnv2_techniques
from hdzoo.literature.alpha_half_findings import shares_of_gain
from hdzoo.literature.base import reproduce
from hdzoo.verification.laws import Gaussian

# ---- NCSN's toy -----------------------------------------------------------------------------


def test_toy_noise_added_is_what_widens_the_components_to_tau() -> None:
    target = ncsn_toy.diagonal_target()
    x = np.linspace(-20, 20, 81)[:, None]
    centre = 5 * math.sqrt(2)
    for tau, sigma, alpha in ncsn_toy._levels():
        assert alpha == pytest.approx(0.1 * tau**2 / 2)
        parts = 0.8 * norm.pdf(x, centre, tau), 0.2 * norm.pdf(x, -centre, tau)
        pull = -((x - centre) * parts[0] + (x + centre) * parts[1]) / (
            tau**2 * (parts[0] + parts[1])
        )
        # At tau = 1 the noise that stands for none adds 1e-6.
        found = target.score(torch.from_numpy(x), sigma).numpy()
        np.testing.assert_allclose(found, pull, rtol=1e-5, atol=1e-5)


def test_toy_start_is_the_diagonal_of_the_square() -> None:
    law = ncsn_toy.start_law()
    assert law.mean == pytest.approx(0, abs=1e-12)
    # (x + y) / sqrt(2) of independent coordinates has the variance of each.
    assert law.variance == pytest.approx(16**2 / 12, rel=1e-6)
    assert law.probability_above(0) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("chain", [ncsn_toy.langevin(), ncsn_toy.annealed()])
def test_toy_pieces_are_the_chain(chain: ncsn_toy.Chain) -> None:
    whole = [move for _, sampler in chain for move in sampler.moves]
    parts = [move for sampler in ncsn_toy.pieces(chain) for move in sampler.moves]
    assert len(whole) == 1000
    assert parts == whole


def test_toy_exact_weights() -> None:
    """0.7834 and 0.7800 +- 0.0021 were found by simulating 40,000 chains in NumPy and by these
    samplers; on the clean score the weight is what starts above the ridge of the density."""
    target = ncsn_toy.diagonal_target()
    curve, _ = ncsn_toy.exact_weights(ncsn_toy.annealed(), target)
    assert curve[-1][0] == 1000
    assert curve[-1][1] == pytest.approx(0.782295, abs=1e-5)
    curve, law = ncsn_toy.exact_weights(ncsn_toy.langevin(), target)
    assert curve[-1][1] == pytest.approx(0.508926, abs=1e-5)
    # Within the modes the walk's stationary variance is 1 / (1 - 0.05 / 2).
    upper = law.points > 0
    shares = law.weights[upper] / law.weights[upper].sum()
    mean = shares @ law.points[upper]
    assert shares @ (law.points[upper] - mean) ** 2 == pytest.approx(1 / 0.975, rel=1e-5)


# ---- NCSNv2's techniques --------------------------------------------------------------------


def test_technique_2() -> None:
    assert ncsnv2_techniques.ratio_of(3072) == pytest.approx(1.0398, abs=5e-5)
    assert ncsnv2_techniques.ratio_of(64) == pytest.approx(1.3608, abs=5e-5)
    for dimension in (3072, 64):
        ratio = ncsnv2_techniques.ratio_of(dimension)
        shift = math.sqrt(2 * dimension) * (ratio - 1)
        assert norm.cdf(shift + 3 * ratio) - norm.cdf(shift - 3 * ratio) == pytest.approx(0.5)
    cifar = ncsnv2_techniques.derived(ncsnv2_techniques.PUBLISHED["CIFAR-10"])
    assert cifar["ratio"] == pytest.approx(1.03756, abs=5e-6)
    assert cifar["overlap"] == pytest.approx(0.567, abs=5e-4)
    assert (cifar["num_levels"], cifar["num_levels_by_rule"]) == (232, 219)


@pytest.mark.parametrize("name", list(ncsnv2_techniques.PUBLISHED))
def test_technique_4(name: str) -> None:
    """Published to two digits: half a unit of the second is at most 5 %."""
    setting = ncsnv2_techniques.PUBLISHED[name]
    found = ncsnv2_techniques.derived(setting)
    close = found["step_size_by_rule"] == pytest.approx(setting.step_size, rel=0.02)
    assert close == ("church" not in name)
    # Equation 6 of the paper, at the published step size.
    eta, squared = setting.step_size * 1e4, found["ratio"] ** 2
    floor = 2 * eta / (1 - (1 - eta) ** 2)
    formula = (1 - eta) ** (2 * setting.steps_per_level) * (squared - floor) + floor
    assert found["level_ratio"] == pytest.approx(formula, rel=1e-12)


def test_level_ratios() -> None:
    cifar = ncsnv2_techniques.PUBLISHED["CIFAR-10"]
    assert ncsnv2_techniques.level_ratio(cifar, 6.2e-6) == pytest.approx(1.0555, abs=5e-5)
    assert ncsnv2_techniques.level_ratio(ncsnv2_techniques.V1, 2e-5) == pytest.approx(
        1.1111, abs=5e-5
    )


def test_confusion_keeps_below_the_bound() -> None:
    found = ncsnv2_techniques.confusion()
    shares, bounds = np.array(found["expected_share"]), np.array(found["bound"])
    assert (shares < bounds).all()
    # Where the points coincide each has half.
    # For points near each other it is 1/2 - distance^2 / 8.
    assert shares[0] == pytest.approx(0.5 - 0.1**2 / 8, abs=1e-5)


def test_small_first_level_stays_at_its_image() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).repeat(1, 8)
    target = EmpiricalScore.from_points(points)
    generator = torch.Generator().manual_seed(0)
    start = points[:1].expand(100, -1)
    counts = []
    for sigma_max in (0.05, 4.0):
        samples, _ = ncsnv2_techniques.sample(target, sigma_max, start, generator)
        counts.append(ncsnv2_techniques.spread(samples, target)["different_images"])
    assert counts == [1, 4]


# ---- consistent annealing -------------------------------------------------------------------


def test_short_ladder() -> None:
    found = consistent_annealing.short_ladder()
    last = ", entering the last level"
    expected = {
        "N(1.3, 0.8^2)": {
            "annealed Langevin": 1.266604,
            "alpha half-denoising": 1.039952,
            "annealed half-denoising": 0.684506,
            "consistent annealed": 0.463349,
            f"consistent annealed as DDIM{last}": 0.519867,
            f"consistent annealed as VE ancestral{last}": 0.419693,
        },
        "point": {
            "annealed Langevin": 0.013847,
            "alpha half-denoising": 0.008862,
            "annealed half-denoising": 0.003339,
            f"consistent annealed as DDIM{last}": 0.01,
            f"consistent annealed as VE ancestral{last}": 0.01,
        },
    }
    for data, rows in expected.items():
        for name, variance in rows.items():
            assert found[data][name] == pytest.approx(variance, abs=5e-7), (data, name)


def test_variance_entering_each_level() -> None:
    """Against the recursions, on data of variance s^2: v <- (1 - eta sigma^2 / V)^2 v + noise."""
    ladder = {"sigma_max": 5.0, "sigma_min": 0.1, "num_levels": 12, "step_size": 0.004}
    consistent = ConsistentAnnealedSampler(**ladder)
    consistent.set_timesteps(12)
    plain = AnnealedLangevinSampler(steps_per_level=3, **ladder)
    levels, eta = np.geomspace(5, 0.1, 12), 0.4
    gamma = levels[1] / levels[0]
    beta = math.sqrt(1 - ((1 - eta) / gamma) ** 2)
    for spread in (0.0, 0.5):
        target = Gaussian.of(0.3, spread**2)
        ours = [consistent_annealing.along(one, target) for one in (consistent, plain)]
        v = w = spread**2 + levels[0] ** 2
        expected: tuple[list[float], list[float]] = ([], [])
        for sigma in levels:
            total = spread**2 + sigma**2
            for rows, variance in zip(expected, (v, w), strict=True):
                rows.append(variance / total)
            shrink = (1 - eta * sigma**2 / total) ** 2
            v = shrink * v + (beta * gamma * sigma) ** 2
            for _ in range(3):
                w = shrink * w + 2 * eta * sigma**2
        for found, rows in zip(ours, expected, strict=True):
            np.testing.assert_allclose(found["total_ratio"], rows, rtol=1e-12)
            np.testing.assert_allclose(found["sigma"], levels, rtol=1e-12)
        if spread == 0:
            np.testing.assert_allclose(ours[0]["noise_ratio"], 1, rtol=1e-12)


# ---- alpha-half-denoising -------------------------------------------------------------------


def test_residual_noise_on_a_point() -> None:
    """The walk leaves sigma^2 / (1 - eta / 2), and a read-out (1 - lambda)^2 of it."""
    found = alpha_half.residual_noise()
    assert found[alpha_half.ALG_1] == pytest.approx(1 / 0.9, rel=1e-9)
    assert found[alpha_half.ALG_3] == pytest.approx(0.8**2 / 0.9, rel=1e-9)
    assert found["half, 0.5"] == pytest.approx(0.5**2 / 0.9, rel=1e-9)
    assert found[alpha_half.ALG_2] == pytest.approx(1 / 3, rel=1e-9)


def test_factorial_on_the_spectrum() -> None:
    """Each cell against its recursion, step by step, and the spectrum's printed digits."""
    variances = np.array([4.0, 0.3, 1e-2, 1e-4, 0.0])
    levels = np.geomspace(1, 0.01, 10)
    for name, sampler in alpha_half.cells().items():
        if name == alpha_half.ALG_2:
            continue
        hand_off, last = name.split(", ")
        v = np.full(5, 1 / 12)
        for i, sigma in enumerate(levels):
            total, alpha = variances + sigma**2, 0.2 * sigma**2
            for _ in range(99):
                v = (1 - alpha / total) ** 2 * v + 2 * alpha
            kept = alpha if i == 9 or hand_off == "own" else 0.2 * levels[i + 1] ** 2
            pull, noise = alpha, 2 * kept
            if i < 9 and hand_off == "half":
                pull, noise = (sigma**2 - levels[i + 1] ** 2) / 2, 0.0
            if i == 9 and last != "kept":
                pull, noise = float(last) * sigma**2, 0.0
            v = (1 - pull / total) ** 2 * v + noise
        expected = ((np.sqrt(v) - np.sqrt(variances)) ** 2).sum()
        assert alpha_half.frechet_closed(sampler, variances) == pytest.approx(expected, rel=1e-9)

    found = alpha_half.on_spectrum(0.0)
    digits = {"own, kept": 0.0504, "own, 0.2": 0.0481, "next, kept": 0.0223, "next, 0.2": 0.0205}
    for name, value in (digits | {"own, 1": 0.0420, "next, 1": 0.0168}).items():
        assert found[name] == pytest.approx(value, abs=5e-5)
    hand_off, drop = shares_of_gain(found)
    assert hand_off > 0.9 > 0.1 > drop
    hand_off, drop = shares_of_gain(alpha_half.on_spectrum(0.5))
    assert hand_off < 0.4 < 0.6 < drop


def small_mixture() -> GaussianMixtureScore:
    means = torch.tensor([[0.2, 0.2], [0.8, 0.8]], dtype=torch.float64)
    return GaussianMixtureScore.from_components(means, 0.1**2, sample_shape=(1, 1, 2))


def test_branches_are_whole_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alpha_half, "EVALUATIONS", 30)
    monkeypatch.setattr(alpha_half, "BATCH", 8)
    means = torch.tensor([[0.2, 0.2], [0.8, 0.8]], dtype=torch.float64)
    target = GaussianMixtureScore.from_components(means, 0.1**2, sample_shape=(1, 1, 2))
    found = alpha_half.branches(target, "next", 3)
    generator = torch.Generator().manual_seed(3)
    state = torch.rand(8, 1, 1, 2, generator=generator)
    torch.randn(state.shape, generator=generator)
    # Algorithm 3 itself, begun after its first noise.
    whole = HDPipeline(target, AlphaHalfDenoisingSampler())(
        num_inference_steps=30, latents=state, generator=generator, output_type="latent"
    )
    torch.testing.assert_close(found["next, 0.2"], whole.images.flatten(1), rtol=0, atol=1e-6)


def test_branches_have_common_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a point a rung of 10 steps forgets all but 0.8^10 = 0.11 of its first state, of which the
    hand-offs differ, and which is 1.67 times as large as the rung's own noise."""
    monkeypatch.setattr(alpha_half, "EVALUATIONS", 100)
    monkeypatch.setattr(alpha_half, "BATCH", 1000)
    target = GaussianMixtureScore.from_components([0.5, 0.5], 0.0, sample_shape=(1, 1, 2))
    own, half = (alpha_half.branches(target, name, 3)[f"{name}, kept"] for name in ("own", "half"))
    assert (own - half).std() < 0.3 * own.std()


def test_alpha_half_moves_are_annealed_langevins() -> None:
    assert alpha_half.same_moves()


# ---- whole runs, small ----------------------------------------------------------------------

SMALL = {
    "ncsn-toy": (
        ncsn_toy,
        {
            "TAUS": np.array([1.5, 1.0]),
            "STEPS_PER_LEVEL": 20,
            "NUM_SAMPLES": 50,
            "SEEDS": range(1),
        },
    ),
    "ncsnv2-techniques": (ncsnv2_techniques, {"NUM_SAMPLES": 10}),
    "consistent-annealing": (
        consistent_annealing,
        {
            "CIFAR": ncsnv2_techniques.Setting(1.0, 3072, 30, 5, 2e-5),
            "LADDER": {"sigma_max": 1.0, "sigma_min": 0.01, "num_levels": 30, "step_size": 2e-5},
        },
    ),
    "alpha-half-denoising": (
        alpha_half,
        {"EVALUATIONS": 20, "NUM_SAMPLES": 100, "BATCH": 50, "RESAMPLINGS": 2},
    ),
}


@pytest.mark.parametrize("name", list(SMALL))
def test_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: ModuleType
    module, changes = SMALL[name]
    for constant, value in changes.items():
        monkeypatch.setattr(module, constant, value)
    said: list[str] = []
    result = reproduce(name, tmp_path, "test", lambda text, *_: said.append(text))
    assert said
    assert result.claims
    assert len(result.conclusion) > 100
    written = json.loads((tmp_path / f"{name}.json").read_text())
    assert len(written["claims"]) == len(result.claims)
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
