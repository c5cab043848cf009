"""NCSN++ against the authors' outputs, diffusers' blocks, published sizes and formulas."""

import copy
import importlib
import itertools
import json

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.embeddings import get_timestep_embedding
from given import golden
from safetensors.torch import load_file

from hdzoo.errors import HDZooError
from hdzoo.models.ncsnpp import NCSNppModel, published_names
from hdzoo.models.ncsnpp_layers import Double, Halve, Widen, positional_embedding

PICTURES = {"progressive": "output_skip", "progressive_input": "input_skip"}
VARIANTS = {
    "continuous": {},
    "discrete": {"embedding": "positional", "sigma_max": 20.0, "num_levels": 50},
    "pictures": PICTURES,
    "bare": {"progressive_input": "none", "skip_rescale": False, "scale_by_sigma": False},
}

every = pytest.mark.parametrize("variant", VARIANTS)


def small(variant="continuous", **config):
    torch.manual_seed(0)
    defaults = {
        "sample_size": 8,
        "in_channels": 1,
        "base_channels": 8,
        "channel_multipliers": (1, 2),
        "num_res_blocks": 1,
        "attention_resolutions": (4,),
    }
    net = NCSNppModel(**defaults | VARIANTS[variant] | config).eval()
    # A new network all but ignores its blocks: their last layers are near zero.
    for name, parameter in net.named_parameters():
        if parameter.ndim > 1 and parameter.abs().max() < 1e-3:
            torch.nn.init.xavier_uniform_(parameter)
        elif name.endswith(("bias", ".b")):
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def batch(size=3, pixels=8, channels=1):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(size, channels, pixels, pixels, generator=generator)


def relative(a, b):
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


def authors():
    """The authors' weights at width 8 in our network, and their inputs and outputs."""
    data = load_file(golden("ncsnpp_cifar10_cont_nf8.safetensors"))
    net = NCSNppModel(base_channels=8, num_res_blocks=1).eval()
    names = published_names(net)
    published = {key[3:] for key in data if key.startswith("sd.")}
    assert set(names.values()) == published - {"sigmas"}
    net.load_state_dict({ours: data[f"sd.{theirs}"] for ours, theirs in names.items()})
    return net, data


def test_golden_output():
    net, data = authors()
    count = json.loads(golden("ncsnpp_cifar10_cont_nf8.json").read_text())["n_params"]
    assert net.num_parameters() == count
    with torch.no_grad():
        out = net(data["in.x"], data["in.labels"]).sample
    # Float32 in another order of operations; 5e-6 of the maximum was seen among machines.
    assert relative(out, data["out.y"]) < 1e-5


def test_golden_ladder():
    data = load_file(golden("ncsnpp_cifar10_cont_nf8.safetensors"))
    net = small("discrete", sigma_max=50.0, num_levels=1000)
    torch.testing.assert_close(net.sigmas, data["sd.sigmas"].float(), rtol=2e-7, atol=0)


def test_published_keys():
    lines = golden("keys/keys_ncsnpp_cifar10_cont_nf8.txt").read_text().splitlines()
    with torch.device("meta"):
        net = NCSNppModel(base_channels=8)
    state = net.state_dict()
    ours = [
        f"{theirs} {list(state[key].shape)} torch.float32"
        for key, theirs in published_names(net).items()
    ]
    # In the same order too: averaged weights go by position.
    assert ours == [line.strip() for line in lines if line.strip() and "sigmas" not in line]
    assert list(published_names(net)) == list(state)


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        ({}, 62.76),
        ({"embedding": "positional"}, 62.69),
        ({"num_res_blocks": 8}, 107.6),
    ],
)
def test_published_parameter_counts(config, millions):
    with torch.device("meta"):
        net = NCSNppModel(**config)
    count = sum(p.numel() for p in net.parameters()) / 1e6
    assert abs(count - millions) <= (0.005 if millions < 100 else 0.05)


def in_diffusers(net):
    """The same network in diffusers' blocks, which cannot be less than 128 wide."""
    config, levels = net.config, len(net.config.channel_multipliers)
    attends = [config.sample_size // 2**i in config.attention_resolutions for i in range(levels)]
    unet = UNet2DModel(
        sample_size=config.sample_size,
        in_channels=3,
        out_channels=3,
        center_input_sample=True,
        time_embedding_type="fourier",
        block_out_channels=[config.base_channels * m for m in config.channel_multipliers],
        down_block_types=[f"{'Attn' * a}SkipDownBlock2D" for a in attends],
        up_block_types=[f"{'Attn' * a}SkipUpBlock2D" for a in reversed(attends)],
        layers_per_block=config.num_res_blocks,
        norm_eps=1e-6,
        norm_num_groups=32,
        attention_head_dim=None,
        mid_block_scale_factor=2**0.5,
    )
    block = {
        "GroupNorm_0": "norm1",
        "Conv_0": "conv1",
        "Dense_0": "time_emb_proj",
        "GroupNorm_1": "norm2",
        "Conv_1": "conv2",
        "Conv_2": "conv_shortcut",
    }
    attention = {"GroupNorm_0": "group_norm", "NIN_0": "to_q", "NIN_1": "to_k", "NIN_2": "to_v"}
    attention["NIN_3"] = "to_out.0"
    state = net.state_dict()
    renamed = {
        "time_proj.weight": state["fourier.W"],
        **{f"time_embedding.{k}": v for k, v in state.items() if k.startswith("linear_")},
    }

    def take(ours, theirs, inside):
        for key, value in state.items():
            if key.startswith(f"{ours}."):
                part, kind = key.removeprefix(f"{ours}.").split(".")
                kind = {"W": "weight", "b": "bias"}.get(kind, kind)
                value = value.T if part.startswith("NIN") and kind == "weight" else value
                renamed[f"{theirs}.{inside[part]}.{kind}"] = value

    def convolution(ours, theirs):
        for kind in ("weight", "bias"):
            renamed[f"{theirs}.{kind}"] = state[f"{ours}.{kind}"]

    convolution("conv_in", "conv_in")
    for side in ("down", "up"):
        for i, level in enumerate(getattr(net, side)):
            ours, theirs = f"{side}.{i}", f"{side}_blocks.{i}"
            for j in range(len(level.units)):
                take(f"{ours}.units.{j}.block", f"{theirs}.resnets.{j}", block)
                unique = 0 if side == "up" else j
                take(f"{ours}.units.{j}.attention", f"{theirs}.attentions.{unique}", attention)
            take(
                f"{ours}.{'halve' if side == 'down' else 'enlarge'}",
                f"{theirs}.resnet_{side}",
                block,
            )
            if side == "down" and i < levels - 1:
                convolution(f"{ours}.add.Conv_0", f"{theirs}.skip_conv")
            if side == "up":
                last = i == levels - 1
                convolution(f"{ours}.show.norm", "conv_norm_out" if last else f"{theirs}.skip_norm")
                convolution(f"{ours}.show.conv", "conv_out" if last else f"{theirs}.skip_conv")
    for j in range(2):
        take(f"middle.{j}.block", f"mid_block.resnets.{j}", block)
    take("middle.0.attention", "mid_block.attentions.0", attention)
    unet.load_state_dict(renamed)
    return unet.eval()


def test_pictures_are_those_of_diffusers():
    net = small(
        "pictures",
        sample_size=16,
        in_channels=3,
        base_channels=128,
        channel_multipliers=(1, 1, 2),
        attention_resolutions=(8,),
    )
    reference = in_diffusers(net)
    x, sigma = batch(2, 16, channels=3), torch.tensor([0.5, 20.0])
    with torch.no_grad():
        # Float32 in another order of operations, as with the authors' outputs.
        assert relative(net(x, sigma).sample, reference(x, sigma).sample) < 1e-5


def test_positional_embedding_is_that_of_diffusers():
    labels = torch.tensor([0, 1, 500, 999])
    expected = get_timestep_embedding(labels, 16, downscale_freq_shift=1)
    # Two roundings of a frequency, 1.2e-7, times the label.
    torch.testing.assert_close(positional_embedding(labels, 16), expected, rtol=0, atol=1.2e-4)


def test_filters():
    x = torch.rand(2, 3, 6, 6, dtype=torch.float64)
    box = [layer((1, 1))(x) for layer in (Halve, Double, Widen)]
    torch.testing.assert_close(box[0], torch.nn.functional.avg_pool2d(x, 2))
    torch.testing.assert_close(box[1], x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert box[2].shape == (2, 3, 7, 7)

    taps = (1, 3, 3, 1)
    kernel = torch.outer(*2 * [torch.tensor(taps, dtype=torch.float64) / 8])
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    wide = torch.empty(2, 3, 7, 7, dtype=torch.float64)
    for i, j in itertools.product(range(7), repeat=2):
        wide[..., i, j] = (padded[..., i : i + 4, j : j + 4] * kernel).sum((2, 3))
    torch.testing.assert_close(Widen(taps)(x), wide)
    torch.testing.assert_close(Halve(taps)(x), wide[..., 1::2, 1::2])
    # Inside, 3/4 of the pixel beneath and 1/4 of the next one.
    row = Double(taps)(x)[..., 2:-2, 2:-2]
    near = 0.75 * x[..., 1:-1, 1:-1]
    sides = {
        (0, 0): (x[..., 1:-1, :-2], x[..., :-2, 1:-1], x[..., :-2, :-2]),
        (1, 1): (x[..., 1:-1, 2:], x[..., 2:, 1:-1], x[..., 2:, 2:]),
    }
    for (i, j), (beside, above, across) in sides.items():
        expected = 0.75 * (near + 0.25 * beside) + 0.25 * (0.75 * above + 0.25 * across)
        torch.testing.assert_close(row[..., i::2, j::2], expected)


@pytest.mark.parametrize("variant", ["continuous", "discrete", "pictures"])
def test_score_is_the_output_over_sigma(variant):
    net, unscaled, x = small(variant), small(variant, scale_by_sigma=False), batch()
    sigma = torch.tensor([0.5, 3.0, 20.0]) if net.sigmas is None else net.sigmas[[40, 10, 0]]
    with torch.no_grad():
        score, output = net(x, sigma).sample, unscaled(x, sigma).sample
    torch.testing.assert_close(score * sigma.view(-1, 1, 1, 1), output)


@every
def test_labels_and_noise_levels(variant):
    net, x, labels = small(variant), batch(), torch.tensor([0, 3, 9])
    top, last = net.config.sigma_max, net.config.num_levels - 1
    ladder = top * (0.01 / top) ** (labels / last)
    with torch.no_grad():
        out = net(x, labels).sample
        # The logarithm of a noise level is off by a rounding, its Fourier phase by 16 * 2 pi that.
        assert relative(net(x, ladder).sample, out) < 1e-4
        assert torch.equal(net(x, ladder.double()).sample, net(x, ladder).sample)
        for i, label in enumerate(labels.tolist()):
            one = net(x, torch.full((3,), label)).sample
            assert relative(one[i], out[i]) < 1e-5
            for timestep in (label, torch.tensor(label)):
                assert torch.equal(net(x, timestep).sample, one)
        assert relative(out[0], net(x, 9).sample[0]) > 1e-3


def test_discrete_knows_rungs_and_continuous_a_range():
    discrete, continuous = small("discrete"), small()
    discrete.check_sigmas(discrete.sigmas)
    assert continuous.sigmas is None
    continuous.check_sigmas([50.0, 0.333, 0.01])
    with pytest.raises(HDZooError, match=r"knows only its 50 levels from 20 to 0\.01"):
        discrete.check_sigmas([20.0, 0.333])
    small("discrete", sigma_rounding="nearest").check_sigmas([0.333])
    for sigma in (50.1, 0.0099, float("nan")):
        with pytest.raises(HDZooError, match=r"trained for noise levels from 0\.01 to 50"):
            continuous.check_sigmas([1.0, sigma])


@every
def test_forward_reads_nothing_back_from_the_device(variant):
    # On the meta device there are no values, so that reading one raises.
    with torch.device("meta"):
        net = NCSNppModel(sample_size=8, base_channels=8, **VARIANTS[variant])
        for timestep in (torch.rand(2), torch.zeros(2, dtype=torch.long)):
            assert net(torch.rand(2, 3, 8, 8), timestep).sample.shape == (2, 3, 8, 8)


@every
def test_gradient_reaches_every_parameter_and_a_step_helps(variant):
    net, x0 = small(variant), batch(4)
    sigma = torch.tensor([0.05, 0.3, 1.0, 8.0])
    z = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2))

    def loss():
        s = sigma.view(-1, 1, 1, 1)
        return (s * net(x0 + s * z, sigma).sample + z).square().mean()

    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    before = loss()
    before.backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert dead == ([] if net.fourier is None else ["fourier.W"])
    optimizer.step()
    with torch.no_grad():
        assert loss() < before


def test_new_network_starts_near_zero():
    net = NCSNppModel(sample_size=8, base_channels=8).eval()
    with torch.no_grad():
        assert net(batch(2, channels=3), 1.0).sample.abs().max() < 1e-3


@every
def test_gradient_checkpointing_changes_nothing(variant):
    plain = small(variant)
    saving = copy.deepcopy(plain)
    saving.enable_gradient_checkpointing()
    for net in (plain, saving):
        net(batch(), torch.tensor([0.1, 1.0, 5.0])).sample.square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad)


def test_attention_is_where_it_was_asked_for():
    net = small(sample_size=16, channel_multipliers=(1, 1, 2), attention_resolutions=(16, 4))
    attends = [[unit.attention is not None for unit in level.units] for level in net.down]
    assert attends == [[True], [False], [True]]
    attends = [[unit.attention is not None for unit in level.units] for level in net.up]
    assert attends == [[False, True], [False, False], [False, True]]


@every
def test_save_and_load(variant, tmp_path):
    net = small(variant)
    net.save_pretrained(tmp_path)
    again = NCSNppModel.from_pretrained(tmp_path)
    assert {k: v for k, v in again.config.items() if k[0] != "_"} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in net.config.items() if k[0] != "_"
    }
    with torch.no_grad():
        assert torch.equal(again(batch(), 0.5).sample, net(batch(), 0.5).sample)


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(variant, dtype, tmp_path):
    net, x = small(variant, base_channels=16, sample_size=16), batch(pixels=16)
    net.save_pretrained(tmp_path)
    sigma = torch.tensor([0.05, 1.0, 12.0])
    with torch.no_grad():
        exact = net(x, sigma).sample
        for half in (NCSNppModel.from_pretrained(tmp_path, dtype=dtype), net.to(dtype)):
            assert half.dtype == half.conv_in.weight.dtype == dtype
            # Rounded frequencies would give other phases, and rounded rungs coincide.
            if half.fourier is not None:
                assert half.fourier.W.dtype == torch.float32
            else:
                assert half.sigmas.dtype == torch.float32
            out = half(x, sigma).sample
            assert half(x.to(dtype), 0.5).sample.dtype == dtype
            assert out.dtype == torch.float32
            # As the networks of NCSN: 10 unit roundoffs were seen there.
            assert 0 < relative(out, exact) < 25 * torch.finfo(dtype).eps / 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"embedding": "sine"}, "embedding is 'sine'; allowed are 'fourier', 'positional'"),
        ({"progressive": "residual"}, "progressive is 'residual'; allowed are 'none'"),
        ({"progressive_input": "sum"}, "progressive_input is 'sum'"),
        ({"sigma_levels": [2.0, 1.0]}, "knows every noise level"),
        ({"sigma_max": 0.001}, "descending"),
        ({"sigma_rounding": "up"}, "sigma_rounding is 'up'"),
        ({"sample_size": 9}, "sample_size 9 is no multiple of 2"),
        ({"sample_size": 0}, "sample_size is 0; it must be a whole number from 1"),
        ({"channel_multipliers": ()}, "channel_multipliers has 0 values; it must be a list of 1"),
        ({"base_channels": 6}, "choose base_channels"),
        ({"base_channels": 132}, "choose base_channels"),
        ({"fir_kernel": (1, 2, 1)}, "even number of taps"),
        ({"fir_kernel": (1, 2, 3, 1)}, "symmetric"),
        ({"fir_kernel": (1, -1, -1, 1)}, "positive sum"),
    ],
)
def test_bad_config_is_refused(config, message):
    with pytest.raises(HDZooError, match=message):
        small(**config)


def test_module_is_loadable_by_diffusers():
    module = importlib.import_module(NCSNppModel.__module__)
    assert hasattr(module, "ModelMixin")
    assert hasattr(module, "SchedulerMixin")
