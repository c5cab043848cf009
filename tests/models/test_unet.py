"""`UNetScoreModel` against the formulas of its preconditioning, and diffusers' habits."""

import math

import pytest
import torch
from torch.nn import functional as F

from hdzoo import HDZooError, UNetScoreModel

MEAN, STD = 0.3, 0.4
SIGMAS = torch.logspace(-2, 1, 13)


def small(**config):
    torch.manual_seed(0)
    config = {"sample_size": 8, "block_out_channels": (8, 16)} | config
    return UNetScoreModel(**{"data_mean": MEAN, "data_std": STD} | config).eval()


def noisy(count, size=8):
    """Images at noise levels as different as `SIGMAS`."""
    x = torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(1))
    return MEAN + x * (STD**2 + SIGMAS[:count].view(-1, 1, 1, 1) ** 2).sqrt()


def silence(net):
    """Zeroes the last layer, so that the inner network's output is 0."""
    for parameter in net.unet.conv_out.parameters():
        torch.nn.init.zeros_(parameter)
    return net


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_a_silent_network_it_is_the_exact_denoiser(dtype):
    net = silence(small()).to(dtype)
    x = noisy(len(SIGMAS))
    denoised = net(x, SIGMAS).sample
    sigma2 = SIGMAS.double().view(-1, 1, 1, 1) ** 2
    exact = (STD**2 * x.double() + sigma2 * MEAN) / (STD**2 + sigma2)
    assert denoised.dtype == torch.float32
    # A dozen float32 roundings of 2^-24 each, of terms at most as large as the larger of |x| and 1.
    scale = x.abs().clamp(min=1)
    assert ((denoised - exact).abs() <= 12 * 2**-24 * scale).all()


def test_float64_input_is_not_rounded_by_a_float32_network():
    net = silence(small())
    x = noisy(len(SIGMAS)).double() + 1e-9
    sigma = SIGMAS.double()
    sigma2 = sigma.view(-1, 1, 1, 1) ** 2
    denoised = net(x, sigma).sample
    exact = (STD**2 * x + sigma2 * MEAN) / (STD**2 + sigma2)
    # A dozen float64 roundings of 2^-53 each, of terms up to |x| < 64.
    torch.testing.assert_close(denoised, exact, rtol=0, atol=12 * 2**-53 * 64)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_preconditioning_is_karras_table_1(patch_size):
    net = small(patch_size=patch_size).double()
    for sigma in (0.01, 0.3, 10.0):
        x = noisy(2).double()
        total = math.sqrt(sigma**2 + STD**2)
        c_skip, c_out, c_in = STD**2 / total**2, sigma * STD / total, 1 / total
        time = torch.tensor(math.log(sigma) / 4)
        inner = net.unet(F.pixel_unshuffle(c_in * (x - MEAN), patch_size), time).sample
        inner = F.pixel_shuffle(inner, patch_size)
        expected = MEAN + c_skip * (x - MEAN) + c_out * inner
        # The time is embedded in float32: roundings of 1.2 * 2^-24, and gains below 10.
        torch.testing.assert_close(net(x, sigma).sample, expected, rtol=0, atol=1e-6)
        assert inner.abs().max() > 0.01, "the inner network is silent, so this test says nothing"


def test_noise_levels_of_a_batch_are_those_of_its_samples():
    net, x = small(), noisy(5)
    together = net(x, SIGMAS[:5]).sample
    alone = torch.cat([net(x[i : i + 1], float(SIGMAS[i])).sample for i in range(5)])
    # Convolutions may sum in another order: some hundred roundings of 2^-24 in each layer.
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)
    for same in (0.2, torch.tensor(0.2), torch.full((5,), 0.2)):
        torch.testing.assert_close(net(x, same).sample, net(x, 0.2).sample, rtol=0, atol=2e-5)


def test_gradient_checkpointing_changes_no_gradient():
    def gradients(net):
        net.train().zero_grad()
        net(noisy(3), SIGMAS[:3]).sample.square().mean().backward()
        return {name: p.grad.clone() for name, p in net.named_parameters()}

    net = small()
    plain = gradients(net)
    net.enable_gradient_checkpointing()
    assert net.is_gradient_checkpointing
    # The same operations, twice: equal but for the order of sums.
    torch.testing.assert_close(gradients(net), plain, rtol=1e-5, atol=1e-7)
    assert all(gradient.abs().max() > 0 for gradient in plain.values())


def test_saved_and_loaded_it_is_the_same(tmp_path):
    held_out = {"sigmas": [1.0, 0.1], "loss": [0.2, 0.7]}
    net = small(data_range=(-1.0, 1.0), held_out_loss=held_out)
    net.save_pretrained(tmp_path)
    again = UNetScoreModel.from_pretrained(tmp_path)
    private = {"_name_or_path", "_use_default_values"}
    configs = [{k: v for k, v in n.config.items() if k not in private} for n in (net, again)]
    # JSON has no tuples.
    for config in configs:
        config["block_out_channels"] = tuple(config["block_out_channels"])
        config["data_range"] = tuple(config["data_range"])
        config["guidance_interval"] = tuple(config["guidance_interval"])
    assert configs[0] == configs[1]
    assert again.config.held_out_loss == held_out
    assert torch.equal(net(noisy(2), 0.5).sample, again(noisy(2), 0.5).sample)
    assert [path.name for path in tmp_path.glob("*model*")] == [
        "diffusion_pytorch_model.safetensors"
    ]


def test_noise_levels_outside_the_trained_range_are_refused():
    net = small(sigma_min=0.01, sigma_max=10.0)
    # The ends, as a ladder computes them.
    net.check_sigmas([math.exp(math.log(10.0)), 1.0, math.exp(math.log(0.01))])
    for outside in (10.1, 0.0099):
        with pytest.raises(HDZooError, match=rf"from 0\.01 to 10, .* asks for {outside:g}"):
            net.check_sigmas([1.0, outside])


@pytest.mark.parametrize(
    ("sizes", "factor"),
    [
        ({"sample_size": 9, "block_out_channels": (8,)}, 2),
        # 28 -> 14 -> 7 -> 4, and up again 4 -> 8, which does not meet 7.
        ({"sample_size": 28, "patch_size": 1, "block_out_channels": (8, 8, 8, 8)}, 8),
        ({"sample_size": 28, "patch_size": 2, "block_out_channels": (8, 8, 8)}, 8),
    ],
)
def test_sizes_that_cannot_be_halved_are_refused_at_once(sizes, factor):
    with pytest.raises(HDZooError, match=rf"{sizes['sample_size']} is no multiple of {factor},"):
        UNetScoreModel(**sizes)


def test_the_smallest_size_that_is_allowed_works():
    net = small(sample_size=8, patch_size=2, block_out_channels=(8, 8, 8))
    x = noisy(2)
    with torch.no_grad():
        # Finite and not the skip term alone: the network went down to one pixel and up again.
        assert (net(x, 0.5).sample - silence(small())(x, 0.5).sample).abs().max() > 1e-3


def test_it_is_spread_over_devices(tmp_path):
    network = UNetScoreModel(8, block_out_channels=(8, 8), norm_num_groups=4)
    network.save_pretrained(tmp_path)
    again = UNetScoreModel.from_pretrained(tmp_path, device_map="auto")
    x = torch.rand(1, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(again(x, 0.5).sample, network.eval()(x, 0.5).sample)
