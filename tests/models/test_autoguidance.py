"""A guided network against the two networks that it is made of."""

import pytest
import torch

from hdzoo import (
    EnergyModel,
    HDPipeline,
    HDZooError,
    UNetScoreModel,
    autoguide,
    get_sampler,
    to_onnxruntime,
)
from hdzoo.pipelines.posterior import image_posterior

SIGMAS = torch.tensor([0.02, 0.1, 0.5, 2.0, 9.0])
# Numbers that no rounding moves: the ends are inside.
INTERVAL = (0.5, 2.0)


def network(seed, **options):
    torch.manual_seed(seed)
    options = {"sample_size": 8, "norm_num_groups": 4, "data_mean": 0.3} | options
    return UNetScoreModel(**options).eval()


def strong(**options):
    options = {"layers_per_block": 2, "add_attention": True, "held_out_loss": LOSS} | options
    return network(0, block_out_channels=(8, 16), **options)


def weak(**options):
    return network(1, **{"block_out_channels": (4, 8)} | options)


LOSS = {"sigmas": [1.0, 0.1], "loss": [0.2, 0.7]}


def noisy():
    return 0.3 + torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(2)) * (
        SIGMAS.view(-1, 1, 1, 1) + 0.3
    )


@pytest.mark.parametrize("scale", [1.0, 1.5, 3.0])
def test_denoised_images_lead_away_from_those_of_the_guide(scale):
    one, other, x = strong().double(), weak().double(), noisy().double()
    both = autoguide(one, other, scale, INTERVAL)
    found, mine, lesser = (net(x, SIGMAS.double()).sample for net in (both, one, other))
    inside = torch.tensor([False, False, True, True, False]).view(-1, 1, 1, 1)
    expected = torch.where(inside, lesser + scale * (mine - lesser), mine)
    # Float64 roundings of 2^-53 of sums of a few terms below 100.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert (mine - lesser).abs().max() > 0.01, "the two are one, so this test says nothing"
    # A level for all of them is what it is for each.
    torch.testing.assert_close(
        both(x, 0.5).sample, both(x, torch.full((5,), 0.5)).sample, rtol=0, atol=1e-12
    )


def test_it_leaves_the_two_as_they_are_and_is_no_denoiser_of_the_data():
    one, other = strong(), weak()
    before = [p.clone() for net in (one, other) for p in net.parameters()]
    both = autoguide(one, other)
    with torch.no_grad():
        for parameter in both.parameters():
            parameter.zero_()
    after = [p for net in (one, other) for p in net.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert both.config.held_out_loss is None
    assert one.config.held_out_loss == LOSS
    assert not both.training


def test_a_pipeline_keeps_it(tmp_path):
    both = autoguide(strong(), weak(), 1.5, INTERVAL)
    sampler = get_sampler("heun")(5.0, 0.05, num_steps=4, prediction_type="sample")
    HDPipeline(both, sampler).save_pretrained(tmp_path)
    again = HDPipeline.from_pretrained(tmp_path).unet
    assert type(again) is UNetScoreModel
    assert again.config.guidance_scale == 1.5
    assert torch.equal(both(noisy(), SIGMAS).sample, again(noisy(), SIGMAS).sample)
    drawn = [
        pipe(2, generator=torch.Generator().manual_seed(0), output_type="latent").images
        for pipe in (HDPipeline(both, sampler), HDPipeline(again, sampler))
    ]
    assert torch.equal(*drawn)


def test_onnxruntime_computes_it_too():
    pytest.importorskip("onnxruntime")
    both = autoguide(strong(), weak(), 1.5, INTERVAL)
    found = to_onnxruntime(both)(noisy(), SIGMAS).sample
    # What `to_onnxruntime` promises, of outputs below 20, times what guidance makes of it.
    torch.testing.assert_close(found, both(noisy(), SIGMAS).sample, rtol=0, atol=2e-3)


def test_half_precision_rounds_the_network_alone():
    both = autoguide(strong(), weak(), 1.5, INTERVAL)
    wide = both(noisy(), SIGMAS).sample
    half = both.to(torch.bfloat16)(noisy(), SIGMAS).sample
    assert half.dtype == torch.float32
    # Outputs of about 1 times sigma_data, through a dozen layers of 2^-8 each.
    torch.testing.assert_close(half, wide, rtol=0, atol=0.1)


def test_networks_that_do_not_go_together_are_refused():
    both = autoguide(strong(), weak())
    for one, other, says in (
        (strong(), weak(data_mean=0.2), "data_mean is 0.3 in the network and 0.2 in the guide"),
        (strong(), weak(sample_size=16), "sample_size is 8"),
        (strong(), weak(patch_size=1), "patch_size is 2"),
        (strong(), strong(), "a guide has one layer and no attention"),
        (both, weak(), "network has a guide"),
        (strong(), both, "guide has a guide"),
        (strong(), EnergyModel(sample_size=8, block_out_channels=(8,)), "guide is a EnergyModel"),
        (None, weak(), "network is a NoneType"),
    ):
        with pytest.raises(HDZooError, match=says):
            autoguide(one, other)


@pytest.mark.parametrize("scale", [0.5, -1, float("nan"), "2", None])
def test_scales_that_are_none_are_refused(scale):
    with pytest.raises(HDZooError, match="guidance_scale"):
        autoguide(strong(), weak(), scale)


@pytest.mark.parametrize("interval", [(2.0, 0.1), (1.0,), (0.1, float("inf")), "all", 3])
def test_intervals_that_are_none_are_refused(interval):
    with pytest.raises(HDZooError, match="guidance_interval"):
        autoguide(strong(), weak(), 2.0, interval)


def test_a_scale_without_a_guide_is_refused():
    with pytest.raises(HDZooError, match="guidance_scale is 2, and there is no guide"):
        weak(guidance_scale=2.0)


def test_an_energy_is_not_guided():
    with pytest.raises(HDZooError, match="EnergyModel is no denoiser"):
        EnergyModel(sample_size=8, block_out_channels=(8, 16), guide_block_out_channels=(8,))


def test_it_has_no_posterior():
    sampler = get_sampler("heun")(5.0, 0.05, prediction_type="sample")
    pipe = HDPipeline(autoguide(strong(), weak(), 1.5, INTERVAL), sampler)
    with pytest.raises(HDZooError, match=r"guidance_scale 1\.5: it is the denoiser of no data"):
        image_posterior(pipe, "missing.png", 0.5)
    # With a scale of 1 the guide has no say, and the picture is looked for.
    pipe.unet = autoguide(strong(), weak(), 1.0)
    with pytest.raises(HDZooError, match=r"missing\.png"):
        image_posterior(pipe, "missing.png", 0.5)


def test_the_two_are_not_trained_as_one():
    both = autoguide(strong(), weak(), 1.5, INTERVAL).train()
    with pytest.raises(HDZooError, match="trained each by itself"):
        both(noisy(), SIGMAS)
