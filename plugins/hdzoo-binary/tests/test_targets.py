"""Laws on signs: samples, moments, densities, and what is refused."""

import itertools
import math

import pytest
import torch
from hdzoo_binary import exact
from hdzoo_binary.targets import SignsMixtureScore, independent_signs, ising, signs_mixture

from hdzoo import HDPipeline, HDZooError, plugins
from hdzoo.targets import AnalyticScore, GaussianMixtureScore

NAMES = {"independent-signs": 6, "signs-mixture": 8, "ising": 9}


@pytest.mark.parametrize("name", NAMES)
def test_registered(name: str) -> None:
    model = plugins.get("targets", name)()
    assert isinstance(model, AnalyticScore)
    assert model.dimension == NAMES[name]


@pytest.mark.parametrize("target", [independent_signs, signs_mixture, ising])
def test_against_the_mixture_of_all_points(target) -> None:
    """hdzoo's point masses, on all points, are the same law."""
    model = target()
    points = exact.states(model.dimension)
    law = ((1 + points[:, None] * model.means) / 2).prod(2) @ model.weights
    listed = GaussianMixtureScore.from_components(points, 0.0, law)
    x = torch.randn(5, model.dimension, generator=torch.Generator().manual_seed(0)).double()
    sigma = torch.tensor([0.5, 0.8, 1.0, 2.0, 5.0])
    for name in ("log_density", "score", "denoise", "posterior_covariance"):
        found, expected = (getattr(one, name)(x, sigma) for one in (model, listed))
        # Numbers up to 100, in float64.
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    for name in ("mean", "covariance"):
        torch.testing.assert_close(getattr(model, name), getattr(listed, name))


def test_score_is_the_gradient() -> None:
    model = signs_mixture()
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    (gradient,) = torch.autograd.grad(model.log_density(x, 0.7).sum(), x)
    torch.testing.assert_close(model.score(x.detach(), 0.7), gradient)


@pytest.mark.parametrize("target", [signs_mixture, ising])
def test_samples(target) -> None:
    model, count = target(), 50_000
    samples = model.sample(count, torch.Generator().manual_seed(0))
    assert samples.abs().eq(1).all()
    # Five standard errors of a mean of numbers in [-1, 1].
    assert (samples.mean(0) - model.mean).abs().max() < 5 / count**0.5
    moments = samples.T @ samples / count
    second = model.covariance + model.mean.outer(model.mean)
    assert (moments - second).abs().max() < 5 / count**0.5
    noisy = model.sample(count, torch.Generator().manual_seed(0), sigma=0.3)
    assert (noisy - samples).std().item() == pytest.approx(0.3, rel=0.02)


def test_ising_by_its_definition() -> None:
    """Neighbours on a ring of two are counted twice, one in each direction."""
    model = ising(side=2, coupling=0.25, field=0.15)
    law = []
    for a, b, c, d in itertools.product((-1, 1), repeat=4):
        bonds = 2 * (a * b + c * d + a * c + b * d)
        law.append(math.exp(0.25 * bonds + 0.15 * (a + b + c + d)))
    expected = torch.tensor(law, dtype=torch.float64) / sum(law)
    found = ((1 + exact.states(4)[:, None] * model.means) / 2).prod(2) @ model.weights
    torch.testing.assert_close(found, expected)


def test_pipeline_draws_from_it(tmp_path) -> None:
    sampler = plugins.get_sampler("two-stage-discrete-langevin")(sigma=1.5)
    pipe = HDPipeline(signs_mixture(), sampler)
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(tmp_path)
    loaded = HDPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    drawn = [
        one(batch_size=3, generator=torch.Generator().manual_seed(0)).images
        for one in (pipe, loaded)
    ]
    assert torch.equal(*drawn)
    assert drawn[0].abs().eq(1).all()


def test_what_is_refused() -> None:
    for call, said in (
        (lambda: SignsMixtureScore.from_components([0.5, 0.1]), "shape \\(2,\\); they must be"),
        (lambda: SignsMixtureScore.from_components([[1.5]]), "numbers from -1 to 1"),
        (lambda: SignsMixtureScore.from_components([[0.5]], [0.0]), "1 positive numbers"),
        (lambda: SignsMixtureScore.from_law([0.2, 0.3, 0.5]), r"shape \(3,\); they must be \(2\^d"),
        (lambda: SignsMixtureScore.from_law([0.0, 0.0]), "not all 0"),
        (lambda: SignsMixtureScore.from_law([-1.0, 2.0]), "none negative"),
        (lambda: ising(side=4), "side is 4; it must be 2 or 3"),
        (lambda: signs_mixture().score(torch.zeros(2, 3), 1.0), r"shape \(2, 3\)"),
        (lambda: signs_mixture().score(torch.zeros(2, 8), 0.0), "sigma is 0"),
        (lambda: signs_mixture().score(torch.zeros(2, 8), torch.ones(3)), "3 noise levels"),
        (lambda: signs_mixture().score(torch.zeros(2, 8).long(), 1.0), "x is a Tensor"),
    ):
        with pytest.raises(HDZooError, match=said):
            call()
