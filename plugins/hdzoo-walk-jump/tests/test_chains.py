"""Many jumps along one walk: their law, and what is said of how they mix."""

import numpy as np
import pytest
import torch
from hdzoo_walk_jump.chains import chain_rows, many_jumps, mixing
from hdzoo_walk_jump.samplers import OverdampedWalkJumpSampler, WalkJumpSampler

from hdzoo import GaussianMixtureScore, HDPipeline, HDZooError, wrap


def quiet(pipe: HDPipeline) -> HDPipeline:
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("sampler", [WalkJumpSampler, OverdampedWalkJumpSampler])
def test_jumps_of_a_denoiser_at_a_single_level(
    sampler: type[WalkJumpSampler] | type[OverdampedWalkJumpSampler],
) -> None:
    """Data N(1, 1) and noise of variance 1: V = 2, and the jumps' variance is s^4 / V = 1 / 2.

    With alpha = 1/2 an overdamped step makes the walk's wider by 1 / (1 - alpha / 2V) = 8/7, and
    keeps 1 - alpha / V = 3/4 of the distance: five of them 0.237.
    """

    def denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        assert (sigma == 1).all()
        return (x + 1) / 2

    network = wrap(denoiser, sigma_min=1.0, sigma_max=1.0, sample_shape=(1,))
    pipe = quiet(HDPipeline(network, sampler(sigma=1.0, step_size=0.5, prediction_type="sample")))
    jumps = many_jumps(pipe, num_chains=400, num_jumps=30, steps_per_jump=5)
    assert jumps.shape == (400, 30, 1)
    late, overdamped = jumps[:, 5:].double(), sampler is OverdampedWalkJumpSampler
    variance = 0.5 * (8 / 7 if overdamped else 1)
    # 10,000 jumps, worth more than 5,000 by their correlation; 5 standard errors.
    assert late.mean().item() == pytest.approx(1, abs=5 * (variance / 5000) ** 0.5)
    assert late.var().item() == pytest.approx(variance, abs=5 * variance * (2 / 5000) ** 0.5)
    found = mixing(late)
    if overdamped:
        # Over 25 jumps each; the standard error of a correlation is about 0.01.
        expected = 0.75 ** (5 * np.arange(4))
        assert found.autocorrelation[:4, 0] == pytest.approx(expected, abs=0.05)
    assert found.split_rhat.item() < 1.1
    # An underdamped walk swings: its jumps may be worth more than independent ones.
    assert 4000 < found.effective_sample_size.item() < 16000


def test_chains_that_stay_in_their_modes() -> None:
    target = GaussianMixtureScore.from_components([[-5.0], [5.0]], 0.1)
    pipe = quiet(HDPipeline(target, WalkJumpSampler(sigma=0.5)))
    found = mixing(many_jumps(pipe, num_chains=8, num_jumps=20, steps_per_jump=3))
    # Of chains that agree it is below 1.01.
    assert found.split_rhat.item() > 1.2
    assert found.effective_sample_size.item() < 16
    assert found.autocorrelation[10].item() > 0.9
    assert set(found.to_dict()) == {"autocorrelation", "effective_sample_size", "split_rhat"}


def test_chains_do_not_depend_on_one_another() -> None:
    target = GaussianMixtureScore.from_components([[-1.0], [1.0]], 0.1)
    pipe = quiet(HDPipeline(target, WalkJumpSampler(sigma=0.5)))
    many, few = (many_jumps(pipe, n, 3, steps_per_jump=2, seed=4) for n in (5, 2))
    torch.testing.assert_close(many[:2], few)


def test_a_row_for_each_chain() -> None:
    def denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return 0.5 * x

    network = wrap(
        denoiser, sigma_min=0.1, sigma_max=1.0, sample_shape=(1, 2, 3), data_range=(0.0, 1.0)
    )
    jumps = torch.arange(8).view(2, 4, 1, 1, 1).expand(2, 4, 1, 2, 3) / 7
    picture = chain_rows(
        HDPipeline(network, WalkJumpSampler(prediction_type="sample")), jumps, scale=1
    )
    assert picture.size == (4 * 3, 2 * 2)
    assert np.asarray(picture)[::2, ::3].tolist() == [[0, 36, 73, 109], [146, 182, 219, 255]]


def test_too_few_are_refused() -> None:
    with pytest.raises(HDZooError, match=r"the number of chains is 1; .* at least 2"):
        mixing(torch.zeros(1, 20, 1))
    with pytest.raises(HDZooError, match=r"the number of jumps of a chain is 9; .* at least 10"):
        mixing(torch.zeros(2, 9, 1))
    target = GaussianMixtureScore.from_components(0.0, 1.0)
    with pytest.raises(HDZooError, match="steps_per_jump is 0"):
        many_jumps(HDPipeline(target, WalkJumpSampler()), 2, 2, steps_per_jump=0)
