"""The model that travels with the package, `ncsn-mnist`."""

import json

import numpy as np
import pytest
import torch
from given import digits
from PIL import Image

from hdzoo import HDPipeline, get_preset, get_sampler
from hdzoo.bundled import bundled_models
from hdzoo.cards import pictures_in
from hdzoo.catalog import describe_model
from hdzoo.checksums import check_tensors
from hdzoo.images.sources import load_images
from hdzoo.pipelines.generators import sample_generators
from hdzoo.samplers.presets import DEFAULT_PRESET
from hdzoo.training.data import image_loader, image_transform
from hdzoo.training.losses import held_out_loss


@pytest.fixture(scope="module")
def pipe():
    pipe = HDPipeline.from_pretrained("ncsn-mnist")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_it_is_small_and_its_record_is_whole():
    folder = bundled_models()["ncsn-mnist"]
    assert sum(path.stat().st_size for path in folder.glob("unet/*.safetensors")) <= 10e6
    record = json.loads((folder / "training.json").read_text())
    assert record["num_images"] == 60_000
    assert record["command"].startswith("hdzoo train ")
    card = (folder / "README.md").read_text()
    assert record["command"] in card
    assert f"{record['seconds']:,} s" in card
    for package, version in record["versions"].items():
        assert f"| {package} | {version} |" in card


def test_its_range_covers_the_published_ladder_and_more(pipe):
    pipe.unet.check_sigmas([10.0, 1.0, 0.01])
    losses = pipe.unet.config.held_out_loss
    assert losses["sigmas"][0] == 0.01
    assert losses["sigmas"][-1] == 10.0
    # A share of the noise's variance, which no noise level leaves whole.
    assert all(0 < loss < 1 for loss in losses["loss"])


def test_its_own_sampler_is_a_preset(pipe):
    preset = get_preset(DEFAULT_PRESET)
    assert type(pipe.scheduler) is get_sampler(preset.sampler)
    own = preset.options(pipe.unet, pipe.scheduler.config)
    assert {key: pipe.scheduler.config[key] for key in own} == own
    assert pipe.scheduler.num_inference_steps == preset.num_inference_steps
    # A walk that takes its place is on the whole ladder.
    walk = get_sampler("annealed-langevin").from_config(pipe.scheduler.config)
    assert (walk.levels[0], walk.levels[-2], len(walk.timesteps)) == (5.0, 0.01, 200)


def test_the_recorded_loss_is_that_of_held_out_images(pipe):
    images = load_images(str(digits()), "test")
    transform = image_transform(28, 1, pipe.data_range)
    recorded = pipe.unet.config.held_out_loss
    # Ten groups of 10, each spread over the whole set, with other noise than the recorded.
    groups = torch.tensor(
        [
            held_out_loss(
                pipe.unet,
                image_loader(images.select(range(i, 100, 10)), transform, batch_size=10),
                seed=i + 1,
            )["loss"]
            for i in range(10)
        ]
    )
    mean, error = groups.mean(0), groups.std(0) / 10**0.5
    # Student's t with 9 degrees of freedom: 6 standard errors have p = 2e-4, at 10 noise levels.
    # They are from 11 % of a loss at the largest noise to 35 % where images differ most.
    assert ((mean - torch.tensor(recorded["loss"])).abs() < 6 * error).all()


def test_an_image_depends_on_its_seed_and_not_on_its_batch(pipe):
    def draw(indices):
        generator = sample_generators(0, indices)
        return pipe(len(indices), 20, generator=generator, output_type="pt", return_dict=False)[0]

    together = draw(range(8))
    for first, last in ((0, 1), (7, 8), (0, 5)):
        drawn = draw(range(first, last))
        difference = (drawn - together[first:last]).abs().max().item()
        # Identical noise; the convolutions round otherwise at another batch size (6e-8 of a pixel
        # in float32), and the chain carries it on. The promise is 1e-3 of the range [0, 1].
        assert difference <= 1e-3
    assert torch.equal(draw(range(5)), drawn)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("ncsn-cifar10", 30e6),
        ("ncsn-mnist-guided", 6e6),
        ("energy-mnist", 5e6),
        ("energy-mnist-cd", 5e6),
    ],
)
def test_the_others_are_small_and_their_records_are_whole(name, most):
    folder = bundled_models()[name]
    assert sum(path.stat().st_size for path in folder.glob("unet/*.safetensors")) <= most
    assert all(check_tensors(path) for path in folder.glob("**/*.safetensors"))
    record = json.loads((folder / "training.json").read_text())
    card = (folder / "README.md").read_text()
    assert record["command"] in card
    assert f"{record['seconds']:,} s" in card
    assert f"{record['config']['max_train_steps']:,} steps" in card
    for package, version in record["versions"].items():
        assert f"| {package} | {version} |" in card
    for picture in pictures_in(card):
        assert (folder / picture).is_file()


def test_the_network_in_colour_draws_what_its_card_shows():
    pipe = HDPipeline.from_pretrained("ncsn-cifar10")
    pipe.set_progress_bar_config(disable=True)
    assert pipe.scheduler.num_inference_steps == 20
    images = pipe(4, generator=sample_generators(0, range(4))).images
    # A grid of 8 x 8, each pixel twice as large.
    with Image.open(bundled_models()["ncsn-cifar10"] / "samples.png") as grid:
        row = np.asarray(grid.convert("RGB"), dtype=int)[:64:2, ::2]
    for i, image in enumerate(images):
        apart = np.abs(np.asarray(image, dtype=int) - row[:, 32 * i : 32 * (i + 1)])
        # Of 255. Another batch size or processor rounds otherwise, and the chain carries it on;
        # another image is 40 and more away.
        assert apart.mean() < 1


def test_the_guided_network_is_the_other_where_guidance_ends(pipe):
    both = HDPipeline.from_pretrained("ncsn-mnist-guided")
    said = describe_model("ncsn-mnist-guided")
    assert (said["guidance_scale"], said["guidance_interval"]) == (1.25, [0.3, 1.5])
    assert "guidance_scale" not in describe_model("ncsn-mnist")
    assert both.scheduler.num_inference_steps == 25
    low, high = both.unet.config.guidance_interval
    generator = sample_generators(0, range(4))
    digits, z = pipe(4, 10, generator=generator, output_type="pt").images, torch.randn(4, 1, 28, 28)
    apart = {}
    for sigma in (0.9 * low, 1.1 * low, 0.9 * high, 1.1 * high):
        noisy = digits + sigma * z
        with torch.no_grad():
            apart[sigma] = (both.unet(noisy, sigma).sample - pipe.unet(noisy, sigma).sample).abs()
    edges = list(apart.values())
    # Weights in float16, 2^-12 of each, through two dozen layers.
    assert all(edges[i].max() < 0.01 for i in (0, 3))
    assert all(edges[i].max() > 0.05 for i in (1, 2))


def test_the_energy_denoises_nearly_as_well_as_the_denoiser_that_it_starts_from(pipe):
    """Its gradient is no denoiser's own output, but that of an energy."""
    energy = HDPipeline.from_pretrained("energy-mnist").unet
    images = load_images(str(digits()), "test").select(range(0, 200, 5))
    loader = image_loader(images, image_transform(28, 1, pipe.data_range), batch_size=40)
    found, own = (
        held_out_loss(network, loader, seed=1, sigmas=(0.2, 1.0))["loss"]
        for network in (energy, pipe.unet)
    )
    # 20 % more at .2, 6 % more at 1, on these or on other images: the noise is the same.
    assert all(0.9 * b < a < 1.4 * b for a, b in zip(found, own, strict=True))


def test_the_energy_of_contrastive_divergence_tells_digits_from_noise():
    network = HDPipeline.from_pretrained("energy-mnist-cd").unet
    images = load_images(str(digits()), "test").select(range(0, 200, 5))
    transform = image_transform(28, 1, network.config.data_range)
    (real,) = image_loader(images, transform, batch_size=40)
    noise = torch.rand(real.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        inside, outside = (network.energy(x, 0.005) for x in (real, noise))
    assert inside.max() < outside.min()
