"""Pictures that a user gives to a pipeline: depth, transparency, orientation, size, masks."""

import io
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pngs import png

from hdzoo import GaussianMixtureScore, HDInpaintPipeline, HDPipeline, HDZooError, get_sampler
from hdzoo.pipelines.pictures import read_pictures, resize

BLACK, WHITE = np.zeros((4, 4), bool), np.ones((4, 4), bool)
LEFT = np.arange(4) < np.full((4, 1), 2)
RAMP_16 = np.linspace(0, 65535, 16).round().astype(np.uint16).reshape(4, 4)
# None is 0 or 255, where what is painted may end.
STORED = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16 + 8
COLOURS = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)


def turned(orientation, array=STORED):
    """A picture that a viewer turns, as a file that is opened."""
    exif = Image.Exif()
    exif[0x112] = orientation
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG", exif=exif)
    file.seek(0)
    return Image.open(file)


@pytest.fixture(scope="module")
def pipes():
    network = GaussianMixtureScore.from_components(
        torch.zeros(16), 0.1 * torch.ones(16), sample_shape=(1, 4, 4), data_range=(0.0, 1.0)
    )
    sampler = get_sampler("annealed-langevin")(sigma_max=1.0, sigma_min=0.1, num_levels=3)
    pipes = [kind(network, sampler) for kind in (HDPipeline, HDInpaintPipeline)]
    for pipe in pipes:
        pipe.set_progress_bar_config(disable=True)
    return pipes


@pytest.fixture
def start(pipes, monkeypatch):
    """What ``image=`` of a picture starts from, without noise."""

    def start(image):
        found = []
        monkeypatch.setattr(
            type(pipes[0].scheduler),
            "add_noise",
            lambda self, clean, noise, timestep: found.append(clean) or clean,
        )
        pipes[0](image=image, num_inference_steps=3)
        return found[0][0, 0].numpy()

    return start


@pytest.fixture
def paint(pipes):
    """What is painted, in [0, 1]."""

    def paint(image, mask_image, seed=0):
        generator = torch.Generator().manual_seed(seed)
        options = {"num_inference_steps": 3, "generator": generator, "output_type": "pt"}
        return pipes[1](image, mask_image, **options).images[0, 0].numpy()

    return paint


# ---- depth ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_sixteen_bits_of_grey_are_all_there(start, paint, mode):
    array = RAMP_16.astype(">u2" if mode == "I;16B" else "<u2")
    image = Image.frombytes(mode, (4, 4), array.tobytes())
    expected = np.float32(RAMP_16) / 65535
    assert np.array_equal(start(image), expected)
    with pytest.warns(UserWarning, match="paints nothing"):
        assert np.array_equal(paint(image, BLACK), expected)
    # As a mask: white from the half on, which is the second half of the ramp.
    assert np.array_equal(paint(STORED / 255, image) == np.float32(STORED / 255), RAMP_16 < 32768)


@pytest.mark.parametrize("image", [Image.new("I", (4, 4), 9), Image.new("F", (4, 4), 0.5)])
def test_pictures_of_no_known_range_are_refused(start, paint, image):
    for call in (start, partial(paint, mask_image=BLACK)):
        with pytest.raises(HDZooError, match=f"image has the mode '{image.mode}', whose range"):
            call(image)
    with pytest.raises(HDZooError, match=f"mask_image has the mode '{image.mode}'"):
        paint(STORED / 255, image)


def test_a_file_is_named(tmp_path):
    Image.new("F", (4, 4)).save(tmp_path / "deep.tiff")
    images = [Image.new("L", (4, 4)), Image.open(tmp_path / "deep.tiff")]
    with pytest.raises(HDZooError, match=r"^image\[1\] \(.*deep.tiff\) has the mode 'F'"):
        read_pictures("image", images, 1)
    Image.fromarray(COLOURS).save(tmp_path / "cut.png")
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[:60])
    with pytest.raises(HDZooError, match=r"^image \(.*cut.png\) cannot be read"):
        read_pictures("image", Image.open(tmp_path / "cut.png"), 1)


# ---- transparency ---------------------------------------------------------------------------

MASKS = {
    "white on transparency": Image.fromarray(
        np.dstack([np.uint8(255 * WHITE), np.uint8(255 * LEFT)])
    ),
    "shape in alpha": Image.fromarray(np.dstack([np.uint8(BLACK)] * 3 + [np.uint8(255 * LEFT)])),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_transparency_is_refused_in_pictures_and_masks(start, paint, mask):
    with pytest.raises(HDZooError, match=r"^mask_image has transparent pixels"):
        paint(STORED / 255, mask)
    with pytest.raises(HDZooError, match=r"^image has transparent pixels"):
        start(mask)


def test_an_alpha_channel_that_hides_nothing_changes_nothing(start):
    opaque = Image.fromarray(STORED).convert("RGBA")
    assert np.array_equal(start(opaque), np.float32(STORED) / 255)


# ---- masks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "painted", "values"),
    [
        (Image.fromarray(np.uint8(BLACK)), "nothing", "from 0 to 0,"),
        # Ones and zeros in eight bits: all is black.
        (Image.fromarray(np.uint8(LEFT)), "nothing", "from 0 to 0.00392,"),
        (np.where(LEFT, 0.4, 0.1), "nothing", "from 0.1 to 0.4,"),
        (Image.fromarray(WHITE), "everything", "from 1 to 1,"),
        (WHITE, "everything", "from 1 to 1,"),
        (np.stack([LEFT, BLACK]), "nothing", "^1 of the 2 masks"),
    ],
)
def test_masks_that_paint_nothing_or_all_are_said(paint, mask, painted, values):
    with pytest.warns(UserWarning, match="paints") as said:
        paint(STORED / 255, mask)
    text = str(said[0].message)
    assert f"paints {painted}" in text
    assert values.lstrip("^") in text


@pytest.mark.parametrize(
    "mask", [LEFT, Image.fromarray(LEFT), Image.fromarray(np.uint8(255 * LEFT))]
)
def test_masks_that_paint_a_part_are_not(paint, mask):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        painted = paint(Image.fromarray(STORED), mask)
    assert np.array_equal(painted == np.float32(STORED) / 255, ~LEFT)


def test_colours_that_a_grey_network_cannot_have_are_said():
    with pytest.warns(UserWarning, match="image has colours, of which the brightness alone"):
        read_pictures("image", Image.fromarray(COLOURS), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_pictures("image", Image.fromarray(COLOURS), 3)
        read_pictures("image", Image.fromarray(STORED).convert("RGB"), 1)


# ---- orientation and size -------------------------------------------------------------------


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_pictures_and_masks_are_turned_as_their_exif_says(start, paint, orientation, turns):
    expected = np.rot90(np.float32(STORED) / 255, turns)
    assert np.array_equal(start(turned(orientation)), expected)
    # A mask of the left half, stored in the other way.
    mask = turned(orientation, np.ascontiguousarray(np.rot90(np.uint8(255 * LEFT), -turns)))
    assert np.array_equal(paint(turned(orientation), mask) == expected, ~LEFT)


def test_a_size_that_is_turned_is_that_of_the_viewer():
    tall = np.repeat(STORED, 2, axis=0)
    assert read_pictures("image", turned(6, tall), 1).shape == (1, 1, 4, 8)


def test_another_size_is_resized_with_a_note_the_same_in_every_form(start, paint):
    pixels = np.kron(STORED, np.ones((3, 2))).astype(np.uint8)
    forms = (
        Image.fromarray(pixels),
        pixels[..., None] / np.float32(255),
        torch.from_numpy(pixels / np.float32(255))[None, None],
    )
    found = []
    for image in forms:
        with pytest.warns(
            UserWarning, match="image is 8 x 12 pixels .* resized to the network's 4 x 4"
        ):
            found.append(start(image))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    # Blocks of 3 x 2, to what the filter takes from their neighbours, 16 to 64 brighter.
    assert np.abs(found[0] - STORED / 255).max() < 8 / 255
    mask = Image.fromarray(np.kron(np.uint8(255 * LEFT), np.ones((3, 2), np.uint8)))
    with pytest.warns(UserWarning, match="mask_image is 8 x 12 pixels"):
        painted = paint(forms[0], mask)
    assert np.array_equal(painted[:, 2:], found[0][:, 2:])


def test_a_resized_edge_stays_in_the_range():
    edge = torch.from_numpy(np.float32(np.arange(8) >= 4)).expand(1, 1, 8, 8)
    with pytest.warns(UserWarning, match="image is 8 x 8"):
        found = resize("image", edge, 13, 13)
    assert (found.min(), found.max()) == (0, 1)
    assert resize("image", edge, 8, 8) is edge


# ---- the command ----------------------------------------------------------------------------


@pytest.fixture
def inpaint(run, pipes, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    pipes[0].save_pretrained("model")
    Image.fromarray(STORED).save("image.png")
    Image.fromarray(np.uint8(255 * LEFT)).save("mask.png")

    def call(image, mask="mask.png"):
        code, _, err = run("inpaint", "model", image, mask, "-t", 3, "-O", "out.png")
        return code, err, np.asarray(Image.open("out.png")) if code == 0 else None

    return call


def test_the_command_reads_the_same_pictures(inpaint):
    Image.fromarray(RAMP_16).save("deep.png")
    code, err, painted = inpaint("deep.png")
    assert code == 0, err
    # To the eight bits of the grid.
    assert np.array_equal(painted[~LEFT], np.round(RAMP_16 / 257)[~LEFT])
    turned(6).save("turned.png", exif=turned(6).getexif())
    assert np.array_equal(inpaint("turned.png")[2][~LEFT], np.rot90(STORED, -1)[~LEFT])
    Image.fromarray(np.uint8(LEFT)).save("ones.png")
    code, err, painted = inpaint("image.png", "ones.png")
    assert "warning: mask_image paints nothing: its values are from 0 to 0.00392" in err
    assert np.array_equal(painted, STORED)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clear.png", "'clear.png' has transparent pixels"),
        ("deep.png", "'deep.png' has 16 bits a channel in the mode 'RGB'"),
        ("cut.png", "'cut.png' cannot be read"),
        ("bomb.png", "'bomb.png' has more than 67,108,864 pixels by its header"),
        ("https://localhost:1/a.png", "https://localhost:1/a.png does not give a picture"),
    ],
)
def test_the_command_refuses_by_the_name_of_the_file(inpaint, name, message):
    Image.fromarray(np.dstack([COLOURS, STORED])).save("clear.png")
    Path("deep.png").write_bytes(png(4, 4, 16, 2, (b"\0" + bytes(24)) * 4))
    Path("bomb.png").write_bytes(png(30000, 30000, 8, 0, bytes(99)))
    Image.fromarray(COLOURS).save("cut.png")
    Path("cut.png").write_bytes(Path("cut.png").read_bytes()[:60])
    code, err, _ = inpaint(name)
    assert code == 2
    assert f"error: {message}" in err


def test_a_file_whose_name_is_an_address_is_that_file(inpaint, tmp_path):
    folder = tmp_path / "http:" / "host"
    folder.mkdir(parents=True)
    Image.fromarray(STORED).save(folder / "a.png")
    code, err, painted = inpaint("http://host/a.png")
    assert code == 0, err
    assert np.array_equal(painted[~LEFT], STORED[~LEFT])
