"""Other libraries' denoisers as networks, and networks as denoisers for other libraries."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import hdzoo
from hdzoo import (
    AnnealedLangevinSampler,
    GaussianMixtureScore,
    HDPipeline,
    HDZooError,
    NCSNModel,
    NCSNppModel,
    NCSNv2Model,
    UNetScoreModel,
)

HIGH, LOW = 2.0, 0.05
KNOWN = {"sigma_min": LOW, "sigma_max": HIGH, "sample_shape": (2,)}


def target() -> GaussianMixtureScore:
    return GaussianMixtureScore.from_components([[-0.4, 0.1], [0.3, -0.2]], [0.01, 0.02])


def draw(network: Any, **options: Any) -> torch.Tensor:
    sampler = AnnealedLangevinSampler(
        HIGH, LOW, 5, prediction_type=network.prediction_type, **options
    )
    pipe = HDPipeline(network, sampler)
    pipe.set_progress_bar_config(disable=True)
    return pipe(16, 20, generator=torch.Generator().manual_seed(0)).images


class KDiffusion(torch.nn.Module):
    """As k-diffusion's denoisers are called: ``sigma`` has one number for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = target()

    def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        assert sigma.shape == (len(x),)
        return self.inner.denoise(x, sigma)


class Azula:
    """As azula's are: in a schedule's own time and coordinates, with a posterior's mean."""

    def __init__(self, vp: bool) -> None:
        self.vp = vp

    def schedule(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.vp:
            alpha = torch.cos(1.5 * t)
            return alpha, (1 - alpha**2 + 1e-6).sqrt()
        return torch.ones_like(t), 0.01 * (1000.0**t)

    def __call__(self, x_t: torch.Tensor, t: torch.Tensor) -> Any:
        alpha, sigma = self.schedule(t.double())
        x = x_t.double() / alpha.view(-1, 1)
        return SimpleNamespace(mean=target().denoise(x, sigma / alpha))


# Roundings of a denoised state of order 1, divided by the least noise level; of the time of a
# schedule, which is told in float32.
CASES = {
    "function": (lambda: lambda x, sigma: target().denoise(x, sigma), "sample", 1e-5),
    "module": (KDiffusion, "sample", 1e-5),
    "score": (lambda: lambda x, sigma: target().score(x, sigma), "score", 1e-6),
    "noise": (
        lambda: lambda x, sigma: -sigma.view(-1, 1) * target().score(x, sigma),
        "epsilon",
        1e-5,
    ),
    "output": (
        lambda: lambda x, sigma: SimpleNamespace(sample=target().denoise(x, sigma)),
        "sample",
        1e-5,
    ),
    "azula-ve": (lambda: Azula(vp=False), "sample", 1e-4),
    "azula-vp": (lambda: Azula(vp=True), "sample", 1e-4),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrapped_exact_denoiser_draws_the_samples_of_the_target(case: str) -> None:
    make, predicts, tolerance = CASES[case]
    network = hdzoo.wrap(make(), predicts=predicts, **KNOWN)
    torch.testing.assert_close(draw(network), draw(target()), rtol=0, atol=tolerance)
    x, sigma = torch.randn(3, 2, generator=torch.Generator().manual_seed(1)), torch.tensor(0.3)
    expected = target().denoise(x, sigma)
    torch.testing.assert_close(network.denoise(x, sigma), expected, rtol=0, atol=tolerance + 1e-6)
    torch.testing.assert_close(network.denoise(x, 0.3), expected, rtol=0, atol=tolerance + 1e-6)


def test_pictures_move_and_dtypes() -> None:
    convolution = torch.nn.Conv2d(1, 1, 1).to(torch.bfloat16)
    seen: list[torch.dtype] = []

    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = convolution

        def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            seen.append(x.dtype)
            return self.convolution(x)

    network = hdzoo.wrap(
        Half(), sigma_min=0.1, sigma_max=1, sample_shape=(1, 4, 4), data_range=(0, 1)
    )
    pipe = HDPipeline(network, AnnealedLangevinSampler(1.0, 0.1, 2, prediction_type="sample"))
    pipe.set_progress_bar_config(disable=True)
    assert pipe(1, 4).images[0].size == (4, 4)
    assert set(seen) == {torch.bfloat16}
    assert pipe.data_mean == 0.5
    assert sum(p.numel() for p in network.parameters()) == 2


def test_what_cannot_be_saved_says_so(tmp_path: Any) -> None:
    network = hdzoo.wrap(lambda x, sigma: x, **KNOWN)
    for what in (network, HDPipeline(network, AnnealedLangevinSampler(prediction_type="sample"))):
        with pytest.raises(HDZooError, match="wrapped function cannot be saved, for it is code"):
            what.save_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("denoiser", "options", "message"),
    [
        (7, {}, "denoiser is 7; it must be a function"),
        (lambda x, s: x, {"sigma_min": 3}, "sigma_min is 3 and sigma_max is 2"),
        (lambda x, s: x, {"sigma_min": 0}, "sigma_min is 0; it must be"),
        (lambda x, s: x, {"sample_shape": (2.5,)}, "sample_shape"),
        (lambda x, s: x, {"predicts": "x0"}, "predicts is 'x0'; allowed are"),
        (lambda x, s: x, {"sample_shape": (1, 2, 2), "data_range": (1, 0)}, "data_range"),
        (Azula(vp=True), {"predicts": "epsilon"}, "denoiser with a schedule predicts"),
        (Azula(vp=False), {"sigma_max": 20}, "levels from 0.01 to 10, .* asks for 20"),
    ],
)
def test_bad_arguments(denoiser: Any, options: Any, message: str) -> None:
    with pytest.raises(HDZooError, match=message):
        hdzoo.wrap(denoiser, **KNOWN | options)


@pytest.mark.parametrize(
    ("denoiser", "message"),
    [
        (lambda x, sigma: None, "the denoiser returns None for states of the shape"),
        (lambda x, sigma: x[:, :1], r"the denoiser returns a Tensor of shape \(1, 1\)"),
        (lambda x, sigma: (x,), "the denoiser returns"),
    ],
)
def test_bad_outputs(denoiser: Any, message: str) -> None:
    network = hdzoo.wrap(denoiser, **KNOWN)
    with pytest.raises(HDZooError, match=message):
        network.denoise(torch.zeros(1, 2), 1.0)
    with pytest.raises(HDZooError, match=r"needs \(batch, 2\)"):
        network.denoise(torch.zeros(1, 3), 1.0)
    with pytest.raises(HDZooError, match=r"noise levels from 0\.05 to 2, .* asks for 5"):
        network.denoise(torch.zeros(1, 2), 5)


SMALL = {"sigma_max": 2.0, "sigma_min": 0.5, "num_levels": 3}


@pytest.mark.parametrize(
    "make",
    [
        lambda: NCSNModel(8, 1, 4, **SMALL),
        lambda: NCSNv2Model(8, 1, 4, **SMALL),
        lambda: UNetScoreModel(8, 1, block_out_channels=(8, 8), norm_num_groups=4),
        lambda: NCSNppModel(8, 1, 8, (1, 1), 1, attention_resolutions=()),
    ],
    ids=["ncsn", "ncsnv2", "unet", "ncsnpp"],
)
def test_every_network_denoises(make: Any) -> None:
    torch.manual_seed(0)
    network = make().eval()
    x = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        output = network(x, 1.0, return_dict=False)[0]
        expected = output if network.prediction_type == "sample" else x + output
        for sigma in (1.0, 1, torch.tensor(1), torch.tensor([1.0, 1.0], dtype=torch.float64)):
            torch.testing.assert_close(network.denoise(x, sigma), expected)
        for wrong in (0, -1.0, "1", 1e6):
            with pytest.raises(HDZooError, match=r"sigma|noise level"):
                network.denoise(x, wrong)
