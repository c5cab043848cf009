"""Converted checkpoints against the authors' outputs, and the networks that they were made of."""

import argparse
import itertools
import json
import sys
from collections import defaultdict, deque
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from given import golden, has_golden
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from hdzoo import HDPipeline, NCSNModel, NCSNppModel, NCSNv2Model, cli
from hdzoo.conversion.config_file import AuthorsConfig
from hdzoo.conversion.convert import convert
from hdzoo.conversion.families import architecture
from hdzoo.conversion.settings import SETTINGS, find_setting
from hdzoo.conversion.topology import read_topology
from hdzoo.samplers import base
from hdzoo.samplers.ladders import geometric_ladder

NETWORKS = {
    "ncsnv1_cifar10_ngf8": lambda: NCSNModel(base_channels=8),
    "ncsnv2_cifar10_ngf8": lambda: NCSNv2Model(base_channels=8),
    "ncsnpp_cifar10_cont_nf8": lambda: NCSNppModel(base_channels=8, num_res_blocks=1),
}
at_hand = pytest.mark.parametrize(
    "name", [name for name in NETWORKS if has_golden(f"{name}.safetensors")]
)


def relative(a, b):
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


def score(network, x, timestep):
    with torch.no_grad():
        return network(x, timestep).sample


def randomise(network, seed=0):
    """Weights that no part of the network is blind to."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data.normal_(std=0.1, generator=generator)
    return network.eval()


def assert_same(loaded, network, x, timestep):
    """Equal weights; where they lie in memory decides on the kernel of a convolution."""
    state = network.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())
    out = score(loaded, x, timestep)
    assert out.isfinite().all()
    assert relative(out, score(network, x, timestep)) < 1e-5


def reloaded(made):
    """The pipeline in a folder, and a second one, whose outputs must be the same to the bit."""
    return HDPipeline.from_pretrained(made.folder), HDPipeline.from_pretrained(made.folder)


def test_golden_checkpoint(checkpoints, tmp_path):
    path = golden("ncsnv1_ckpt_ngf4.pth")
    made = convert(path, tmp_path / "out")
    data = load_file(golden("ncsnv1_ckpt_ngf4_io.safetensors"))
    pipe, again = reloaded(made)
    out = score(pipe.unet, data["x"], data["labels"])
    assert relative(out, data["y"]) < 1e-5
    assert torch.equal(score(again.unet, data["x"], data["labels"]), out)

    network = NCSNModel(base_channels=4).eval()
    weights, _ = torch.load(path, weights_only=True)
    network.load_state_dict({k.removeprefix("module."): v for k, v in weights.items()})
    assert_same(pipe.unet, network, data["x"], data["labels"])
    assert (made.source, made.averaged, made.num_parameters) == ("ncsn", False, 42_923)


@at_hand
@pytest.mark.parametrize("averaged", [True, False])
def test_golden_weights_in_the_authors_layout(name, averaged, checkpoints, tmp_path):
    weights, data = checkpoints.authors(name)
    other = {k: v + 1 if checkpoints.is_trained(k) else v for k, v in weights.items()}
    raw, shadow = (other, weights) if averaged else (weights, other)
    shadow = {key: value for key, value in shadow.items() if checkpoints.is_trained(key)}
    match name:
        case "ncsnv1_cifar10_ngf8":
            # The repository of NCSNv2 trains NCSN as well, and averages it.
            path = checkpoints.ncsnv2(raw, shadow)
        case "ncsnv2_cifar10_ngf8":
            path = checkpoints.ncsnv2(raw, shadow)
        case _:
            path = checkpoints.score_sde(raw, list(shadow.values()))
    made = convert(path, tmp_path / "out", use_averaged=averaged)
    pipe, again = reloaded(made)
    out = score(pipe.unet, data["in.x"], data["in.labels"])
    assert relative(out, data["out.y"]) < 1e-5
    assert torch.equal(score(again.unet, data["in.x"], data["in.labels"]), out)
    fresh = {k: v for k, v in NETWORKS[name]().config.items() if k[0] != "_"}
    assert {k: pipe.unet.config[k] for k in fresh} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in fresh.items()
    }
    assert made.averaged is averaged


@pytest.mark.parametrize("variant", ["deeper", "deepest"])
def test_deeper_variants_of_the_published_keys(variant, checkpoints, tmp_path):
    lines = golden(f"keys/keys_ncsnv2{variant}_ngf8.txt").read_text().splitlines()
    network = randomise(NCSNv2Model(base_channels=8, variant=variant))
    weights = checkpoints.published(network)
    keys = [f"{k} {list(v.shape)} {v.dtype}" for k, v in weights.items()]
    assert keys == [line.strip() for line in lines if line.strip()]
    made = convert(checkpoints.any(network), tmp_path / "out")
    pipe, again = reloaded(made)
    x, labels = torch.rand(2, 3, 16, 16), torch.tensor([0, 200])
    assert torch.equal(score(pipe.unet, x, labels), score(again.unet, x, labels))
    assert_same(pipe.unet, network, torch.rand(2, 3, 16, 16), torch.tensor([0, 200]))
    # Its ladder is CIFAR-10's, whose settings are taken: the variant does not tell the data set.
    assert made.dataset == "cifar10"


WIDTHS = {
    "ncsn-mnist": lambda: NCSNModel(sample_size=28, in_channels=1, base_channels=6),
    "ncsn-wide": lambda: NCSNModel(base_channels=12),
    "ncsnv2-celeba": lambda: NCSNv2Model(
        sample_size=64, base_channels=6, sigma_max=90.0, num_levels=500
    ),
    "discrete": lambda: NCSNppModel(
        base_channels=4, num_res_blocks=1, embedding="positional", dropout=0.0
    ),
    "deep": lambda: NCSNppModel(base_channels=4, channel_multipliers=(1, 2), num_res_blocks=8),
    "ffhq-256": lambda: NCSNppModel(
        sample_size=256,
        base_channels=4,
        channel_multipliers=(1, 1, 2, 2, 2, 2, 2),
        num_res_blocks=2,
        progressive="output_skip",
        progressive_input="input_skip",
        sigma_max=348.0,
        num_levels=2000,
    ),
    "wide": lambda: NCSNppModel(
        sample_size=64, base_channels=12, channel_multipliers=(1, 3, 2), num_res_blocks=2
    ),
}


@pytest.mark.parametrize("name", WIDTHS)
def test_networks_of_other_sizes(name, checkpoints, tmp_path):
    network = randomise(WIDTHS[name]())
    options = {"sde": "vesde"} if name == "discrete" else None
    made = convert(checkpoints.any(network), tmp_path / "out", options=options)
    pipe = HDPipeline.from_pretrained(made.folder)
    recorded = {k: v for k, v in network.config.items() if k[0] != "_" and k != "dropout"}
    assert {k: pipe.unet.config[k] for k in recorded} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in recorded.items()
    }
    pixels = 64 if name == "ffhq-256" else 16
    x = torch.rand(2, network.config.in_channels, pixels, pixels)
    for timestep in (torch.tensor([0, 9]), torch.tensor([1.0, 0.01])):
        assert_same(pipe.unet, network, x, timestep)


TOPOLOGIES = list(
    itertools.product(
        ((1,), (1, 2), (2, 1, 1), (1, 3, 1, 2)),
        (1, 2, 3),
        ((), (8,), (16, 8), (2,), (16, 8, 4, 2)),
        ("fourier", "positional"),
        ("none", "output_skip"),
        ("none", "input_skip", "residual"),
    )
)


# Every 31st of the 720, which meets every value of every option.
@pytest.mark.parametrize("topology", TOPOLOGIES[::31], ids=str)
def test_topologies_of_ncsnpp(topology, checkpoints):
    multipliers, blocks, attention, embedding, progressive, progressive_input = topology
    options = {
        "base_channels": 4,
        "in_channels": 2,
        "channel_multipliers": list(multipliers),
        "num_res_blocks": blocks,
        "embedding": embedding,
        "progressive": progressive,
        "progressive_input": progressive_input,
    }
    with torch.device("meta"):
        network = NCSNppModel(sample_size=16, attention_resolutions=attention, **options)
    found = read_topology(checkpoints.published(network))
    levels = found.pop("attention_levels")
    assert levels == [i for i in range(len(multipliers)) if 16 >> i in attention]
    if len(multipliers) == 1:
        # With one level, these make the same network.
        options |= {"progressive": "none", "progressive_input": "none"}
    assert found == options


# From the tables of the papers: pixels, sigma_1, L, T, epsilon.
PUBLISHED = {
    ("ncsn", "mnist"): (28, 1, 10, 100, 2e-5),
    ("ncsn", "cifar10"): (32, 1, 10, 100, 2e-5),
    ("ncsn", "celeba"): (32, 1, 10, 100, 2e-5),
    ("ncsnv2", "cifar10"): (32, 50, 232, 5, 6.2e-6),
    ("ncsnv2", "celeba"): (64, 90, 500, 5, 3.3e-6),
    ("ncsnv2", "church"): (64, 140, 788, 4, 4.9e-6),
    ("ncsnv2", "bedroom"): (128, 190, 1086, 3, 1.8e-6),
    ("ncsnv2", "tower"): (128, 190, 1086, 3, 1.8e-6),
    ("ncsnv2", "ffhq"): (256, 348, 2311, 3, 9e-7),
}


@pytest.mark.parametrize(("family", "dataset"), PUBLISHED)
def test_published_settings(family, dataset, checkpoints, tmp_path):
    pixels, sigma_max, num_levels, steps, step_size = PUBLISHED[family, dataset]
    if family == "ncsn":
        network = NCSNModel(base_channels=2, in_channels=1 if dataset == "mnist" else 3)
    else:
        network = NCSNv2Model(base_channels=2, sigma_max=float(sigma_max), num_levels=num_levels)
    made = convert(checkpoints.any(network), tmp_path / "out", dataset=dataset)
    assert made.dataset == dataset
    pipe = HDPipeline.from_pretrained(made.folder)
    scheduler = pipe.scheduler.config
    assert pipe.sample_shape[1:] == (pixels, pixels)
    assert (scheduler.sigma_max, scheduler.sigma_min) == (sigma_max, 0.01)
    assert (scheduler.num_levels, scheduler.steps_per_level) == (num_levels, steps)
    assert scheduler.step_size == step_size
    assert scheduler.hand_off == "own"
    assert scheduler.readout == (None if family == "ncsn" else "full")
    # The network knows what the sampler asks it.
    pipe.unet.check_sigmas(pipe.scheduler.sigmas[:-1].unique())


@pytest.mark.parametrize(("family", "dataset"), PUBLISHED)
def test_data_set_follows(family, dataset, tmp_path):
    """From the ladder where that is one data set's alone, and from the authors' config."""
    pixels, sigma_max, num_levels, _, _ = PUBLISHED[family, dataset]
    ladder = geometric_ladder(sigma_max, 0.01, num_levels)
    channels = 1 if dataset == "mnist" else 3
    lsun = {"church": "church_outdoor", "bedroom": "bedroom", "tower": "tower"}
    config = {"dataset": dataset.upper()}
    if dataset in lsun:
        config = {"dataset": "LSUN", "category": lsun[dataset]}
    (tmp_path / "config.yml").write_text(json.dumps({"data": config}))
    for told in (AuthorsConfig(), AuthorsConfig(tmp_path / "config.yml")):
        setting, name = find_setting(family, channels, ladder, None, told)
        assert setting.sample_size == pixels
        shared = {
            ("ncsn", "cifar10"),
            ("ncsn", "celeba"),
            ("ncsnv2", "bedroom"),
            ("ncsnv2", "tower"),
        }
        assert name == (None if not told.options and (family, dataset) in shared else dataset)


def test_sampler_of_ncsnpp(checkpoints, tmp_path):
    network = NCSNppModel(base_channels=4, num_res_blocks=1, embedding="positional")
    made = convert(checkpoints.any(network), tmp_path / "out", options={"sde": "vesde"})
    pipe = HDPipeline.from_pretrained(made.folder)
    pipe.unet.check_sigmas(pipe.scheduler.sigmas[:-1].unique())
    # As many evaluations as a predictor and a corrector at 1000 levels, and the final denoising.
    assert pipe.scheduler.num_inference_steps == 2001
    corrector, predictor = pipe.scheduler.moves[:2]
    below = pipe.scheduler.moves[2].sigma
    assert corrector.sigma == predictor.sigma == 50.0
    # Signal-to-noise ratio .16, and half of the variance between two levels.
    assert corrector.alpha == pytest.approx(2 * (0.16 * 50) ** 2, rel=1e-9)
    assert (predictor.alpha, predictor.noise) == (pytest.approx((50**2 - below**2) / 2), 0)
    assert pipe.scheduler.moves[-1].alpha == pytest.approx(0.01**2)


def test_every_setting_of_ncsnpp_converges():
    for setting in SETTINGS:
        assert 0 < setting.step_size < 2 * 0.01**2


def test_a_ladder_of_its_own(checkpoints, tmp_path):
    network = NCSNv2Model(base_channels=2, sigma_max=20.0, num_levels=30)
    made = convert(checkpoints.any(network), tmp_path / "out", dataset="cifar10")
    pipe = HDPipeline.from_pretrained(made.folder)
    assert pipe.scheduler.config.step_size == "ncsnv2"
    assert (pipe.scheduler.config.sigma_max, pipe.scheduler.config.num_levels) == (20.0, 30)

    uneven = NCSNv2Model(base_channels=2, sigma_levels=[3.0, 2.0, 0.5])
    made = convert(checkpoints.any(uneven), tmp_path / "uneven", dataset="cifar10")
    pipe = HDPipeline.from_pretrained(made.folder)
    assert pipe.unet.config.sigma_levels == pipe.scheduler.config.sigmas == [3.0, 2.0, 0.5]


CONFIG = """\
!!python/object:argparse.Namespace
data: !!python/object:argparse.Namespace
  channels: 3
  dataset: CIFAR10
  image_size: 16
  rescaled: true
device: !!python/object/apply:torch.device
- cuda
model: !!python/object:argparse.Namespace
  ngf: 2
  num_classes: 7
  sigma_begin: 4
  sigma_end: 1.0e-02
  sigma_dist: geometric
  shape: !!python/tuple [1, 2]
sampling: !!python/object:argparse.Namespace
  denoise: true
  n_steps_each: 9
  step_lr: 3e-06
"""


def test_what_the_authors_config_tells(checkpoints, tmp_path):
    network = NCSNModel(base_channels=2, sigma_max=4.0, num_levels=7)
    (tmp_path / "config.yml").write_text(CONFIG)
    made = convert(checkpoints.any(network), tmp_path / "out", config=tmp_path / "config.yml")
    pipe = HDPipeline.from_pretrained(made.folder)
    assert pipe.sample_shape == (3, 16, 16)
    assert pipe.unet.config.centered
    assert pipe.data_range == (-1.0, 1.0)
    config = pipe.scheduler.config
    assert (config.sigma_max, config.sigma_min, config.num_levels) == (4.0, 0.01, 7)
    assert (config.steps_per_level, config.step_size, config.readout) == (9, 3e-6, "full")


def test_what_a_config_of_ncsnpp_tells(checkpoints, tmp_path):
    network = NCSNppModel(
        sample_size=32,
        base_channels=4,
        channel_multipliers=(1, 1, 1),
        num_res_blocks=1,
        attention_resolutions=(32, 8),
        progressive_input="none",
        skip_rescale=False,
        scale_by_sigma=False,
        fir_kernel=(1.0, 1.0),
        sigma_max=7.0,
        num_levels=20,
    )
    path = checkpoints.any(randomise(network))
    (tmp_path / "config.yml").write_text(
        # As ml_collections writes it.
        "!!python/object:ml_collections.config_dict.config_dict.ConfigDict\n_locked: true\n"
        "_fields:\n  training: {sde: vesde}\n  sampling: {snr: 0.1}\n"
        "  data: {image_size: 32, centered: true, num_channels: 3}\n"
        "  model: {nf: 4, ch_mult: !!python/tuple [1, 1, 1], num_res_blocks: 1, fir: false, "
        "attn_resolutions: [32, 8], skip_rescale: false, scale_by_sigma: false, dropout: 0.3}\n"
    )
    made = convert(path, tmp_path / "out", config=tmp_path / "config.yml")
    pipe = HDPipeline.from_pretrained(made.folder)
    config = pipe.unet.config
    assert config.attention_resolutions == [32, 8]
    assert config.centered
    assert config.dropout == 0.3
    assert pipe.scheduler.config.step_size == pytest.approx(2 * (0.1 * 0.01) ** 2)
    x = torch.rand(2, 3, 32, 32)
    assert relative(score(pipe.unet, x, 0.5), score(network, (x + 1) / 2, 0.5)) < 1e-5


@pytest.mark.parametrize("fir", [True, False])
@pytest.mark.parametrize("scale_by_sigma", [True, False])
@pytest.mark.parametrize("skip_rescale", [True, False])
def test_what_the_weights_of_ncsnpp_do_not_tell(
    fir, scale_by_sigma, skip_rescale, checkpoints, tmp_path
):
    """All of these have the same names and shapes, and outputs that differ."""
    taps = (1.0, 3.0, 3.0, 1.0) if fir else (1.0, 1.0)
    network = NCSNppModel(
        base_channels=4,
        channel_multipliers=(1, 1),
        num_res_blocks=1,
        progressive_input="none",
        fir_kernel=taps,
        scale_by_sigma=scale_by_sigma,
        skip_rescale=skip_rescale,
    )
    path = checkpoints.any(randomise(network))
    options = {
        "sde": "vesde",
        "fir": fir,
        "scale_by_sigma": scale_by_sigma,
        "skip_rescale": skip_rescale,
        "centered": False,
    }
    made = convert(path, tmp_path / "out", options=options)
    pipe = HDPipeline.from_pretrained(made.folder)
    assert_same(pipe.unet, network, torch.rand(2, 3, 16, 16), torch.tensor([1.0, 0.01]))
    # What was said is not assumed.
    assert options.keys().isdisjoint(made.assumed)


def test_options_come_before_the_file(checkpoints, tmp_path):
    path = checkpoints.any(NCSNModel(base_channels=2))
    config = tmp_path / "config.yml"
    config.write_text("data: {image_size: 16}\nsampling: {n_steps_each: 9, step_lr: 1e-5}\n")
    made = convert(path, tmp_path / "out", config=config, options={"n_steps_each": 7})
    pipe = HDPipeline.from_pretrained(made.folder)
    assert pipe.sample_shape == (3, 16, 16)
    # A number that YAML takes for a word.
    assert (pipe.scheduler.config.steps_per_level, pipe.scheduler.config.step_size) == (7, 1e-5)


def test_what_is_assumed_is_written(checkpoints, tmp_path):
    network = NCSNppModel(base_channels=4, num_res_blocks=1, embedding="positional")
    options = {"sde": "vesde", "centered": False}
    made = convert(checkpoints.any(network), tmp_path / "out", options=options)
    # As in the authors' configs/ve/cifar10_ncsnpp.py and its defaults.
    published = {
        "scale_by_sigma": True,
        "fir_kernel": [1.0, 3.0, 3.0, 1.0],
        "skip_rescale": True,
        "dropout": 0.1,
        "image_size": 32,
        "resblock_type": "biggan",
        "progressive_combine": "sum",
        "attention_type": "ddpm",
        "nonlinearity": "swish",
        "normalization": "GroupNorm",
        "conditional": True,
        "resamp_with_conv": True,
    }
    record = json.loads((made.folder / "conversion.json").read_text())
    assert {name: record["assumed"].get(name) for name in published} == published
    assert record["assumed"].keys() - published.keys() <= {"fir"}
    assert record["options"] == options
    said, assumed = (made.folder / "README.md").read_text().split("### Assumed as published")
    assert "| sde | vesde |" in said.split("### Said")[1]
    for name in published:
        assert f"| {name} |" in assumed


def test_what_ncsn_assumes(checkpoints, tmp_path):
    made = convert(checkpoints.any(NCSNModel(base_channels=2)), tmp_path / "out")
    assert made.assumed == {
        "logit_transform": False,
        "nonlinearity": "elu",
        "normalization": "InstanceNorm++",
        "rescaled": False,
        "sigma_dist": "geometric",
        "sigma_begin": 1.0,
        "sigma_end": 0.01,
        "image_size": 32,
        "denoise": False,
        "n_steps_each": 100,
        "step_lr": 2e-5,
    }


def numpy_content():
    return {
        "lr": np.float64(1e-3),
        "steps": np.int64(3),
        "losses": np.arange(3.0),
        "names": np.array(["a", "b"]),
        "flag": np.bool_(True),
        "config": argparse.Namespace(lr=1e-3, data=SimpleNamespace(image_size=32)),
        "began": datetime(2020, 1, 1, tzinfo=UTC),
        "run": Path("runs") / "a",
        "state": defaultdict(dict, {0: {"step": 1}}),
        "last": deque([1.0, 2.0], maxlen=2),
        "epochs": range(3),
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("module", ["numpy._core", "numpy.core"])
def test_numpy_in_the_optimizer(zipped, module, checkpoints, tmp_path, monkeypatch):
    """NumPy's numbers say nothing of the weights; by their names in either of its versions. Nor do
    dates, paths and namespaces, which those who train keep beside them."""
    network = randomise(NCSNModel(base_channels=2))
    content = [checkpoints.published(network), numpy_content()]
    path = checkpoints.write(content, zipped)
    if not zipped:
        # Both names are in the pickle with their lengths told by line ends.
        path.write_bytes(path.read_bytes().replace(b"cnumpy._core.", f"c{module}.".encode()))
    made = convert(path, tmp_path / "out")
    assert_same(HDPipeline.from_pretrained(made.folder).unet, network, torch.rand(1, 3, 8, 8), 3)


@pytest.mark.parametrize(
    ("name", "network", "dataset", "options"),
    [
        ("ncsnv1_sampler_gauss", NCSNModel, "cifar10", {"steps_per_level": 5}),
        ("ncsnv2_sampler_gauss", NCSNv2Model, None, {"steps_per_level": 3, "num_levels": 12}),
    ],
)
def test_sampler_draws_as_the_authors(
    name, network, dataset, options, checkpoints, tmp_path, monkeypatch
):
    """On their noise and an exact score, from a start of theirs; they took fewer steps for it."""
    recorded = load_file(golden(f"{name}.safetensors"))
    std = json.loads(golden(f"{name}.json").read_text())["s"]
    made = convert(checkpoints.any(network(base_channels=2)), tmp_path / "out", dataset=dataset)
    config = HDPipeline.from_pretrained(made.folder).scheduler
    sampler = type(config).from_config(config.config, **options)
    noises = iter(recorded["noise"])
    monkeypatch.setattr(base, "randn_tensor", lambda *args, **kwargs: next(noises))
    x = recorded["init"]
    for t in sampler.timesteps:
        x = sampler.step((recorded["mu"] - x) / (std**2 + t.item() ** 2), t, x).prev_sample
    assert next(noises, None) is None
    # Eight float32 roundings of the largest number.
    end = recorded["x_last" if "x_last" in recorded else "final"]
    assert (x - end).abs().max() <= 1e-6 * end.abs().max()


def test_state_dict_alone(checkpoints, tmp_path):
    network = randomise(NCSNv2Model(base_channels=2))
    path = checkpoints.write(checkpoints.published(network), zipped=True)
    made = convert(path, tmp_path / "out")
    assert (made.source, made.averaged) == ("ncsnv2", False)
    assert_same(HDPipeline.from_pretrained(made.folder).unet, network, torch.rand(1, 3, 8, 8), 3)


def test_source_can_be_said(checkpoints, tmp_path):
    network = NCSNModel(base_channels=2)
    path = checkpoints.write(checkpoints.published(network))
    made = convert(path, tmp_path / "out", source="ncsnv2")
    assert made.source == "ncsnv2"
    assert "ermongroup/ncsnv2" in (made.folder / "README.md").read_text()
    # NCSNv2 without averaged weights, in the layout of the older repository.
    path = checkpoints.ncsn(checkpoints.published(NCSNv2Model(base_channels=2)))
    assert convert(path, tmp_path / "v2", source="ncsnv2").network == "NCSNv2Model"


@at_hand
def test_config_of_the_golden_networks(name, checkpoints):
    """What the authors' networks were made with does not contradict their weights."""
    options = json.loads(golden(f"{name}.json").read_text())["config"]
    path = checkpoints.folder / "config.yml"
    path.write_text(json.dumps(options))
    weights, _ = checkpoints.authors(name)
    plan = architecture(weights, AuthorsConfig(path))
    assert plan.build(32).config.sample_size == 32


def test_folder_is_ready_for_the_hub(checkpoints, tmp_path):
    network = randomise(NCSNModel(sample_size=28, in_channels=1, base_channels=2))
    path = checkpoints.any(network)
    folder = tmp_path / "new" / "ncsn-x"
    convert(path, folder, license="mit", command="hdzoo convert a b")
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "README.md",
        "conversion.json",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "hdzoo"
    assert card.data.pipeline_tag == "unconditional-image-generation"
    assert card.data.license == "mit"
    assert card.data.datasets == "ylecun/mnist"
    assert "arxiv:1907.05600" in card.data.tags
    record = json.loads((folder / "conversion.json").read_text())
    for fact in (record["sha256"], "GPL-3.0", "ermongroup/ncsn", "hdzoo convert a b"):
        assert fact in card.text
    assert len(record["sha256"]) == 64


def test_snippet_of_the_card_runs(checkpoints, tmp_path, monkeypatch):
    network = randomise(NCSNModel(sample_size=8, in_channels=1, base_channels=2))
    (tmp_path / "config.yml").write_text("data: {image_size: 8}\nsampling: {n_steps_each: 1}\n")
    made = convert(checkpoints.any(network), tmp_path / "out", config=tmp_path / "config.yml")
    snippet = (made.folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(made.folder)
    names = {}
    exec(snippet, names)
    assert len(names["images"]) == 16
    assert names["images"][0].size == (8, 8)


def test_command(checkpoints, tmp_path, monkeypatch, capsys):
    path, folder = checkpoints.any(NCSNv2Model(base_channels=2)), tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["hdzoo", "convert", str(path), str(folder), "--no-ema"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(folder)
    assert "NCSNv2Model of ncsnv2" in captured.err
    assert "not averaged, data set cifar10" in captured.err
    assert "assumed as published, for the weights do not tell: logit_transform=false, " in (
        captured.err
    )
    assert f"hdzoo convert {path} {folder} --no-ema" in (folder / "README.md").read_text()

    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert sorted(folder.parent.iterdir()) == sorted([folder, path])

    monkeypatch.setattr(sys, "argv", [*sys.argv, "--license", "mit"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "error: " in (said := capsys.readouterr().err)
    assert "has another README.md than this command writes" in said
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_an_empty_folder_is_filled(checkpoints, tmp_path):
    (tmp_path / "out").mkdir()
    made = convert(checkpoints.any(NCSNModel(base_channels=2)), tmp_path / "out")
    assert (made.folder / "model_index.json").is_file()
