"""The posterior of an image, and of states of VP networks, by pipelines."""

import json
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from PIL import Image

from hdzoo import GaussianMixtureScore, HDPipeline, HDZooError, PosteriorCovariance, get_sampler
from hdzoo.pipelines.posterior import image_posterior
from hdzoo.pipelines.posterior_picture import SIGMA, posterior_figure
from hdzoo.scores.conversions import from_score

KINDS = ("epsilon", "v_prediction", "sample")


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def mixture(shape: tuple[int, ...] = (1, 2, 2), data_range: Any = None) -> GaussianMixtureScore:
    d = int(np.prod(shape))
    means, spread = 0.5 + 0.2 * randn(2, d, seed=1), 0.02 + 0.05 * randn(2, d, seed=2) ** 2
    return GaussianMixtureScore.from_components(
        means, spread, [0.3, 0.7], sample_shape=shape, data_range=data_range
    )


class DDPMNetwork(ModelMixin, ConfigMixin):
    """What a `UNet2DModel` would predict in VP coordinates, had it learned a mixture; the second
    half of its channels is a learned variance, if it has one."""

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        kind: str = "epsilon",
        learns_variance: bool = False,
        sample_size: tuple[int, int] = (2, 2),
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.table = diffusers.DDPMScheduler().alphas_cumprod.double()

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, return_dict: bool = True
    ) -> Any:
        alpha_bar = float(self.table[timestep])
        sigma = ((1 - alpha_bar) / alpha_bar) ** 0.5
        score = mixture().score(sample / alpha_bar**0.5, sigma)
        output = from_score(score, sample, sigma, self.config.kind, "vp")
        if self.config.learns_variance:
            output = torch.cat([output, sample], 1)
        return (output,)


def vp_pipeline(kind: str, variance: bool = False) -> HDPipeline:
    options = {"variance_type": "learned"} if variance else {}
    config = diffusers.DDPMScheduler(prediction_type=kind, **options).config
    sampler = get_sampler("consistent-annealed-sampling").from_config(config)
    return HDPipeline(DDPMNetwork(kind, variance), sampler)


def level(step: int) -> float:
    """The noise level of a timestep, in VE coordinates."""
    alpha_bar = diffusers.DDPMScheduler().alphas_cumprod.double()[step].item()
    return ((1 - alpha_bar) / alpha_bar) ** 0.5


@pytest.mark.parametrize(("kind", "variance"), [*((k, False) for k in KINDS), ("epsilon", True)])
def test_a_vp_network_has_the_posterior_of_the_ve_one(kind: str, variance: bool) -> None:
    pipe, sigma = vp_pipeline(kind, variance), level(300)
    x = mixture().sample(3, sigma=sigma).double()
    posterior = PosteriorCovariance(pipe.denoise, x, sigma)
    close = {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(posterior.mean, mixture().denoise(x, sigma), **close)
    exact = mixture().posterior_covariance(x, sigma)
    torch.testing.assert_close(posterior.matrix(), exact, **close)


def test_a_pipeline_denoises_as_its_network_does() -> None:
    pipe = HDPipeline(mixture(), get_sampler("langevin")(sigma=0.5))
    x = randn(2, 1, 2, 2)
    assert torch.equal(pipe.denoise(x, 0.5), mixture().denoise(x, 0.5))
    with pytest.raises(HDZooError, match=r"x has the shape \(2, 4\)"):
        pipe.denoise(x.flatten(1), 0.5)
    with pytest.raises(HDZooError, match="sigma is -1"):
        pipe.denoise(x, -1)
    with pytest.raises(HDZooError, match="class_labels are given"):
        pipe.denoise(x, 0.5, class_labels=3)
    nobody = HDPipeline(DDPMNetwork(), diffusers.DDPMScheduler())
    with pytest.raises(HDZooError, match="nothing says what DDPMNetwork predicts"):
        nobody.denoise(x, 0.5)


# ---- one image ------------------------------------------------------------------------------


def picture(tmp_path: Any, shape: tuple[int, ...] = (1, 2, 2), name: str = "a.png") -> str:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape[1:], shape[0]), np.uint8)
    image = Image.fromarray(pixels[..., 0] if shape[0] == 1 else pixels)
    image.save(tmp_path / name)
    return str(tmp_path / name)


def pipeline(shape: tuple[int, ...] = (1, 2, 2)) -> HDPipeline:
    return HDPipeline(mixture(shape, (0.0, 1.0)), get_sampler("langevin")(sigma=0.5))


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 4, 5)], ids=["grey", "colour"])
def test_the_numbers_are_those_of_the_exact_posterior(shape: tuple[int, ...], tmp_path) -> None:
    pipe, sigma = pipeline(shape), 0.3
    found = image_posterior(pipe, picture(tmp_path, shape), sigma, seed=3, num_directions=2)
    assert found.image is not None
    x = found.noisy[None]
    covariance = mixture(shape).posterior_covariance(x.double(), sigma)[0]
    mean = mixture(shape).denoise(x.double(), sigma)[0]
    # The states are float32.
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(found.denoised.double(), mean, **close)
    variances = found.diagonal.variances[0].double().flatten()
    torch.testing.assert_close(variances, covariance.diagonal(), **close)
    numbers = found.numbers
    assert numbers["trace"] == pytest.approx(covariance.trace().item(), rel=1e-5)
    assert numbers["squared_error"] == pytest.approx(
        (mean - found.image).square().sum().item(), rel=1e-5
    )
    values = np.linalg.eigvalsh(covariance.numpy())[::-1]
    np.testing.assert_allclose(numbers["eigenvalues"], values[:2], rtol=1e-4)
    share = values[:2].sum() / values.sum()
    assert numbers["share_of_the_trace"] == pytest.approx(share, rel=1e-4)
    assert numbers["asymmetry"] < 1e-5
    assert numbers["num_evaluations"] == 1 + covariance.shape[0]
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    # The figure: images, map and its bar, and a row for each direction.
    figure = posterior_figure(found)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles[:4] == ["image", f"noisy, {SIGMA} = 0.3", "denoised", "standard deviation"]
    assert len(titles) == 4 * 3
    drawn = figure.axes[3].images[0].get_array()
    expected = variances.view(shape).mean(0).sqrt()
    np.testing.assert_allclose(np.asarray(drawn), expected.numpy(), rtol=1e-5)
    # The last panel of a row, before its bar: a direction, in all of its channels.
    vector = found.directions.vectors[0, 0]
    panel = next(ax for ax in figure.axes if ax.get_title().startswith("v1"))
    drawn = np.asarray(panel.images[0].get_array())
    if shape[0] == 3:
        drawn = np.moveaxis(drawn - 0.5, 2, 0)
    scale = float((vector.numpy() * drawn.reshape(shape)).sum() / vector.square().sum())
    assert scale > 0
    np.testing.assert_allclose(drawn.reshape(shape), scale * vector.numpy(), atol=1e-6)


def test_noise_depends_on_the_seed_alone(tmp_path) -> None:
    pipe, path = pipeline(), picture(tmp_path)
    first, same, batch, other = (
        image_posterior(pipe, path, 0.3, seed=seed, num_probes=3, batch_size=size)
        for seed, size in ((0, 64), (0, 64), (0, 1), (1, 64))
    )
    assert torch.equal(first.noisy, same.noisy)
    assert torch.equal(first.diagonal.variances, same.diagonal.variances)
    torch.testing.assert_close(first.diagonal, batch.diagonal)
    assert not torch.equal(first.noisy, other.noisy)
    assert "3 probes" in first.numbers["variances"]
    assert first.numbers["trace_standard_error"] > 0


def test_an_image_that_is_noisy_already(tmp_path) -> None:
    path = picture(tmp_path)
    found = image_posterior(pipeline(), path, 0.3, noisy=True, num_directions=0)
    pixels = np.asarray(Image.open(path)) / 255
    np.testing.assert_allclose(found.noisy[0], pixels, atol=1e-6)
    assert found.image is None
    assert found.numbers["squared_error"] is None
    assert found.numbers["eigenvalues"] == []
    assert len(posterior_figure(found).axes) == 5


def test_what_is_said_of_an_image(tmp_path) -> None:
    wide = picture(tmp_path, (1, 3, 5), "wide.png")
    with pytest.warns(UserWarning, match="is 5 x 3 pixels .* resized to the network's 2 x 2"):
        image_posterior(pipeline(), wide, 0.3)
    with pytest.raises(HDZooError, match=r"5 x 3 pixels .* needs 1 and 2 x 2; to resize a noisy"):
        image_posterior(pipeline(), wide, 0.3, noisy=True)
    Image.new("L", (2, 2), 255).save(tmp_path / "white.png")
    with pytest.warns(UserWarning, match=r"100\.0% of the noisy image are black or white"):
        image_posterior(pipeline(), tmp_path / "white.png", 0.3, noisy=True)


def test_a_level_between_those_of_the_network(tmp_path) -> None:
    pipe = vp_pipeline("epsilon")
    low, high = level(300), level(301)
    with pytest.warns(UserWarning, match="is asked at .*, the nearest level"):
        found = image_posterior(pipe, picture(tmp_path), low + 0.3 * (high - low))
    assert found.numbers["sigma"] == pytest.approx(low)
    with pytest.raises(HDZooError, match="a call asks for noise level 1000"):
        image_posterior(pipe, picture(tmp_path), 1000.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0}, "sigma is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"noisy": "yes"}, "noisy is 'yes'"),
        ({"num_probes": 1}, "num_probes is 1"),
        ({"num_directions": 5}, "num_directions is 5, and an image has 4 numbers"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"class_label": 1}, "class_labels are given"),
    ],
)
def test_wrong_arguments(options: Any, message: str, tmp_path) -> None:
    with pytest.raises(HDZooError, match=message):
        image_posterior(pipeline(), picture(tmp_path), **{"sigma": 0.3} | options)


def test_samples_that_are_no_images(tmp_path) -> None:
    pipe = HDPipeline(mixture((4,)), get_sampler("langevin")(sigma=0.5))
    with pytest.raises(HDZooError, match="are no images; use PosteriorCovariance"):
        image_posterior(pipe, picture(tmp_path), 0.3)
