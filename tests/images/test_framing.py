"""Crops and resizes: the pixels of torchvision on PIL images, and the pictures that are refused."""

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from hdzoo.errors import HDZooError
from hdzoo.images.framing import INTERPOLATIONS, Framing
from hdzoo.images.picture import read_picture, white

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
RAMP_16 = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
# CelebA's own size, and those around it with odd margins.
SIZES = [(178, 218), (179, 219), (141, 143), (140, 140), (200, 151)]


def picture(width, height, channels=3):
    pixels = np.random.default_rng([width, height]).integers(0, 256, (height, width, channels))
    return Image.fromarray(pixels.astype(np.uint8).squeeze())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_celeba_as_published_is_torchvisions(size, channels):
    # NCSN and its followers: transforms.CenterCrop(140), transforms.Resize(64), which is bilinear.
    image = picture(*size, channels)
    theirs = v2.Compose([v2.CenterCrop(140), v2.Resize(64)])(image)
    ours = Framing(64, center_crop=140, interpolation="bilinear")(image)
    assert ours.mode == image.mode
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("side", [5, 33])
def test_every_interpolation_is_torchvisions(interpolation, side):
    image = picture(21, 18)
    resize = v2.Resize((side, side), v2.InterpolationMode(interpolation))
    theirs = v2.Compose([v2.CenterCrop(16), resize])(image)
    ours = Framing(side, 16, interpolation)(image)
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_without_a_crop_it_is_the_largest_square():
    image = picture(21, 16)
    assert np.array_equal(np.asarray(Framing(8)(image)), np.asarray(Framing(8, 16)(image)))


def test_without_a_side_nothing_is_resized():
    image = picture(21, 16)
    assert Framing()(image) is image
    cropped = np.asarray(Framing(center_crop=10)(image))
    # 11 and 6 pixels are taken away: half of 11 is rounded to 6.
    assert np.array_equal(cropped, np.asarray(image)[3:13, 6:16])


@pytest.mark.parametrize("size", [(139, 500), (500, 139)])
def test_a_picture_smaller_than_the_crop_is_refused(size):
    with pytest.raises(HDZooError, match=r"139.* pixels, and center_crop is 140; give at most 139"):
        Framing(64, 140)(Image.new("RGB", size))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": 0}, "sample_size is 0"),
        ({"side": 6.5}, "sample_size is 6.5"),
        ({"center_crop": -1}, "center_crop is -1"),
        ({"center_crop": True}, "center_crop is True"),
        ({"interpolation": "cubic"}, "image_interpolation_mode is 'cubic'; allowed are 'bicubic'"),
    ],
)
def test_what_is_no_frame_is_refused(options, message):
    with pytest.raises(HDZooError, match=message):
        Framing(**options)


@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_resizing_keeps_the_depth_and_the_range(mode):
    array = RAMP if mode == "L" else RAMP_16
    picture = read_picture(Image.fromarray(array), "it")
    resized = Framing(5)(picture)
    assert (resized.size, resized.mode) == ((5, 5), mode)
    # Pillow's own filter in floating point, to the rounding of the mode: of 8 bits in both
    # directions, of which the second adds weights of both signs, up to 1.3 together.
    exact = Image.fromarray(np.float32(array)).resize((5, 5), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(resized, float) - np.asarray(exact)).max() <= (
        1.2 if mode == "L" else 0.51
    )
    # A bicubic filter goes beyond the range at an edge.
    edge = np.where(np.arange(8) < 4, 0, white(picture)).astype(array.dtype)
    found = np.asarray(Framing(16)(Image.fromarray(np.tile(edge, (8, 1)))))
    assert (found.min(), found.max()) == (0, white(picture))
    assert np.all(np.diff(found[0].astype(int)) >= 0)
