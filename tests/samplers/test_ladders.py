"""Noise ladders and step sizes against numpy, published numbers and their defining equations."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from hdzoo import ConsistentAnnealedSampler, HDZooError
from hdzoo.samplers.ladders import (
    check_ladder,
    churned_ladder,
    geometric_ladder,
    langevin_step_sizes,
    ncsnv2_num_levels,
    ncsnv2_sigma_max,
    ncsnv2_step_size,
    refine_ladder,
    share_steps,
)

# Published settings of NCSNv2: sigma_1, levels, T, and the step size by technique 4. (That of
# church, 140, 788, 4 and 4.9e-6, is not by technique 4, which makes it 2.3e-6.)
PUBLISHED = {
    "cifar10": (50, 232, 5, 6.2e-6),
    "celeba64": (90, 500, 5, 3.3e-6),
    "bedroom": (190, 1086, 3, 1.8e-6),
    "ffhq": (348, 2311, 3, 9e-7),
}


@pytest.mark.parametrize(
    ("sigma_max", "sigma_min", "num_levels"), [(1, 0.01, 10), (348, 1e-3, 999)]
)
def test_geometric_is_numpys(sigma_max: float, sigma_min: float, num_levels: int) -> None:
    ladder = geometric_ladder(sigma_max, sigma_min, num_levels)
    # exp(y) errs by the rounding of y, |y| <= 13, so by 13 * 1e-16, and numpy's as much.
    np.testing.assert_allclose(ladder, np.geomspace(sigma_max, sigma_min, num_levels), rtol=5e-15)
    assert (ladder[0], ladder[-1]) == (sigma_max, sigma_min)


def test_single_level_is_the_smallest() -> None:
    assert geometric_ladder(3.0, 0.1, 1) == [0.1]
    assert list(refine_ladder([3.0, 0.1], 1)) == [0.1]


@pytest.mark.parametrize("num_levels", [2, 5, 10, 19, 1000])
def test_refined_geometric_is_geometric(num_levels: int) -> None:
    refined = refine_ladder(geometric_ladder(3, 0.1, 10), num_levels)
    # As above: a few roundings of the logarithm, of size 2e-16 each.
    np.testing.assert_allclose(refined, np.geomspace(3, 0.1, num_levels), rtol=5e-15)


def test_refinement_keeps_the_levels() -> None:
    ladder = [5.0, 2.0, 1.5, 0.3]
    refined = refine_ladder(ladder, 10)
    np.testing.assert_allclose(refined[::3], ladder, rtol=1e-15)
    # Between two of them it is geometric.
    ratios = [below / above for above, below in pairwise(refined)]
    expected = np.repeat([(b / a) ** (1 / 3) for a, b in pairwise(ladder)], 3)
    np.testing.assert_allclose(ratios, expected, rtol=1e-14)


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0, 1000.0])
@pytest.mark.parametrize("num_levels", [2, 3, 18])
def test_refined_by_karras(rho: float, num_levels: int) -> None:
    """Equation 5 of Karras et al., as they write it."""
    share = np.arange(num_levels) / (num_levels - 1)
    expected = (80 ** (1 / rho) + share * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    # Roundings of 1e-16 of the largest root, relative to the smallest; the power multiplies by rho.
    rounding = {"rtol": 5e-16 * rho * (80 / 0.002) ** (1 / rho)}
    refined = refine_ladder([80.0, 0.002], num_levels, rho)
    np.testing.assert_allclose(refined, expected, **rounding)
    assert (refined[0], refined[-1]) == (80.0, 0.002)
    # A ladder of the same kind keeps its kind, and any other its levels.
    np.testing.assert_allclose(refine_ladder(refined, 2 * num_levels - 1, rho)[::2], refined)
    kept = refine_ladder([5.0, 2.0, 1.5, 0.3], 3 * 4 - 2, rho)[::3]
    np.testing.assert_allclose(kept, [5.0, 2.0, 1.5, 0.3], **rounding)


def test_churn() -> None:
    """Algorithm 2 of Karras et al., but that no level is raised above the first."""
    sigmas = [5.0, 4.0, 2.0, 1.0, 0.5]
    assert churned_ladder(sigmas, 0.0) == sigmas
    assert churned_ladder(sigmas, 1.0, 0.6, 4.5) == [5.0, 4.8, 2.4, 1.2, 0.5]
    # At most by the square root of 2, which is twice the variance.
    root = math.sqrt(2)
    assert churned_ladder(sigmas, 100.0) == pytest.approx([5, 5, 2 * root, root, root / 2])


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ([], "no noise level"),
        ([1.0, 2.0], "from 1 to 2; noise levels descend"),
        ([1.0, 1.0], "from 1 to 1; noise levels descend"),
        ([1.0, 0.0], r"holds 0\.0; noise levels are finite and positive"),
        ([1.0, -0.5], r"holds -0\.5"),
        ([1.0, math.nan], "holds nan"),
        ([math.inf, 1.0], "holds inf"),
    ],
)
def test_bad_ladder(sigmas: list[float], message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        check_ladder(sigmas)
    with pytest.raises(HDZooError, match=message):
        refine_ladder(sigmas, 5)


@pytest.mark.parametrize(
    ("sigma_max", "sigma_min", "num_levels"),
    [(1, 2, 5), (1, 1, 5), (1, 0, 5), (1, -1, 5), (math.nan, 1, 5), (math.inf, 1, 5), (2, 1, 0)],
)
def test_bad_geometric_ladder(sigma_max: float, sigma_min: float, num_levels: int) -> None:
    with pytest.raises(HDZooError, match=r"sigma_max is|sigma_min is|num_levels is 0"):
        geometric_ladder(sigma_max, sigma_min, num_levels)


def test_one_level_cannot_be_refined() -> None:
    with pytest.raises(HDZooError, match=r"1 level.* resampled to 3"):
        refine_ladder([1.0], 3)


def test_share_steps() -> None:
    assert list(share_steps(10, 4)) == [2, 2, 3, 3]
    for num_levels in range(1, 12):
        for num_steps in range(num_levels, 60):
            counts = share_steps(num_steps, num_levels)
            # Even to within one, the rest where the noise is small: these say it all.
            assert (len(counts), sum(counts)) == (num_levels, num_steps)
            assert list(counts) == sorted(counts)
            assert counts[-1] - counts[0] <= 1


def test_langevin_step_sizes() -> None:
    """NCSN's epsilon of 2e-5 at 0.01 is 0.2 sigma^2 on every level."""
    ladder = geometric_ladder(1, 0.01, 10)
    expected = [0.2 * sigma**2 for sigma in ladder]
    # Five roundings of 1e-16.
    np.testing.assert_allclose(langevin_step_sizes(ladder, 2e-5), expected, rtol=1e-15)


def test_technique_1_is_the_largest_distance() -> None:
    points = torch.randn(150, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = pdist(points.flatten(1).double().numpy()).max()
    # torch.cdist in float32 takes a root of a difference of squares: 60 terms of 6e-8.
    assert ncsnv2_sigma_max(points, chunk_size=64) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("dimension", "ratio"), [(3072, 1.0398), (64, 1.3608)])
def test_technique_2(dimension: int, ratio: float) -> None:
    # Over a range of 1000 ratios, the number of levels gives the ratio to half its last digit.
    num_levels = ncsnv2_num_levels(ratio**1000, 1.0, dimension)
    slack = 1000 * 5e-5 / (ratio * math.log(ratio))
    assert abs(num_levels - 1001) <= slack + 0.5
    assert slack < 2


def test_technique_2_on_cifar10() -> None:
    """A ratio of 1.0398 from 50 to 0.01 makes ln 5000 / ln 1.0398 + 1 = 219 levels."""
    assert abs(ncsnv2_num_levels(50, 0.01, 3072) - 219) <= 1


def test_technique_2_has_no_solution_in_few_dimensions() -> None:
    with pytest.raises(HDZooError, match="no solution in dimension 4"):
        ncsnv2_num_levels(1, 0.1, 4)
    assert ncsnv2_num_levels(1, 0.1, 5) >= 2


@pytest.mark.parametrize("name", PUBLISHED)
def test_technique_4_is_the_published_step_size(name: str) -> None:
    sigma_max, num_levels, steps_per_level, published = PUBLISHED[name]
    step_size = ncsnv2_step_size(geometric_ladder(sigma_max, 0.01, num_levels), steps_per_level)
    # Half of the last of the two digits printed.
    assert step_size == pytest.approx(published, abs=5e-8, rel=0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_technique_4_minimises(name: str) -> None:
    """No other step brings the variance after a level nearer to the level's own."""
    sigma_max, num_levels, steps, _ = PUBLISHED[name]
    ladder = geometric_ladder(sigma_max, 0.01, num_levels)
    eta = ncsnv2_step_size(ladder, steps) / 0.01**2
    gamma = ladder[0] / ladder[1]

    def gap(eta: float) -> float:
        variance = gamma**2
        for _ in range(steps):  # the Langevin step on a single point, in units of sigma^2
            variance = (1 - eta) ** 2 * variance + 2 * eta
        return abs(variance - 1)

    # Flat at the minimum: an error of 1e-8 in eta adds less than 1e-14.
    assert gap(eta) <= min(gap(other) for other in np.linspace(0.0, 1.0, 2001)) + 1e-12


def test_technique_4_needs_two_levels() -> None:
    with pytest.raises(HDZooError, match="at least 2"):
        ncsnv2_step_size([0.1], 5)


@pytest.mark.parametrize(("eta", "steps"), [(0.03, 100), (0.3, 5), (1.9, 3)])
def test_a_refusal_says_how_many_steps_would_do(eta, steps):
    options = {"sigma_max": 5.0, "sigma_min": 0.01, "step_size": eta * 0.01**2}
    with pytest.raises(HDZooError, match="at least") as caught:
        ConsistentAnnealedSampler(**options).set_timesteps(steps)
    # On a geometric ladder of n levels the ratio is 500^(-1 / (n - 1)), at least |1 - eta|.
    enough = 1 + math.ceil(math.log(1 / 500) / math.log(abs(1 - eta)))
    assert str(caught.value).endswith(f", or at least {enough} steps")
    sampler = ConsistentAnnealedSampler(**options | {"num_levels": enough})
    sampler.set_timesteps(enough)
    with pytest.raises(HDZooError, match="eta"):
        sampler.set_timesteps(enough - 1)


def test_where_no_number_of_steps_would_do_none_is_named():
    with pytest.raises(HDZooError, match=r"eta = 2\.5") as caught:
        ConsistentAnnealedSampler(sigma_max=5.0, sigma_min=0.01, step_size=2.5e-4)
    assert "steps" not in str(caught.value)
