"""The map from pictures to tensors, and the order of batches."""

from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from hdzoo.errors import HDZooError
from hdzoo.images.sources import load_images
from hdzoo.training.data import (
    StepBatchSampler,
    dequantized,
    flip_half,
    image_loader,
    image_transform,
)


def picture(value, size=(8, 8), mode="L"):
    return Image.new(mode, size, value)


def pixels(dataset):
    """All images of a grey 8x8 set as integers, through the loader."""
    loader = image_loader(dataset, image_transform(8, 1, (0.0, 255.0)), batch_size=7)
    return torch.cat(list(loader)).round().to(torch.uint8).numpy()[:, 0]


@pytest.mark.parametrize("data_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_pixels_map_exactly_to_the_ends_and_back(data_range):
    low, high = data_range
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    tensor = image_transform(16, 1, data_range)(ramp)
    assert tensor.dtype == torch.float32
    assert tensor.flatten()[0] == low
    assert tensor.flatten()[-1] == high
    back = ((tensor - low) / (high - low) * 255).round().to(torch.uint8)
    assert np.array_equal(back[0].numpy(), np.asarray(ramp))


def test_grey_and_colour_convert_as_pillow_does():
    colour = picture((200, 100, 50), mode="RGB")
    grey = image_transform(8, 1, (0.0, 255.0))(colour)
    assert grey.shape == (1, 8, 8)
    assert (grey == colour.convert("L").getpixel((0, 0))).all()
    back = image_transform(8, 3, (0.0, 255.0))(picture(90))
    assert back.shape == (3, 8, 8)
    assert (back == 90).all()
    kept = image_transform(8, 3, (0.0, 255.0))(colour)
    # 255 / 255 is 1, so these integers stay what they are.
    assert kept[:, 0, 0].tolist() == [200, 100, 50]


def test_two_channels_are_refused():
    with pytest.raises(HDZooError, match=r"in_channels is 2.*1 \(grey\) or 3"):
        image_transform(8, 2, (0.0, 1.0))


@pytest.mark.parametrize("wide", [True, False])
def test_the_centre_is_cropped(wide):
    # Column (or row) i of 12 holds i; the middle 8 are 2 to 9.
    lines = np.tile(np.arange(12, dtype=np.uint8), (8, 1))
    image = Image.fromarray(lines if wide else np.ascontiguousarray(lines.T))
    tensor = image_transform(8, 1, (0.0, 255.0))(image)[0]
    assert (tensor if wide else tensor.T)[0].tolist() == list(range(2, 10))


def test_resizing_is_pillows_bicubic():
    image = load_images("digits")[0]["image"]
    tensor = image_transform(16, 1, (0.0, 255.0))(image)[0]
    assert np.array_equal(tensor.numpy(), image.resize((16, 16), Image.Resampling.BICUBIC))


def test_workers_see_the_same_images():
    digits = load_images("digits").select(range(12))
    transform = image_transform(8, 1, (0.0, 1.0))
    alone, helped = (
        torch.cat(list(image_loader(digits, transform, workers, batch_size=4)))
        for workers in (0, 1)
    )
    assert torch.equal(alone, helped)


def test_an_epoch_is_a_permutation():
    batches = list(StepBatchSampler(10, 5, 0, range(6)))
    epochs = [batches[2 * i] + batches[2 * i + 1] for i in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(StepBatchSampler(10, 5, 1, range(6))) != batches


def test_the_incomplete_batch_is_left_out():
    batches = list(StepBatchSampler(11, 4, 0, range(4)))
    assert [len(batch) for batch in batches] == [4] * 4
    assert len({*batches[0], *batches[1]}) == len({*batches[2], *batches[3]}) == 8


@pytest.mark.parametrize("start", range(0, 13, 3))
def test_any_start_gives_the_tail(start):
    whole = list(StepBatchSampler(11, 4, 7, range(13)))
    tail = StepBatchSampler(11, 4, 7, range(start, 13))
    assert list(tail) == whole[start:]
    assert len(tail) == 13 - start


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_every_batch(processes):
    whole = list(StepBatchSampler(14, 6, 0, range(5)))
    parts = [list(StepBatchSampler(14, 6, 0, range(5), i, processes)) for i in range(processes)]
    for batch, *shares in zip(whole, *parts, strict=True):
        assert {len(share) for share in shares} == {6 // processes}
        assert sorted(chain(*shares)) == sorted(batch)


def test_batches_that_do_not_fit_are_refused():
    with pytest.raises(
        HDZooError, match="has 3 images and train_batch_size is 4; choose at most 3"
    ):
        StepBatchSampler(3, 4, 0, range(1))
    with pytest.raises(HDZooError, match="4 does not divide among 3 processes"):
        StepBatchSampler(8, 4, 0, range(1), 0, 3)


def test_half_of_the_images_are_mirrored():
    images = torch.arange(8.0).expand(4000, 1, 2, 8)
    torch.manual_seed(0)
    flipped = flip_half(images)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    same = (flipped == images).flatten(1).all(1)
    assert (mirrored ^ same).all()
    # Binomial(4000, 1/2) has the standard deviation 31.6; four of them.
    assert abs(mirrored.sum().item() - 2000) < 127
    torch.manual_seed(0)
    assert torch.equal(flip_half(images), flipped)


@pytest.mark.parametrize("data_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_noise_within_a_grey_level(data_range):
    """The level is known again exactly, and what is added to it is uniform."""
    low, high = data_range
    levels = torch.arange(256.0).expand(200, 1, 1, 256)
    images = low + (high - low) * levels / 255
    torch.manual_seed(0)
    found = dequantized(images, data_range)
    assert found.dtype == images.dtype
    assert low <= found.min()
    assert found.max() < high
    at = 256 * (found.double() - low) / (high - low)
    # float32 rounds k + u to 256 / 2^24 of a level.
    within = at - levels
    assert within.min() > -2e-5
    assert within.max() < 1 + 2e-5
    # 51,200 numbers: a mean of 1/2 to .0013, a variance of 1/12 to .0004; four of each.
    assert within.mean().item() == pytest.approx(1 / 2, abs=0.0052)
    assert within.var().item() == pytest.approx(1 / 12, abs=0.0016)
    torch.manual_seed(0)
    assert torch.equal(dequantized(images, data_range), found)
