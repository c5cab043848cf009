"""Diagnostics of chains against autoregressions, whose autocorrelations are known."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.signal import lfilter

from hdzoo import HDZooError
from hdzoo.distances.chains import (
    effective_sample_size,
    integrated_autocorrelation_time,
    split_rhat,
)


def autoregression(rho: float, num_chains: int, num_steps: int, seed: int = 0) -> Any:
    """Stationary chains ``x' = rho x + sqrt(1 - rho^2) z``, of variance 1."""
    noise = np.random.default_rng(seed).normal(size=(num_chains, num_steps))
    noise[:, 1:] *= (1 - rho**2) ** 0.5
    return lfilter([1.0], [1.0, -rho], noise)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
def test_autocorrelation_time_of_an_autoregression(rho: float) -> None:
    chains = autoregression(rho, 4, 20_000)
    expected = (1 + rho) / (1 - rho)
    # Summing to lag w leaves the relative variance 2 (2 w + 1) / N (Sokal 1997, equation 3.19);
    # Geyer's sequence ends where |rho|^w is lost in N^(-1/2) of noise. 4 standard errors.
    last_lag = max(1.0, np.log(chains.size) / (2 * np.log(1 / max(abs(rho), 1e-9))))
    tolerance = 4 * (2 * (2 * last_lag + 1) / chains.size) ** 0.5
    assert tolerance < 0.25
    found = integrated_autocorrelation_time(chains)
    # Where rho is negative the pairs nearly cancel, so the error is that of their parts.
    assert found == pytest.approx(expected, abs=tolerance * max(expected, 1.0))
    assert effective_sample_size(chains) * found == pytest.approx(chains.size, rel=1e-14)


def test_autocorrelation_time_is_the_variance_of_the_mean() -> None:
    """What it is for: the mean of N steps has the variance tau / N."""
    chains = autoregression(0.8, 1000, 500, seed=1)
    # tau is 9 up to 2 rho / (1 - rho)^2 / N = 40 / 500 at the ends. A variance from 1000 means is
    # known to sqrt(2 / 1000); 4 of them.
    variance = chains.mean(1).var() * 500
    assert variance == pytest.approx(9, rel=0.01 + 4 * (2 / 1000) ** 0.5)
    # As before, but the chains' own means are taken off half chains of 28 tau: 1/28 too low.
    found = integrated_autocorrelation_time(chains)
    assert found == pytest.approx(9, rel=1 / 28 + 4 * (2 * 61 / chains.size) ** 0.5)


def test_split_rhat_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    for chains in (rng.standard_cauchy((3, 50)), rng.normal(size=(4, 31)) * [[1], [1], [2], [3]]):
        half = chains.shape[1] // 2
        halves = np.concatenate([chains[:, :half], chains[:, -half:]])
        values = []
        for quantity in (halves, np.abs(halves - np.median(halves))):
            ranks = stats.rankdata(quantity).reshape(quantity.shape)
            scores = stats.norm.ppf((ranks - 3 / 8) / (quantity.size + 1 / 4))
            within = scores.var(1, ddof=1).mean()
            between = scores.mean(1).var(ddof=1)
            values.append(((half - 1) / half + between / within) ** 0.5)
        # The same operations but for the order of sums.
        assert split_rhat(chains) == pytest.approx(max(values), rel=1e-13)


def test_split_rhat_tells_agreement() -> None:
    chains = autoregression(0.5, 4, 4000)
    # B / W of 8 half chains of ESS n = 667 is 1 / n, with relative variance 2 / 7; the larger of
    # two such, 4 standard errors: 1 + (1 + 4 * 0.53) / (2 * 667).
    assert 1 - 1e-3 < split_rhat(chains) < 1 + 3.2 / (2 * 667)
    # At 0, 3, 6 and 9 the variance between the chains is 15, so that R-hat is 4 but for the ranks.
    assert split_rhat(chains + 3 * np.arange(4)[:, None]) > 1.5
    # Of equal location, but a hundred times as wide: seen by the folded ranks.
    assert split_rhat(chains * 10.0 ** np.arange(4)[:, None]) > 1.5
    # A chain whose halves differ: seen by splitting.
    drifting = chains + np.where(np.arange(4000) < 2000, 0.0, 5.0)
    assert split_rhat(drifting) > 1.5
    assert split_rhat(np.repeat([[1.0], [2.0]], 20, axis=1)) == np.inf


@pytest.mark.parametrize(
    "diagnostic", [effective_sample_size, integrated_autocorrelation_time, split_rhat]
)
def test_quantities_are_treated_one_by_one(diagnostic: Any) -> None:
    columns = [autoregression(rho, 3, 301, seed=i) for i, rho in enumerate((0.0, 0.6, 0.9))]
    expected = [diagnostic(column) for column in columns]
    together = diagnostic(np.stack(columns, -1))
    assert together.shape == (3,)
    assert expected[0].shape == ()
    np.testing.assert_allclose(together, expected, rtol=1e-12)
    # Units do not matter, however small. Powers of two, as ties of ranks hang on roundings.
    scaled = np.stack(columns, -1) * [2.0**-100, 2.0, -(2.0**100)]
    np.testing.assert_allclose(diagnostic(scaled), expected, rtol=1e-12)
    # Of the same numbers as a tensor in single precision, the same.
    single = torch.from_numpy(np.stack(columns, -1)).float()
    np.testing.assert_array_equal(diagnostic(single), diagnostic(single.double().numpy()))


def test_one_chain_has_a_sample_size() -> None:
    found = effective_sample_size(autoregression(0.5, 1, 50_000))
    # As in the first test: w = 8.
    assert found == pytest.approx(50_000 / 3, rel=4 * (2 * 17 / 50_000) ** 0.5)
    with pytest.raises(HDZooError, match=r"shape \(1, 50\).*at least 2 chain"):
        split_rhat(np.zeros((1, 50)))


@pytest.mark.parametrize(
    "diagnostic", [effective_sample_size, integrated_autocorrelation_time, split_rhat]
)
def test_bad_chains(diagnostic: Any) -> None:
    noise = np.random.default_rng(0).normal(size=(4, 20, 2))
    for bad in (noise[0, 0], noise[None], noise[:, :9], noise[:0], np.float64(1)):
        with pytest.raises(HDZooError, match="chains have shape"):
            diagnostic(bad)
    broken = noise.copy()
    broken[1, 2, 0], broken[2, 3, 1] = np.nan, np.inf
    with pytest.raises(HDZooError, match="chains has 2 of 160 values that are not finite"):
        diagnostic(broken)
    with pytest.raises(HDZooError, match="quantity 1 is constant"):
        diagnostic(noise * [1.0, 0.0])
    with pytest.raises(HDZooError, match="the chain is constant"):
        diagnostic(np.full((4, 20), 0.1))


@pytest.mark.parametrize("diagnostic", [effective_sample_size, integrated_autocorrelation_time])
def test_one_chain_that_hardly_moves_is_worth_nothing_that_can_be_told(diagnostic: Any) -> None:
    chains = np.random.default_rng(0).normal(size=(4, 40))
    for jump, said in ((40, "stands still"), (30, "moves once"), (20, "stands still")):
        stuck = chains.copy()
        stuck[2] = np.arange(40) >= jump
        # At 20, the halves are taken for chains of their own, and neither moves.
        with pytest.raises(HDZooError, match=f"chain 2 {said} within the halves of its 40 steps"):
            diagnostic(stuck)
    both = np.stack([chains, stuck], 2)
    with pytest.raises(HDZooError, match="chain 2 stands still in quantity 1"):
        diagnostic(both)


def test_chains_that_stand_still_apart_disagree() -> None:
    """Within no variance, between some: the quotient is infinite."""
    apart = np.repeat([[0.0], [0.0], [0.0], [1.0]], 40, 1)
    assert split_rhat(apart) == np.inf
    jump = np.zeros((4, 40))
    jump[0, 20:] = 1
    assert split_rhat(jump) == np.inf
    jump[0, 19] = 1
    with pytest.raises(HDZooError, match="every chain moves once within the halves"):
        split_rhat(jump)
    with pytest.raises(HDZooError, match="the chain is constant"):
        split_rhat(np.zeros((4, 40)))
    # One that stands still, among others that move.
    chains = np.random.default_rng(0).normal(size=(4, 40))
    chains[0] = 3
    assert split_rhat(chains) > 1.3
