"""The probability flow by scipy's adaptive solver."""

import math

import pytest
import torch
from hdzoo_reverse_diffusion.adaptive import score_of, solve

from hdzoo import HDPipeline, HDZooError, get_sampler
from hdzoo.targets import GaussianMixtureScore

STD, MEAN = 0.8, 1.3
MODEL = GaussianMixtureScore.from_components([[MEAN, MEAN]], STD**2)


def first(batch: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return MEAN + 3.0 * torch.randn(batch, 2, generator=rng, dtype=torch.float64)


def test_on_gaussian_data() -> None:
    """The flow keeps quantiles: x - m is scaled by the standard deviations at its two ends."""
    x = first(4)
    found = solve(MODEL.score, x, 3.0, 0.1, rtol=1e-9, atol=1e-9, denoise=False)
    ratio = math.sqrt((STD**2 + 0.01) / (STD**2 + 9.0))
    torch.testing.assert_close(found.samples - MEAN, ratio * (x - MEAN), rtol=0, atol=1e-8)
    denoised = solve(MODEL.score, x, 3.0, 0.1, rtol=1e-9, atol=1e-9)
    assert denoised.evaluations == [count + 1 for count in found.evaluations]
    shrunk = STD**2 / (STD**2 + 0.01)
    expected = MEAN + shrunk * (found.samples - MEAN)
    torch.testing.assert_close(denoised.samples, expected, rtol=0, atol=1e-12)


def test_each_image_is_its_own() -> None:
    x = first(3)
    alone, among = solve(MODEL.score, x[:1], 3.0, 0.1), solve(MODEL.score, x, 3.0, 0.1)
    torch.testing.assert_close(alone.samples, among.samples[:1], rtol=0, atol=1e-14)
    together = solve(MODEL.score, x, 3.0, 0.1, together=True)
    assert not torch.equal(together.samples[:1], alone.samples)
    assert len(set(together.evaluations)) == 1


def test_the_budget() -> None:
    x = first(1)
    (spent,) = solve(MODEL.score, x, 3.0, 0.1).evaluations
    solve(MODEL.score, x, 3.0, 0.1, max_evaluations=spent)
    with pytest.raises(HDZooError, match="max_evaluations is 20, and at noise level"):
        solve(MODEL.score, x, 3.0, 0.1, rtol=1e-8, atol=1e-8, max_evaluations=20)
    with pytest.raises(HDZooError, match="must be below sigma_max"):
        solve(MODEL.score, x, 0.1, 3.0)


@pytest.mark.parametrize("prediction_type", ["score", "epsilon", "sample"])
def test_the_score_of_a_pipeline(prediction_type: str) -> None:
    """Whatever its network predicts."""

    class Network(GaussianMixtureScore):
        def forward(self, sample, timestep, return_dict=True, **kwargs):
            sigma = float(timestep)
            score = self.score(sample, sigma)
            told = {
                "score": score,
                "epsilon": -sigma * score,
                "sample": sample + sigma**2 * score,
            }
            return (told[prediction_type],)

    sampler = get_sampler("probability-flow")(prediction_type=prediction_type)
    pipe = HDPipeline(Network.from_components([[MEAN, MEAN]], STD**2), sampler)
    x = first(4)
    torch.testing.assert_close(score_of(pipe)(x, 0.7), MODEL.score(x, 0.7), rtol=1e-9, atol=1e-12)
