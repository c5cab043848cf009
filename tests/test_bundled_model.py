"""The model that travels with the package, `ncsn-mnist`."""

import json
import os
from pathlib import Path

import pytest
import torch

from hdzoo import HDPipeline
from hdzoo.hub import bundled_models
from hdzoo.pipeline import sample_generators
from hdzoo.training.data import image_loader, image_transform, load_images
from hdzoo.training.trainer import held_out_loss

MNIST = Path(os.environ.get("HDZOO_MNIST", Path(__file__).parents[2] / "shared/data/mnist"))


@pytest.fixture(scope="module")
def pipe():
    pipe = HDPipeline.from_pretrained("ncsn-mnist")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_it_is_small_and_its_record_is_whole():
    folder = bundled_models()["ncsn-mnist"]
    assert sum(path.stat().st_size for path in folder.glob("**/*.safetensors")) <= 10e6
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


def test_the_recorded_loss_is_that_of_held_out_images(pipe):
    if not (MNIST / "test.parquet").is_file():
        pytest.skip(f"NOT CHECKED: no MNIST test images in {MNIST}; set HDZOO_MNIST")
    images = load_images(str(MNIST / "test.parquet"), "test").select(range(1000))
    loader = image_loader(images, image_transform(28, 1, pipe.data_range), batch_size=500)
    recorded = pipe.unet.config.held_out_loss
    losses = held_out_loss(pipe.unet, loader, seed=1)
    assert losses["sigmas"] == recorded["sigmas"]
    # The first 1,000 of the 10,000 images, other noise. The loss of an image has a relative spread
    # of at most 0.6 (it is largest at sigma = 10, where an image's content is all there is): five
    # standard errors of the mean of 1,000 are 0.1. That half of the set is written by students,
    # half by clerks, moves the mean of the first 1,000 by as much again.
    assert losses["loss"] == pytest.approx(recorded["loss"], rel=0.2)


def test_an_image_depends_on_its_seed_and_not_on_its_batch(pipe):
    def draw(indices):
        generator = sample_generators(0, indices)
        return pipe(len(indices), 40, generator=generator, output_type="pt", return_dict=False)[0]

    together = draw(range(64))
    for first, last in ((0, 1), (63, 64), (0, 7), (56, 63)):
        difference = (draw(range(first, last)) - together[first:last]).abs().max().item()
        # Identical noise; the convolutions round otherwise at another batch size (6e-8 of a pixel
        # in float32), and the chain carries it on. The promise is 1e-3 of the range [0, 1].
        assert difference <= 1e-3
    assert torch.equal(draw(range(7)), draw(range(7)))
