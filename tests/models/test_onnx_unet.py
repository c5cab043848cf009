"""Networks computed by ONNX Runtime: PyTorch's results, and a refusal of all that takes PyTorch."""

import copy
import sys
from functools import cache

import pytest
import torch
from diffusers import UNet2DModel

from hdzoo import (
    ConvEnergyModel,
    EnergyModel,
    HDPipeline,
    HDZooError,
    NCSNModel,
    NCSNUNetModel,
    PosteriorCovariance,
    UNetScoreModel,
    get_sampler,
    sample_generators,
    to_onnxruntime,
)
from hdzoo.models import onnx_unet
from hdzoo.pipelines.backends import backend_of

SMALL = {"sample_size": 8, "block_out_channels": (8, 16), "norm_num_groups": 4}
BLOCKS = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D")}
BLOCKS |= {"up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
PLAIN = {"in_channels": 3, "out_channels": 3, "layers_per_block": 1} | SMALL | BLOCKS
MAKERS = {
    "UNetScoreModel": lambda: UNetScoreModel(add_attention=True, **SMALL),
    "NCSNUNetModel": lambda: NCSNUNetModel(
        PLAIN | {"in_channels": 1, "out_channels": 1}, sigma_max=1.0, num_levels=5
    ),
    "by class": lambda: UNet2DModel(**PLAIN, num_class_embeds=7),
    "fourier": lambda: UNet2DModel(**PLAIN, time_embedding_type="fourier"),
    "learned": lambda: UNet2DModel(**PLAIN, time_embedding_type="learned", num_train_timesteps=50),
}


def made(name):
    torch.manual_seed(0)
    return MAKERS[name]().eval()


@pytest.fixture(scope="module")
def network():
    # Attention could not be differentiated forwards.
    torch.manual_seed(0)
    return UNetScoreModel(**SMALL).eval()


@pytest.fixture(scope="module")
def other(network):
    return to_onnxruntime(network)


@cache
def by_class():
    return to_onnxruntime(made("by class"))


def questions(name, batch):
    """What a network is called with: one noise level for all, or one for each sample."""
    channels = 3 if isinstance(made(name), UNet2DModel) else 1
    x = torch.randn(batch, channels, 8, 8, generator=torch.Generator().manual_seed(batch))
    labels = {"class_labels": torch.arange(batch)} if name == "by class" else {}
    if name == "UNetScoreModel":
        return x, [torch.tensor(0.3), torch.linspace(0.02, 9, batch)], labels
    # Indices of rungs, or timesteps.
    steps = [3, torch.tensor(3), torch.arange(batch) % 5]
    return x, steps if name != "fourier" else [torch.linspace(1, 9, batch)], labels


@pytest.mark.parametrize("name", MAKERS)
def test_the_results_are_pytorchs(name):
    network = made(name)
    other = by_class() if name == "by class" else to_onnxruntime(network)
    for batch in (1, 2, 5):
        x, timesteps, labels = questions(name, batch)
        for timestep in timesteps:
            with torch.no_grad():
                expected = network(x, timestep, **labels).sample
                found = other(x, timestep, **labels).sample
            assert torch.equal(found, other(x, timestep, **labels, return_dict=False)[0])
            # Sums of a few hundred terms in another order, in each of some thirty layers: as many
            # roundings of 2^-24 of the largest.
            bound = 300 * 2**-24 * expected.abs().max().item()
            torch.testing.assert_close(found, expected, rtol=0, atol=bound)
            assert expected.std() > 1e-3


def test_noise_levels_of_a_batch_are_those_of_its_samples(network, other):
    x, (_, sigmas), _ = questions("UNetScoreModel", 5)
    alone = torch.cat([other(x[i : i + 1], sigmas[i]).sample for i in range(5)])
    torch.testing.assert_close(other(x, sigmas).sample, alone, rtol=0, atol=2e-5)


def test_a_pipeline_draws_the_same_images(network, other):
    sampler = get_sampler("annealed-langevin")(
        sigma_max=2.0, num_levels=4, steps_per_level=2, prediction_type="sample"
    )
    images = []
    for one in (network, other):
        pipe = HDPipeline(one, sampler)
        pipe.set_progress_bar_config(disable=True)
        generators = sample_generators(0, range(3))
        images.append(pipe(3, generator=generators, output_type="pt").images)
    assert images[0].std() > 0.1
    torch.testing.assert_close(images[1], images[0], rtol=0, atol=1e-4)


def test_the_network_that_it_was_made_of_stays(network, other):
    assert type(other) is type(network)
    assert other.config == network.config
    assert backend_of(network) == "torch"
    assert backend_of(other).startswith("onnxruntime 1.")
    assert sum(p.numel() for p in network.parameters()) > 0
    assert list(other.parameters()) == []
    assert (other.dtype, other.device) == (torch.float32, torch.device("cpu"))
    x = torch.zeros(1, 1, 8, 8, requires_grad=True)
    network(x, 0.5).sample.sum().backward()
    assert x.grad.abs().max() > 0
    with torch.no_grad():
        changed = copy.deepcopy(network)
        changed.unet.conv_out.weight.mul_(2)
    assert not torch.equal(changed(x, 0.5).sample, network(x, 0.5).sample)
    assert torch.equal(copy.deepcopy(other)(x, 0.5).sample, other(x, 0.5).sample)


def test_as_many_threads_as_pytorch(other):
    def used():
        other(torch.zeros(1, 1, 8, 8), 0.5)
        return other.unet._session[1].get_session_options().intra_op_num_threads

    before = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            assert used() == number
    finally:
        torch.set_num_threads(before)


# ---- gradients ------------------------------------------------------------------------------


def total(network):
    return lambda x: network(x, 0.5, return_dict=False)[0].sum()


X = torch.ones(2, 1, 8, 8)
DIFFERENTIATED = {
    "backward": lambda net: total(net)(X.clone().requires_grad_()).backward(),
    "grad": lambda net: torch.func.grad(total(net))(X),
    "jvp": lambda net: torch.func.jvp(total(net), (X,), (X,)),
    "jacrev": lambda net: torch.func.jacrev(total(net))(X),
    "vmap": lambda net: torch.vmap(total(net))(X[:, None]),
    "double": lambda net: torch.autograd.functional.hvp(total(net), X, X),
    "posterior": lambda net: PosteriorCovariance(net.denoise, X, 0.5).product(X),
    "transposed": lambda net: PosteriorCovariance(net.denoise, X, 0.5).product(X, "transposed"),
}


@pytest.mark.parametrize("how", DIFFERENTIATED)
def test_no_gradient_is_lost(network, other, how):
    DIFFERENTIATED[how](network)
    with pytest.raises(HDZooError, match=r"ONNX Runtime computes no gradients.*backend torch"):
        DIFFERENTIATED[how](other)


# ---- refusals -------------------------------------------------------------------------------


def in_train_mode():
    network = made("UNetScoreModel")
    network.unet.mid_block.train()
    return network


UNSUITED = {
    "energy": (lambda: EnergyModel(**SMALL).eval(), "EnergyModel is an energy"),
    "convolutions": (lambda: ConvEnergyModel(sample_size=8).eval(), "ConvEnergyModel"),
    "no U-Net": (lambda: NCSNModel(base_channels=2, sample_size=8).eval(), "NCSNModel has no UNet"),
    "bfloat16": (lambda: made("UNetScoreModel").bfloat16(), "is bfloat16 on cpu"),
    "float64": (lambda: made("by class").double(), "is float64 on cpu"),
    "elsewhere": (lambda: made("UNetScoreModel").to("meta"), "float32 on meta"),
    "train mode": (in_train_mode, r"in train mode.*call network.eval\(\)"),
    "a function": (lambda: torch.sin, "has no UNet2DModel"),
    "a class": (lambda: UNet2DModel, "has no UNet2DModel"),
}


@pytest.mark.parametrize("case", UNSUITED)
def test_unsuited_networks_are_refused(case):
    make, message = UNSUITED[case]
    with pytest.raises(HDZooError, match=message):
        to_onnxruntime(make())


CALLS = {
    "training": (lambda net: net.train()(X, 0.5), "no train mode"),
    "autocast": (lambda net: in_bfloat16(net), "torch.autocast is on"),
    "bfloat16": (lambda net: net.to(torch.bfloat16), "is to be bfloat16 on cpu"),
    "half": (lambda net: net.half(), "is to be float16 on cpu"),
    "device": (lambda net: net.to("meta"), "is to be float32 on meta"),
    "saving": (lambda net: net.save_pretrained("there"), "no weights to save"),
    "another size": (lambda net: net(torch.ones(1, 1, 16, 16), 0.5), r"shape \(batch, 4, 4, 4\)"),
}


def in_bfloat16(network):
    with torch.autocast("cpu", torch.bfloat16):
        return network(X, 0.5)


@pytest.mark.parametrize("case", CALLS)
def test_what_takes_pytorch_is_refused(other, case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call, message = CALLS[case]
    with pytest.raises(HDZooError, match=message):
        call(other)
    other.eval()
    # Nothing is left of the attempt.
    assert (other.dtype, other.device) == (torch.float32, torch.device("cpu"))
    assert other(X, 0.5).sample.isfinite().all()
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sample": torch.ones(2, 3, 8, 8, dtype=torch.float64)}, "sample is .*float64"),
        ({"sample": torch.ones(3, 8, 8)}, "sample is"),
        ({"sample": torch.ones(0, 3, 8, 8)}, "sample is"),
        ({"sample": [1.0]}, "sample is"),
        ({"timestep": torch.ones(3)}, "timestep is"),
        ({"class_labels": None}, "needs class_labels"),
        ({"class_labels": torch.ones(3).long()}, "class_labels is"),
    ],
)
def test_wrong_arguments(given, message):
    other = by_class()
    arguments = {"sample": torch.ones(2, 3, 8, 8), "timestep": 1, "class_labels": torch.ones(2)}
    assert other(**arguments).sample.shape == (2, 3, 8, 8)
    with pytest.raises(HDZooError, match=message):
        other(**arguments | given)


def test_labels_for_a_network_without_classes(other):
    with pytest.raises(HDZooError, match="takes no class_labels"):
        other.unet(torch.ones(1, 4, 4, 4), 1, torch.ones(1).long())


def test_another_graph_is_found_out(network, monkeypatch):
    trace, changed = onnx_unet._traced, copy.deepcopy(network.unet)
    with torch.no_grad():
        changed.conv_out.bias.add_(0.01)
    monkeypatch.setattr(onnx_unet, "_traced", lambda _, inputs: trace(changed, inputs))
    with pytest.raises(HDZooError, match=r"differs from PyTorch's result by 0\.01"):
        to_onnxruntime(network)


@pytest.mark.parametrize("graph", [b"", b"no graph at all"])
def test_no_graph_is_a_message(network, monkeypatch, graph):
    monkeypatch.setattr(onnx_unet, "_traced", lambda *_: graph)
    with pytest.raises(HDZooError, match="does not take this UNet2DModel over"):
        to_onnxruntime(network)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package(network, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(HDZooError, match=rf"needs the package {package}: pip install 'hdzoo\[onn"):
        to_onnxruntime(network)
