"""NCSN and NCSNv2 against the authors' outputs, published sizes, formulas and diffusers' habits."""

import copy
import importlib
import json

import pytest
import torch
from given import golden, has_golden
from safetensors.torch import load_file

from hdzoo.errors import HDZooError
from hdzoo.models.ncsn import NCSNModel
from hdzoo.models.ncsnv2 import NCSNv2Model
from hdzoo.models.refinenet import ConditionalInstanceNormPlus, InstanceNormPlus

CLASSES = (NCSNModel, NCSNv2Model)
PUBLISHED = {NCSNModel: "ncsnv1_cifar10_ngf8", NCSNv2Model: "ncsnv2_cifar10_ngf8"}
LOSSES = {NCSNModel: "ncsnv1_loss", NCSNv2Model: "ncsnv2_loss"}

both = pytest.mark.parametrize("cls", CLASSES)
at_hand = pytest.mark.parametrize(
    "cls", [cls for cls in CLASSES if has_golden(f"{PUBLISHED[cls]}.safetensors")]
)


def tensors(name):
    return load_file(golden(f"{name}.safetensors"))


def published(cls):
    """The authors' weights at width 8 in our network, and their inputs and outputs."""
    data = tensors(PUBLISHED[cls])
    config = json.loads(golden(f"{PUBLISHED[cls]}.json").read_text())["config"]
    net = cls(
        base_channels=config["ngf"],
        in_channels=config["channels"],
        num_levels=config["num_classes"],
    )
    weights = {key[3:]: value for key, value in data.items() if key.startswith("sd.")}
    return net, weights, data


def small(cls, base_channels=4, **config):
    torch.manual_seed(0)
    return cls(sample_size=8, in_channels=1, base_channels=base_channels, **config)


def batch(size=3, pixels=8):
    return torch.rand(size, 1, pixels, pixels, generator=torch.Generator().manual_seed(1))


def relative(a, b):
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


def dsm_loss(net, x0, labels, z):
    """1/2 |s + z / sigma|^2 sigma^2, summed over pixels, mean over the batch."""
    sigma = net.sigmas[labels].view(-1, 1, 1, 1)
    score = net(x0 + sigma * z, labels).sample
    return 0.5 * ((score + z / sigma).square() * sigma**2).sum(dim=(1, 2, 3)).mean()


@at_hand
def test_golden_output(cls):
    net, weights, data = published(cls)
    # strict: neither a missing nor a left-over key.
    net.load_state_dict(weights, strict=True)
    with torch.no_grad():
        out = net(data["in.x"], data["in.labels"]).sample
    # The authors' own float32 and float64 outputs differ by about 5e-6 of the maximum.
    assert relative(out, data["out.y"]) < 1e-5


@at_hand
def test_golden_output_in_double(cls):
    net, weights, data = published(cls)
    net.load_state_dict(weights)
    with torch.no_grad():
        out = net.double()(data["in.x"].double(), data["in.labels"]).sample
    # Float32's rounding is out of the way: what is left would be a different formula.
    assert relative(out, data["out.y_fp64"]) < 1e-12


def test_golden_checkpoint():
    weights, _ = torch.load(golden("ncsnv1_ckpt_ngf4.pth"), weights_only=True, map_location="cpu")
    data = tensors("ncsnv1_ckpt_ngf4_io")
    net = NCSNModel(base_channels=4)
    net.load_state_dict({key.removeprefix("module."): value for key, value in weights.items()})
    with torch.no_grad():
        assert relative(net(data["x"], data["labels"]).sample, data["y"]) < 1e-5


@at_hand
def test_golden_loss_and_gradients(cls):
    net, weights, _ = published(cls)
    net.load_state_dict(weights)
    data = tensors(LOSSES[cls])
    # The draws of the recorded run, in its order; NCSN quantised its images before.
    images = torch.rand(8, 3, 32, 32, generator=torch.manual_seed(11))
    draws = torch.manual_seed(12)
    if cls is NCSNModel:
        images = (data["X0"] * 255 + torch.rand(8, 3, 32, 32, generator=draws)) / 256
    labels = torch.randint(net.config.num_levels, (8,), generator=draws)
    noise = torch.randn(8, 3, 32, 32, generator=draws)
    assert torch.equal(labels, data["labels"])
    loss = dsm_loss(net, images, labels, noise)
    loss.backward()
    assert loss.item() == pytest.approx(data["loss"].item(), rel=1e-5)
    norms = {name: p.grad.norm().item() for name, p in net.named_parameters()}
    expected = {k.removeprefix("grad_norm."): v for k, v in data.items() if "grad_norm." in k}
    assert norms.keys() == expected.keys()
    for name, norm in norms.items():
        assert norm == pytest.approx(expected[name].item(), rel=1e-5), name


@both
def test_golden_ladder(cls):
    # The ladder comes out of float64 and is rounded to float32 once: equal but for the last bit.
    torch.testing.assert_close(cls(base_channels=4).sigmas, tensors(LOSSES[cls])["sigmas"])


@pytest.mark.parametrize(
    ("name", "cls", "config"),
    [
        ("ncsnv1_cifar10", NCSNModel, {}),
        ("ncsnv2_cifar10", NCSNv2Model, {}),
        ("ncsnv2deeper", NCSNv2Model, {"variant": "deeper"}),
        ("ncsnv2deepest", NCSNv2Model, {"variant": "deepest"}),
    ],
)
def test_published_keys(name, cls, config):
    lines = golden(f"keys/keys_{name}_ngf8.txt").read_text().split("\n")
    state = cls(base_channels=8, **config).state_dict()
    # In the same order too: optimizer states go by position.
    ours = [f"{key} {list(value.shape)} {value.dtype}" for key, value in state.items()]
    assert ours == [line.strip() for line in lines if line.strip()]


@pytest.mark.parametrize(
    ("cls", "config", "count"),
    [
        (NCSNModel, {}, 30_117_635),
        (NCSNModel, {"sample_size": 28, "in_channels": 1, "base_channels": 64}, 7_638_657),
        (NCSNv2Model, {}, 29_694_083),
        (NCSNv2Model, {"variant": "deeper"}, 83_445_379),
        (NCSNv2Model, {"variant": "deepest"}, 94_132_611),
    ],
)
def test_published_parameter_counts(cls, config, count):
    with torch.device("meta"):
        net = cls(**config)
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize(("variant", "factor"), [("standard", 2), ("deeper", 4), ("deepest", 8)])
def test_variants_halve_as_published(variant, factor):
    net = small(NCSNv2Model, variant=variant)
    sizes = []
    net.refine1.register_forward_hook(lambda _, args, out: sizes.append(out.shape[-1]))
    with torch.no_grad():
        out = net(torch.rand(1, 1, 16, 16), 0).sample
    assert sizes == [16 // factor]
    assert out.shape == (1, 1, 16, 16)
    assert out.isfinite().all()


@pytest.mark.parametrize("conditional", [True, False])
def test_instance_norm_plus_formula(conditional):
    torch.manual_seed(0)
    batch_size, channels, levels = 2, 5, 3
    labels = torch.tensor([2, 0])
    if conditional:
        norm = ConditionalInstanceNormPlus(levels, channels).double()
        norm.embed.weight.data.normal_()
        gamma, alpha, beta = norm.embed.weight[labels].reshape(2, 3, channels).unbind(1)
    else:
        norm = InstanceNormPlus(channels).double()
        for p in norm.parameters():
            p.data.normal_()
        gamma, alpha, beta = (p.expand(2, -1) for p in (norm.gamma, norm.alpha, norm.beta))
    x = torch.randn(batch_size, channels, 4, 6, dtype=torch.float64) * 2 + 1

    expected = torch.empty_like(x)
    for b in range(batch_size):
        means = [x[b, c].sum() / 24 for c in range(channels)]
        m = sum(means) / channels
        v = sum((mean - m) ** 2 for mean in means) / (channels - 1)
        for c in range(channels):
            variance = ((x[b, c] - means[c]) ** 2).sum() / 24
            normed = (x[b, c] - means[c]) / (variance + 1e-5) ** 0.5
            z = (means[c] - m) / (v + 1e-5) ** 0.5
            expected[b, c] = gamma[b, c] * (normed + alpha[b, c] * z) + beta[b, c]
    torch.testing.assert_close(norm(x, labels), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", [ConditionalInstanceNormPlus(10, 1000), InstanceNormPlus(10_000)])
def test_instance_norm_plus_initialisation(norm):
    gamma, alpha, beta = (p.flatten() for p in norm.affine(torch.arange(10)))
    assert beta.abs().max() == 0
    for p in (gamma, alpha):
        # Standard errors of 10^4 draws: .0002 for the mean, .00014 for the deviation.
        assert abs(p.mean() - 1) < 0.001
        assert abs(p.std() - 0.02) < 0.001


@both
def test_centered_input_is_not_mapped(cls):
    net, x = small(cls), batch()
    same = small(cls, centered=True)
    same.load_state_dict(net.state_dict())
    with torch.no_grad():
        mapped, as_is = same(2 * x - 1, 2).sample, same(x, 2).sample
        out = net(x, 2).sample
    assert torch.equal(out, mapped)
    assert relative(as_is, out) > 1e-3


def test_v2_divides_by_sigma():
    net, x = small(NCSNv2Model), batch(1)
    with torch.no_grad():
        first, last = (net(x, i).sample for i in (0, 231))
    torch.testing.assert_close(last / first, torch.full_like(x, 5000.0), rtol=1e-4, atol=0)


@both
def test_sigma_is_its_rung(cls):
    net, x = small(cls), batch()
    labels = torch.tensor([0, 3, 9])
    with torch.no_grad():
        out = net(x, labels).sample
        assert torch.equal(net(x, net.sigmas[labels]).sample, out)
        assert torch.equal(net(x, net.sigmas[labels].double()).sample, out)
        for i, label in enumerate(labels.tolist()):
            # One label or noise level for the batch, as numbers or as scalar tensors.
            one = net(x, torch.full((3,), label)).sample
            assert relative(one[i], out[i]) < 1e-5
            for timestep in (label, torch.tensor(label), net.sigmas[label]):
                assert torch.equal(net(x, timestep).sample, one)
            assert torch.equal(net(x, net.sigmas[label].item()).sample, one)
    assert relative(out[0], net(x, 9).sample[0]) > 1e-3


@both
def test_every_rung_is_found(cls):
    for net in (small(cls), small(cls).bfloat16(), small(cls).half()):
        everyone = torch.arange(len(net.sigmas))
        assert net.sigmas.dtype == torch.float32
        assert torch.equal(net.rungs(net.sigmas, len(everyone)), everyone)


def test_rounding_is_in_log_sigma():
    net = small(NCSNModel, sigma_levels=[1.0, 0.5, 0.1])
    # The geometric means of neighbours are .7071 and .2236, the arithmetic ones .75 and .3.
    sigmas = torch.tensor([5.0, 0.72, 0.70, 0.23, 0.22, 0.001, 0.0])
    assert net.rungs(sigmas, 7).tolist() == [0, 0, 1, 1, 2, 2, 2]


@both
def test_forward_reads_nothing_back_from_the_device(cls):
    # On the meta device there are no values, so that reading one raises.
    with torch.device("meta"):
        net = small(cls)
        for timestep in (torch.rand(2), torch.zeros(2, dtype=torch.long)):
            assert net(torch.rand(2, 1, 8, 8), timestep).sample.shape == (2, 1, 8, 8)


@both
def test_off_ladder_sigma_is_refused(cls):
    net = small(cls)
    net.check_sigmas(net.sigmas)
    net.check_sigmas([s * (1 + 9e-4) for s in net.sigmas.tolist()])
    top = net.config.sigma_max
    for sigma in (top * 1.002, top * 0.99, 0.0, 0.005, float("nan"), float("inf")):
        with pytest.raises(HDZooError, match=r"noise level .* levels from .* to 0\.01.*nearest"):
            net.check_sigmas([top, sigma])
    small(cls, sigma_rounding="nearest").check_sigmas([top * 1.002, 0.0])


@both
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sigma_rounding": "up"}, "sigma_rounding is 'up'"),
        ({"sigma_max": 0.01, "sigma_min": 1.0}, "descending"),
        ({"sigma_min": 0.0}, "sigma_min is 0.0; it must be a finite number from 1e-15"),
        ({"sigma_max": -1.0, "sigma_min": -2.0}, "sigma_max is -1.0; it must be"),
        ({"num_levels": 1}, "num_levels >= 2"),
        ({"sigma_levels": [1.0, 1.0, 0.5]}, "descending"),
        ({"sigma_levels": []}, "sigma_levels has 0 values; it must be a list of 1 to"),
    ],
)
def test_bad_config_is_refused(cls, config, message):
    with pytest.raises(HDZooError, match=message):
        small(cls, **config)


def test_unknown_variant_is_refused():
    with pytest.raises(HDZooError, match="variant is 'huge'; allowed are 'standard', 'deeper"):
        small(NCSNv2Model, variant="huge")


@both
def test_config_tells_the_ladder(cls):
    net = small(cls, sigma_levels=[3.0, 2.0, 0.5])
    assert (net.config.sigma_max, net.config.sigma_min, net.config.num_levels) == (3.0, 0.5, 3)
    assert list(net.config.data_range) == [0.0, 1.0]
    assert net.prediction_type == "score"
    assert ("sigmas" in net.state_dict()) == (cls is NCSNv2Model)


@both
def test_gradient_reaches_every_parameter_and_a_step_helps(cls):
    net, x0 = small(cls), batch(4)
    labels = torch.tensor([0, 3, 6, 9])
    z = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    before = dsm_loss(net, x0, labels, z)
    before.backward()
    dead = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not dead
    optimizer.step()
    with torch.no_grad():
        assert dsm_loss(net, x0, labels, z) < before


@both
def test_gradient_checkpointing_changes_nothing(cls):
    plain = small(cls).train()
    saving = copy.deepcopy(plain)
    saving.enable_gradient_checkpointing()
    inner, calls = saving._gradient_checkpointing_func, []
    saving._gradient_checkpointing_func = lambda block, *args: (
        calls.append(type(block).__name__),
        inner(block, *args),
    )[1]
    for net in (plain, saving):
        net(batch(), torch.tensor([0, 1, 2])).sample.square().sum().backward()
    assert calls == ["ResidualBlock"] * 8 + ["RefineBlock"] * 4
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@both
def test_channels_last(cls):
    net, x = small(cls, base_channels=8), batch(pixels=32)
    with torch.no_grad():
        out = net(x, torch.tensor([0, 4, 9])).sample
        net = net.to(memory_format=torch.channels_last)
        assert net.res1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
        x = x.to(memory_format=torch.channels_last)
        assert relative(net(x, torch.tensor([0, 4, 9])).sample, out) < 1e-5


@both
def test_tuple_output(cls):
    net, x = small(cls), batch()
    with torch.no_grad():
        (score,) = net(x, 1, return_dict=False)
        assert torch.equal(score, net(x, 1).sample)


@both
def test_save_and_load(cls, tmp_path):
    net = small(cls, sigma_levels=[float(40 - i) for i in range(40)], data_range=(-1.0, 1.0))
    net.save_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").is_file()
    again = cls.from_pretrained(tmp_path)
    assert {k: v for k, v in again.config.items() if k[0] != "_"} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in net.config.items() if k[0] != "_"
    }
    assert torch.equal(again.sigmas, net.sigmas)
    with torch.no_grad():
        assert torch.equal(again(batch(), 2).sample, net(batch(), 2).sample)
    loose = cls.from_pretrained(tmp_path, sigma_rounding="nearest")
    loose.check_sigmas([0.3])


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", ["fp16", None])
def test_half_precision(cls, dtype, variant, tmp_path):
    # Norms over very few pixels and channels would amplify the rounding beyond any bound.
    net, x = small(cls, base_channels=8), batch(pixels=32)
    (copy.deepcopy(net).half() if variant else net).save_pretrained(tmp_path, variant=variant)
    name = ".".join(filter(None, ("diffusion_pytorch_model", variant, "safetensors")))
    assert (tmp_path / name).is_file()
    half = cls.from_pretrained(tmp_path, variant=variant, dtype=dtype)
    assert half.dtype == half.end_conv.weight.dtype == dtype
    # In half precision, rungs of the ladder would coincide.
    assert half.sigmas.dtype == torch.float32
    assert torch.equal(half.sigmas, net.sigmas)
    with torch.no_grad():
        exact, out = net(x, net.sigmas[:3]).sample, half(x, net.sigmas[:3]).sample
        assert half(x.to(dtype), 0).sample.dtype == dtype
    assert out.dtype == torch.float32
    # Networks of six seeds stay within 10 unit roundoffs: 2^-8 for bf16, 2^-11 for fp16.
    assert 0 < relative(out, exact) < 25 * torch.finfo(dtype).eps / 2


@both
def test_module_is_loadable_by_diffusers(cls):
    module = importlib.import_module(cls.__module__)
    assert hasattr(module, "ModelMixin")
    assert hasattr(module, "SchedulerMixin")
