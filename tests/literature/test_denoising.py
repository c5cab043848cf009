"""The reproductions on denoising: their numbers, against other ways to them."""

import json
import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import ive, log_ndtr, ndtr
from scipy.stats import norm

from hdzoo import HalfDenoisingSampler, HDZooError, LangevinSampler
from hdzoo.literature import half_or_full, noise_corrected, one_step
from hdzoo.literature.averaged import averaged_noise_law
from hdzoo.literature.base import reproduce
from hdzoo.literature.denoising import power_law
from hdzoo.targets.mixture import GaussianMixtureScore
from hdzoo.targets.named import two_gaussians
from hdzoo.verification.laws import Gaussian, exact_law
from hdzoo.verification.quadrature_law import GridChain, density_law, normal_law


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], dict[str, Any]]]:
    """What a reproduction writes; each is run once."""
    folder: Path = tmp_path_factory.mktemp("reproductions")

    def read(name: str) -> dict[str, Any]:
        if not (folder / f"{name}.json").exists():
            # A picture alone is of these, and no claim.
            with pytest.MonkeyPatch.context() as few:
                few.setattr(half_or_full, "WIDE_SIGMAS", (0.2, 1.1, 6.4))
                reproduce(name, folder, "hdzoo reproduce " + name, lambda *_: None)
            assert (folder / f"{name}.png").stat().st_size > 50_000
        return json.loads((folder / f"{name}.json").read_text())

    return read


@pytest.mark.parametrize("name", ["noise-corrected-langevin", "half-or-full-denoising"])
def test_every_claim_that_can_be_compared_agrees(written: Any, name: str) -> None:
    agreements = [claim["agrees"] for claim in written(name)["claims"]]
    assert set(agreements) == {True, None}
    assert agreements.count(True) >= 3


def test_power_law() -> None:
    sigmas = np.array([0.1, 0.2, 0.4, 0.8])
    assert power_law(sigmas, 3 * sigmas**1.7) == pytest.approx((1.7, 0), abs=1e-14)
    # By hand: residuals (1, -1, -1, 1) e leave the slope alone; e^2 * 4 / 2 / sum (x - mean)^2.
    wiggly = power_law(sigmas, sigmas * np.exp(0.01 * np.array([1, -1, -1, 1])))
    assert wiggly.exponent == pytest.approx(1, abs=1e-14)
    assert wiggly.error == pytest.approx(0.01 * (2 / 5) ** 0.5 / math.log(2), rel=1e-12)


# ---- noise-corrected Langevin -------------------------------------------------------------------

TABLE = {
    "oracle": {0.6: ".109", 0.4: ".044", 0.3: ".0241", 0.15: ".00593"},
    "basic": {0.6: ".235", 0.4: ".124", 0.3: ".0765", 0.15: ".0212"},
    "half": {0.6: ".0802", 0.4: ".0396", 0.3: ".023", 0.15: ".00589"},
    # As given to two digits below .01.
    "averaged": {0.6: ".0530", 0.4: ".0182"},
    "walk_jump": {0.6: ".122", 0.4: ".0644", 0.3: ".0402", 0.15: ".0116"},
    "one_shot_half": {0.6: ".0517", 0.4: ".0174", 0.3: ".00694", 0.15: ".000557"},
    "one_shot_full": {0.6: ".132", 0.4: ".076", 0.3: ".0503", 0.15: ".0155"},
    "one_shot_second_order": {0.6: ".0227", 0.4: ".00472", 0.3: ".00123", 0.15: ".0000293"},
}


@pytest.mark.parametrize("method", TABLE)
def test_distances_to_three_digits(written: Any, method: str) -> None:
    numbers = written("noise-corrected-langevin")["numbers"]
    found = dict(zip(numbers["sigmas"], numbers["wasserstein2"][method], strict=True))
    for sigma, expected in TABLE[method].items():
        assert f"{found[sigma]:.3g}" == f"{float(expected):.3g}"


@pytest.mark.parametrize(
    ("method", "power", "digits"),
    [
        ("oracle", 2.0, 1),
        ("basic", 1.9, 1),
        ("half", 1.98, 2),
        ("walk_jump", 1.86, 2),
        ("one_shot_half", 3.76, 2),
        ("one_shot_full", 1.79, 2),
        ("one_shot_second_order", 5.6, 1),
    ],
)
def test_slopes(written: Any, method: str, power: float, digits: int) -> None:
    """The powers between sigma = 0.2 and 0.15, within the error of the fit over more of them."""
    fit = written("noise-corrected-langevin")["numbers"]["slopes"][method]
    assert abs(fit["exponent"] - power) <= fit["error"] + 0.5 * 10**-digits


def mixture_score(x: np.ndarray, noise: float) -> np.ndarray:
    left, right = (
        np.exp(-((x - m) ** 2) / 2 / (v + noise)) / (v + noise) ** 0.5
        for m, v in ((-1, 0.36), (1, 0.25))
    )
    pulls = -(x + 1) / (0.36 + noise), -(x - 1) / (0.25 + noise)
    return (left * pulls[0] + right * pulls[1]) / (left + right)


def mixture_quantile(share: float) -> float:
    def excess(x: float) -> float:
        return (ndtr((x + 1) / 0.6) + ndtr((x - 1) / 0.5)) / 2 - share

    return brentq(excess, -12, 12, xtol=1e-13)


@pytest.mark.parametrize(
    ("method", "level", "readout"), [("oracle", 0.0, 0.0), ("basic", 0.3, 0.0), ("half", 0.3, 0.5)]
)
def test_iterated_chains_by_plain_numpy(
    written: Any, method: str, level: float, readout: float
) -> None:
    """The same law from a matrix of one's own, and quantiles by root finding."""
    mu = 0.3**2 / 2
    x = np.linspace(-8, 8, 801)
    centre = x + mu * mixture_score(x, level**2)
    kernel = (
        np.exp(-((x[:, None] - centre) ** 2) / 4 / mu) * (x[1] - x[0]) / (4 * np.pi * mu) ** 0.5
    )
    weights = np.linalg.matrix_power(kernel, 2**13)[:, 400]
    weights /= weights.sum()
    cdf = ndtr((x[:, None] - centre) / (2 * mu) ** 0.5) @ weights
    ends = x + readout * level**2 * mixture_score(x, level**2)
    counts = weights > 1e-13
    gaps = ends - [mixture_quantile(share) for share in cdf * counts + 0.5 * ~counts]
    expected = np.sqrt((weights[counts] * gaps[counts] ** 2).sum())
    numbers = written("noise-corrected-langevin")["numbers"]
    found = numbers["wasserstein2"][method][numbers["sigmas"].index(0.3)]
    # What is left out weighs 1e-12 and is off by less than 1.
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_long_chain_is_what_the_sampler_does_step_by_step() -> None:
    target, sigma = two_gaussians(), 0.6
    law, length = noise_corrected.long_chain(HalfDenoisingSampler(sigma=sigma, num_steps=2), target)
    data = density_law(target, 0.0, noise_corrected.FINE)
    distances = []
    for factor in (1, 2):
        sampler = HalfDenoisingSampler(sigma=sigma, num_steps=factor * length["steps"])
        chain = GridChain(sampler, target.score, *noise_corrected.ENDS)
        distances.append(chain.run(normal_law(0.0, 1.0, chain.grid)).wasserstein2(data))
    # 9 steps forget by e, so 256 are 28 of them: 1e-12.
    assert distances == pytest.approx([law.wasserstein2(data)] * 2, rel=1e-9)
    assert length["relaxation"] == pytest.approx(9.24, abs=0.01)


def test_averaged_noise_is_exact_on_a_gaussian() -> None:
    target, sigma = GaussianMixtureScore.from_components(1.3, 0.64), 0.6
    law = averaged_noise_law(target, sigma, -9.0, 11.0)
    assert law.mean == pytest.approx(1.3, abs=1e-11)
    assert law.variance == pytest.approx(0.64 + sigma**2, abs=1e-11)


def test_averaged_noise_by_simulation() -> None:
    target, sigma, count = two_gaussians(), 0.6, 40_000
    law = averaged_noise_law(target, sigma, *noise_corrected.ENDS)
    draws = np.random.default_rng(0)
    noise, u = draws.standard_normal((2, count))
    # Nine steps forget by e, as those of half-denoising.
    for _ in range(150):
        old, noise = noise, draws.standard_normal(count)
        u = u + sigma**2 / 2 * mixture_score(u, sigma**2) + sigma / 2 * (old + noise)
    for power in (1, 2, 4):
        expected = law.weights @ law.points**power
        spread = (law.weights @ law.points ** (2 * power) - expected**2) ** 0.5
        assert abs((u**power).mean() - expected) < 4.5 * spread / count**0.5


def test_averaged_noise_needs_all_of_the_range() -> None:
    with pytest.raises(HDZooError, match="take a wider"):
        averaged_noise_law(two_gaussians(), 0.6, -2.0, 2.0)


def test_second_order_denoiser_of_a_gaussian() -> None:
    r""":math:`1 - u / 2 - u^2 / 8` with :math:`u = \sigma^2 / V`."""
    target, sigma = GaussianMixtureScore.from_components(0.5, 0.64), 0.6
    noisy = density_law(target, sigma, np.linspace(-9, 10, 2001))
    law = noise_corrected.second_order(noisy, target, sigma)
    assert law.mean == pytest.approx(0.5, abs=1e-12)
    assert law.variance == pytest.approx((1 - 0.18 - 0.36**2 / 8) ** 2, rel=1e-10)


def test_gaussian_variances(written: Any) -> None:
    numbers = written("noise-corrected-langevin")["numbers"]["gaussian"]
    # Two steps of a few roundings, relative to an eigenvalue that is 1/30 of the largest.
    assert numbers["deviation"] < 1e-13
    # And reached from the noisy data, by a chain long enough for the slowest direction.
    eigenvalues = np.array([1.0, 0.3, 0.1])
    target = Gaussian.of(np.zeros(3), eigenvalues)
    found = noise_corrected.gaussian_data(eigenvalues, 0.6)["variances"]
    for name, sampler in {
        "basic": LangevinSampler(sigma=0.6, step_size=0.18, num_steps=150),
        "half": HalfDenoisingSampler(sigma=0.6, num_steps=150),
    }.items():
        law = exact_law(sampler, target)
        # (1 - 0.18 / 1.36)^(2 * 150) is 3e-19.
        np.testing.assert_allclose(np.diag(law.covariance), found[name], rtol=1e-11)


# ---- half or full -------------------------------------------------------------------------------


def step(y: float, score: float, sigma: float, readout: str) -> float:
    return y + {"none": 0.0, "half": 0.5, "full": 1.0}[readout] * sigma**2 * score


def integral(function: Callable[[float], float], *ends: float) -> float:
    return sum(quad(function, a, b, epsabs=1e-18, limit=200)[0] for a, b in pairwise(ends))


def laplace_by_hand(sigma: float, readout: str) -> float:
    """Quantile coupling on the left half, by an adaptive rule."""

    def gap(y: float) -> float:
        right, left = -y + log_ndtr(y / sigma - sigma), y + log_ndtr(-y / sigma - sigma)
        height = math.exp(sigma**2 / 2) / 2
        density = height * (math.exp(right) + math.exp(left))
        below = ndtr(y / sigma) - height * (math.exp(right) - math.exp(left))
        moved = step(y, -math.tanh((right - left) / 2), sigma, readout)
        return density * (moved - math.log(2 * below)) ** 2

    return math.sqrt(2 * integral(gap, -30, -8, -3, -1, 0))


def points_by_hand(sigma: float, readout: str) -> float:
    def gap(y: float) -> float:
        density = sum(math.exp(-(((y - m) / sigma) ** 2) / 2) for m in (-1, 1))
        score = (math.tanh(y / sigma**2) - y) / sigma**2
        return density * (step(y, score, sigma, readout) - 1) ** 2

    mass = sigma * math.sqrt(2 * math.pi)
    return math.sqrt(integral(gap, 0, 0.1, 0.5, 1, 1 + 9 * sigma) / mass)


def circle_by_hand(sigma: float, readout: str) -> float:
    def gap(r: float) -> float:
        kappa = r / sigma**2
        density = kappa * math.exp(-(((r - 1) / sigma) ** 2) / 2) * ive(0, kappa)
        score = (ive(1, kappa) / ive(0, kappa) - r) / sigma**2
        return density * (step(r, score, sigma, readout) - 1) ** 2

    return math.sqrt(integral(gap, max(0.0, 1 - 9 * sigma), 1, 1 + 9 * sigma))


def uniform_by_hand(sigma: float, readout: str) -> float:
    def gap(y: float) -> float:
        right, left = (y + 1) / sigma, (y - 1) / sigma
        inside = ndtr(right) - ndtr(left)
        slope = norm.pdf(right) - norm.pdf(left)
        # The integral of ndtr is z ndtr(z) + pdf(z).
        below = right * ndtr(right) + norm.pdf(right) - left * ndtr(left) - norm.pdf(left)
        below *= sigma / 2
        moved = step(y, slope / sigma / inside, sigma, readout)
        return inside / 2 * (moved - (2 * below - 1)) ** 2

    # Beyond 7 sigma from the end there is 1e-12 of the mass, and differences lose their digits.
    return math.sqrt(2 * integral(gap, -1 - 7 * sigma, -1, 0))


@pytest.mark.parametrize(
    ("name", "by_hand", "sigma", "expected"),
    [
        ("Laplace", laplace_by_hand, 0.4, {"half": ".0084", "full": ".0609"}),
        ("uniform", uniform_by_hand, 0.1, {"half": ".00614", "full": ".0123"}),
        ("two points", points_by_hand, 0.4, {"half": ".215", "full": ".0767"}),
        ("two points", points_by_hand, 0.3, {"half": ".152", "full": ".0198"}),
        ("two points", points_by_hand, 0.2, {"half": ".1", "full": ".000504"}),
        ("circle", circle_by_hand, 0.2, {"none": ".199", "half": ".101", "full": ".0212"}),
        ("circle", circle_by_hand, 0.1, {"half": ".0501", "full": ".00506"}),
    ],
)
def test_one_step_by_adaptive_quadrature(
    name: str, by_hand: Callable[[float, str], float], sigma: float, expected: dict[str, str]
) -> None:
    found = one_step.curves()[name](sigma)
    for readout, digits in expected.items():
        # Between the points, on the jump of the quantiles, the trapezoidal rule is off by about
        # the spacing squared times the density; that is 1e-4 of the square of 0.0005.
        assert found[readout] == pytest.approx(by_hand(sigma, readout), rel=1e-4)
        assert f"{found[readout]:.3g}" == f"{float(digits):.3g}"


@pytest.mark.parametrize("sigma", [0.05, 0.2, 1.0, 5.0])
def test_one_step_on_gaussian_data(sigma: float) -> None:
    """The formulas; for a subspace they add up over the directions."""
    total = 1 + sigma**2

    def parts(fraction: float) -> tuple[float, float]:
        return abs((total - fraction * sigma**2) / total**0.5 - 1), (1 - fraction) * sigma

    for readout, fraction in {"none": 0.0, "half": 0.5, "full": 1.0}.items():
        along, across = parts(fraction)
        for within, dimension in ((1, 1), (0, 1), (8, 64)):
            eigenvalues = one_step.subspace(dimension, within)
            expected = math.sqrt(within * along**2 + (dimension - within) * across**2)
            found = one_step.on_gaussian(eigenvalues, sigma)[readout]
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_subspace_to_three_digits() -> None:
    found = one_step.on_gaussian(one_step.subspace(64, 8), 0.2)
    assert {k: f"{v:.3g}" for k, v in found.items()} == {
        "none": "1.5",
        "half": "0.748",
        "full": "0.0549",
    }
    assert found["none"] == pytest.approx(1.498, abs=5e-4)


def test_powers_of_one_step(written: Any) -> None:
    """What theory says, within the error of the fit and the curvature that is left at 0.05."""
    slopes = written("half-or-full-denoising")["numbers"]["slopes"]
    for name, powers in {
        "uniform": (1.5, 1.5),
        "Gaussian": (4, 2),
        "Laplace": (2.5, 2),
        "circle": (1, 2),
        "subspace": (1, 2),
    }.items():
        for readout, power in zip(("half", "full"), powers, strict=True):
            fit = slopes[name][readout]
            assert abs(fit["exponent"] - power) < 4 * fit["error"] + 0.1, (name, readout)
    # Between 0.8 and 0.4 the Laplace law is not there yet.
    curve = one_step.curves()["Laplace"]
    wide = [curve(sigma) for sigma in (0.8, 0.6, 0.4)]
    for readout, power in {"half": 2.25, "full": 1.7}.items():
        fit = power_law((0.8, 0.6, 0.4), [distances[readout] for distances in wide])
        assert fit.exponent == pytest.approx(power, abs=0.1)


def test_two_points_far_apart() -> None:
    """The full step is off by exp(-1 / 4 sigma^2), with the constant of the docstring."""
    for sigma, tolerance in ((0.2, 0.01), (0.15, 0.005)):
        expected = (4 - math.pi) * sigma * math.exp(-0.5 / sigma**2) / math.sqrt(2 * math.pi)
        found = one_step.curves()["two points"](sigma)["full"]
        assert found == pytest.approx(math.sqrt(expected), rel=tolerance)


def test_mmd_of_gaussians() -> None:
    r""":math:`E k(x, y) = (1 + v + w)^{-1/2}` for variances v and w."""
    target, sigma = GaussianMixtureScore.from_components(0.0, 1.0), 0.4
    total = 1 + sigma**2
    for readout, fraction in {"none": 0.0, "half": 0.5, "full": 1.0}.items():
        variance = (total - fraction * sigma**2) ** 2 / total
        square = (1 + 2 * variance) ** -0.5 + 3**-0.5 - 2 * (2 + variance) ** -0.5
        found = one_step.mmd(target, 9.5, sigma)[readout]
        assert found == pytest.approx(math.sqrt(square), rel=1e-6)


def test_crossings(written: Any) -> None:
    found = written("half-or-full-denoising")["numbers"]["crossings"]
    assert found["sigma"]["Gaussian"] == pytest.approx(2 * math.sqrt(2), rel=1e-8)
    # Far apart, each of two wide points is a Gaussian.
    assert found["width"]["two points"][0] == pytest.approx(0.1 / math.sqrt(8), rel=1e-6)
    for name, by_hand in {"uniform": uniform_by_hand, "Laplace": laplace_by_hand}.items():
        sigma = found["sigma"][name]
        assert by_hand(sigma, "half") == pytest.approx(by_hand(sigma, "full"), rel=1e-4)
    low, high = found["circle"]
    for sigma in (low, high):
        assert circle_by_hand(sigma, "half") == pytest.approx(
            circle_by_hand(sigma, "full"), rel=1e-4
        )
    assert circle_by_hand(1.12, "half") < circle_by_hand(1.12, "full")
    assert half_or_full.balance(one_step.on_a_circle(0.0, 1.12)) < 0
