"""What of a network follows from the images: its options, and what is refused."""

import dataclasses

import datasets
import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from PIL import Image
from pngs import png
from torchvision.transforms import v2

from hdzoo import HDPipeline, plugins
from hdzoo.errors import HDZooError
from hdzoo.images.framing import Framing
from hdzoo.images.images import Images
from hdzoo.images.sources import load_images
from hdzoo.models.unet import UNetScoreModel
from hdzoo.training.fitting import check_images, options_for
from hdzoo.training.run import Run
from hdzoo.training.trainer import TrainingConfig, train

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(60, 200, (40, 32, 32, 3), dtype=np.uint8)
GREYS = RNG.integers(0, 90, (40, 8, 8), dtype=np.uint8)
RESIZED = TrainingConfig(resize=True)


def images_of(arrays, name="some"):
    features = datasets.Features({"image": datasets.Image()})
    rows = {"image": [Image.fromarray(array) for array in arrays]}
    return Images(datasets.Dataset.from_dict(rows, features=features), name)


@pytest.fixture(scope="module")
def colours():
    return images_of(COLOURS)


@pytest.fixture(scope="module")
def greys():
    return images_of(GREYS)


def test_size_channels_and_moments_are_those_of_the_images(colours, greys):
    scaled = COLOURS / 255
    assert options_for("unet", {"sigma_max": 3.0}, colours) == {
        "sample_size": 32,
        "in_channels": 3,
        "data_mean": pytest.approx(scaled.mean(), rel=1e-3),
        "data_std": pytest.approx(scaled.std(), rel=1e-3),
        "sigma_max": 3.0,
    }
    scaled = 2 * GREYS / 255 - 1
    found = options_for("unet", {"data_range": [-1, 1]}, greys)
    assert (found["sample_size"], found["in_channels"]) == (8, 1)
    assert found["data_mean"] == pytest.approx(scaled.mean(), rel=1e-3)
    assert found["data_std"] == pytest.approx(scaled.std(), rel=1e-3)


def test_a_network_gets_those_options_that_it_has(colours):
    assert options_for("ncsn", {"num_levels": 4}, colours) == {
        "num_levels": 4,
        "sample_size": 32,
        "in_channels": 3,
    }
    assert options_for("gaussian-mixture", {}, colours) == {}


def test_networks_of_plugins_too(monkeypatch, greys):
    monkeypatch.setattr(plugins, "get", lambda kind, name: UNet2DModel)
    assert options_for("theirs", {}, greys) == {
        "sample_size": 8,
        "in_channels": 1,
        "out_channels": 1,
    }


def test_what_is_given_and_agrees_is_kept(greys):
    mean, std = (GREYS / 255).mean(), (GREYS / 255).std()
    given = {
        "sample_size": 8,
        "in_channels": 1,
        "data_mean": mean + 0.09 * std,
        "data_std": 1.09 * std,
    }
    assert options_for("unet", given, greys) == given
    # Null is not given.
    assert options_for("unet", {"sample_size": None}, greys)["sample_size"] == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sample_size": 28},
            "sample_size is 28, and the images of some are 32 x 32 pixels; give 32",
        ),
        ({"sample_size": "32"}, "sample_size is '32'"),
        ({"sample_size": 0}, "sample_size is 0"),
        ({"in_channels": 1}, "in_channels is 1, and the images of some have 3; leave it out"),
        ({"in_channels": 4}, "in_channels is 4"),
        (
            {"data_mean": 0.3},
            r"data_mean is 0.3, and that of the images of some is 0.\d+, in the units",
        ),
        ({"data_std": 0.5}, "data_std is 0.5, and that of the images of some is"),
        ({"data_std": "a"}, "data_std is 'a'"),
        ({"data_mean": float("nan")}, "data_mean is nan"),
        ({"data_range": [-1, 1], "data_mean": 0.5}, r"the units of data_range \(-1 to 1\)"),
        ({"data_range": 3}, "data_range is 3; give two numbers"),
    ],
)
def test_options_that_contradict_the_images_are_refused(colours, options, message):
    with pytest.raises(HDZooError, match=message):
        options_for("unet", options, colours)


def test_three_channels_for_grey_images_are_refused_and_one_for_grey_in_rgb_is_not(greys):
    with pytest.raises(HDZooError, match="in_channels is 3, and the images of some have 1"):
        options_for("unet", {"in_channels": 3}, greys)
    stored = images_of([np.dstack([array] * 3) for array in GREYS])
    assert options_for("unet", {}, stored)["in_channels"] == 3
    assert options_for("unet", {"in_channels": 1}, stored)["in_channels"] == 1


@pytest.mark.parametrize("arrays", [[GREYS[0], GREYS[0, :4, :4]], GREYS[:, :6]])
def test_images_that_are_no_squares_of_one_size_are_refused_unless_resized(arrays):
    images = images_of(arrays)
    for options in ({}, {"sample_size": 8}):
        with pytest.raises(
            HDZooError, match=r"squares of one size; resize=True \(--resize\) crops"
        ):
            options_for("unet", options, images)
    with pytest.raises(HDZooError, match="network's sample_size, which is to be given"):
        options_for("unet", {}, images, RESIZED)
    assert options_for("unet", {"sample_size": 4}, images, RESIZED)["sample_size"] == 4


def test_networks_that_are_no_squares_are_refused(greys, tmp_path):
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    network = UNet2DModel((8, 16), 1, 1, block_out_channels=(8, 8), norm_num_groups=4, **blocks)
    network.register_to_config(sigma_min=0.01, sigma_max=2.0)
    config = TrainingConfig(max_train_steps=1, sigma_distribution="log-uniform")
    for resize, message in ((False, "images of some are 8 x 8 pixels"), (True, "a whole number")):
        with pytest.raises(HDZooError, match=rf"sample_size is \(8, 16\).*{message}"):
            train(network, greys, tmp_path / "x", dataclasses.replace(config, resize=resize))
    assert not (tmp_path / "x").exists()


def test_with_resizing_the_moments_are_those_of_what_the_network_sees(greys):
    found = options_for("unet", {"sample_size": 2}, greys, RESIZED)
    seen = [np.asarray(image.resize((2, 2), Image.Resampling.BICUBIC)) for image in greys]
    assert found["data_std"] == pytest.approx((np.array(seen) / 255).std(), rel=1e-3)
    assert found["data_std"] < (GREYS / 255).std() / 2


def test_images_of_one_value_have_no_deviation():
    for level in (0, 50, 77, 200, 255):
        flat = images_of([np.full((8, 8), level, np.uint8)] * 3)
        with pytest.raises(HDZooError, match="all pixels of some are the same; give the data_std"):
            options_for("unet", {}, flat)


# ---- a network that is there ----------------------------------------------------------------

TINY = {"block_out_channels": (8,), "norm_num_groups": 4}
CONFIG = TrainingConfig(
    max_train_steps=1, train_batch_size=4, sigma_distribution="log-uniform", lr_warmup_steps=0
)


def test_images_of_another_size_or_with_colours_are_refused_before_anything_is_written(
    colours, greys, tmp_path
):
    network = UNetScoreModel(sample_size=8, **TINY)
    for images, held_out, message in (
        (colours, None, "sample_size is 8, and the images of some are 32 x 32"),
        (greys, colours, "sample_size is 8, and the images of some are 32 x 32"),
        (
            images_of(COLOURS[:, :8, :8]),
            None,
            "the images of some have colours, and in_channels is 1",
        ),
        (images_of(np.float32(GREYS)), None, "row 0 of some has the mode 'F'"),
    ):
        with pytest.raises(HDZooError, match=message):
            train(network, images, tmp_path / "run", CONFIG, held_out=held_out)
        assert not (tmp_path / "run").exists()
    # Three equal channels lose nothing.
    check_images(UNetScoreModel(sample_size=8, in_channels=3, **TINY), greys)
    check_images(network, images_of(GREYS[:, :6]), Framing(8))


def test_damaged_images_are_refused_before_anything_is_written(tmp_path):
    rows = (
        load_images("digits").select(range(60)).cast_column("image", datasets.Image(decode=False))
    )
    rows = rows.to_list()
    rows[41]["image"]["bytes"] = rows[41]["image"]["bytes"][:60]
    damaged = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    network = UNetScoreModel(sample_size=8, **TINY)
    for held_out, message in (
        (None, "row 41 of mine"),
        (damaged, "row 41 of the held-out data set"),
    ):
        images = damaged if held_out is None else load_images("digits")
        with pytest.raises(HDZooError, match=f"^{message} cannot be read"):
            train(network, images, tmp_path / "run", CONFIG, held_out=held_out, dataset_name="mine")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_is_damaged_meanwhile_is_one_message(tmp_path, num_workers):
    (tmp_path / "data").mkdir()
    for i in range(8):
        Image.fromarray(GREYS[i]).save(tmp_path / "data" / f"{i}.png")
    images = Images(load_images(tmp_path / "data"), str(tmp_path / "data"))
    images.survey()
    (tmp_path / "data" / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    network = UNetScoreModel(sample_size=8, **TINY)
    # An epoch, so that its turn comes.
    config = dataclasses.replace(CONFIG, max_train_steps=2)
    with pytest.raises(HDZooError, match=r"cannot be read|no picture") as caught:
        train(network, images, tmp_path / "run", config, num_workers=num_workers)
    assert "5.png" in str(caught.value)
    assert "Traceback" not in str(caught.value)


# ---- the command ----------------------------------------------------------------------------

QUICK = ("--max-train-steps", 1, "--train-batch-size", 4)


def test_the_command_takes_size_channels_and_moments_from_the_data(run, tmp_path):
    pictures, folder = tmp_path / "pictures", tmp_path / "run"
    pictures.mkdir()
    for i, array in enumerate(COLOURS):
        Image.fromarray(array).save(pictures / f"{i:02d}.png")
    arguments = ("train", "--dataset", pictures, "--output-dir", folder, *QUICK)
    options = ("-m", "block_out_channels=[8]", "-m", "norm_num_groups=4")
    code, _, err = run(*arguments, *options)
    assert code == 0, err
    assert "40 images, 32 x 32 pixels, colour; mean 0.5" in err
    assert "(of all;" in err
    assert "sample_size=32, in_channels=3" in err
    pipe = HDPipeline.from_pretrained(folder)
    assert pipe.sample_shape == (3, 32, 32)
    assert pipe.unet.config.data_mean == pytest.approx((COLOURS / 255).mean(), rel=1e-3)
    assert pipe.unet.config.data_std == pytest.approx((COLOURS / 255).std(), rel=1e-3)
    assert torch.isfinite(next(pipe.unet.parameters())).all()
    for contradiction in ("in_channels=1", "sample_size=28", "data_mean=0.1", "data_std=0.5"):
        code, out, err = run(*arguments, *options, "-m", contradiction)
        assert (code, out) == (2, "")
        assert f"error: {contradiction.partition('=')[0]} is " in err


def test_an_output_folder_among_the_images_is_refused(run, tmp_path):
    for i in range(8):
        Image.fromarray(GREYS[i]).save(tmp_path / f"{i}.png")
    (tmp_path / "out").mkdir()
    (tmp_path.parent / "link").symlink_to(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    options = ("-m", "block_out_channels=[8]", "-m", "norm_num_groups=4", *QUICK)
    # Each says where the pictures are: the folder itself, one in it, one that is there, a link.
    for output in (
        tmp_path,
        tmp_path / "run" / "1",
        tmp_path / "out",
        tmp_path.parent / "link/run",
    ):
        code, out, err = run("train", "--dataset", tmp_path, "--output-dir", output, *options)
        assert (code, out) == (2, "")
        assert f"is in the folder of the images, {tmp_path}" in err
        assert sorted(tmp_path.rglob("*")) == before
    held_out = ("--held-out", tmp_path, "--held-out-split", "train")
    code, _, err = run(
        *("train", "--dataset", "digits", "--output-dir", tmp_path / "run"), *held_out, *options
    )
    assert code == 2
    assert f"is in the folder of the images, {tmp_path}" in err


def test_the_command_crops_and_resizes_if_it_is_told_to(run, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(8):
        Image.fromarray(GREYS[i, :, : 8 - i % 2]).save(pictures / f"{i}.png")
    arguments = ("train", "--dataset", pictures, "--output-dir", tmp_path / "run", *QUICK)
    options = ("-m", "block_out_channels=[8]", "-m", "norm_num_groups=4", "-m", "sample_size=4")
    code, _, err = run(*arguments, *options)
    assert code == 2
    assert "7 x 8 to 8 x 8 pixels" in err
    code, _, err = run(*arguments, *options[:-1], "sample_size=a", "--resize")
    assert code == 2
    assert "sample_size is 'a'; it must be a whole number" in err
    code, _, err = run(*arguments, *options, "--resize")
    assert code == 0, err
    assert HDPipeline.from_pretrained(tmp_path / "run").sample_shape == (1, 4, 4)


@pytest.fixture
def faces(tmp_path):
    """Pictures as CelebA's, of several sizes and kinds, in 12 to 24 pixels."""
    folder = tmp_path / "faces"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, (width, height) in enumerate([(18, 22), (19, 22), (24, 15), (14, 14)] * 2):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert("L" if i == 3 else "RGB").save(folder / f"{i}.png")
    # An alpha channel that hides nothing.
    Image.new("RGBA", (16, 16), (200, 10, 10, 255)).save(folder / "8.png")
    return folder


def framed(folder):
    """As published, by torchvision: crop, bilinear, 0 to 1; greys in three equal channels."""
    to_size = v2.Compose([v2.CenterCrop(14), v2.Resize(4)])
    pictures = (Image.open(path).convert("RGB") for path in sorted(folder.iterdir()))
    return np.stack([np.asarray(to_size(picture)) for picture in pictures]) / 255


CELEBA = TrainingConfig(
    max_train_steps=1,
    train_batch_size=9,
    sigma_distribution="log-uniform",
    center_crop=14,
    resize=True,
    image_interpolation_mode="bilinear",
)


def test_a_network_sees_the_crops_of_celeba_as_published(faces, tmp_path, monkeypatch):
    images = Images(load_images(str(faces)), str(faces))
    expected = framed(faces)
    options = options_for("unet", {"sample_size": 4}, images, CELEBA)
    assert options["in_channels"] == 3
    # To four digits.
    assert options["data_mean"] == pytest.approx(expected.mean(), rel=1e-3)
    assert options["data_std"] == pytest.approx(expected.std(), rel=1e-3)
    seen = []
    monkeypatch.setattr(Run, "step", lambda self, step, batch: seen.append(batch))
    network = UNetScoreModel(**options, block_out_channels=(8,), norm_num_groups=4)
    train(network, images, tmp_path / "run", CELEBA, num_samples=0)
    found = np.sort(seen[0].permute(0, 2, 3, 1).numpy(), axis=0)
    # To the rounding of float32.
    assert np.abs(found - np.sort(expected, axis=0)).max() < 1e-6


def test_a_crop_alone_is_the_size_of_the_network(faces):
    images = Images(load_images(str(faces)), str(faces))
    config = TrainingConfig(center_crop=12)
    assert options_for("unet", {}, images, config)["sample_size"] == 12
    with pytest.raises(HDZooError, match=r"sample_size is 8, .*, cropped to 12 x 12; give 12, or"):
        options_for("unet", {"sample_size": 8}, images, config)


def corrupt(path):
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda path: Image.new("RGB", (13, 40)).save(path),
            "5.png is 13 x 40 pixels, and center_crop is 14; give at most 13",
        ),
        (lambda path: Image.new("RGBA", (18, 22)).save(path), "5.png has transparent pixels"),
        (
            lambda path: path.write_bytes(png(18, 22, 16, 2, bytes(22 * (1 + 6 * 18)))),
            "5.png has 16 bits a channel",
        ),
        (corrupt, "5.png cannot be read"),
    ],
)
def test_what_cannot_be_framed_is_refused_by_its_name(faces, tmp_path, spoil, message):
    spoil(faces / "5.png")
    network = UNetScoreModel(4, 3, block_out_channels=(8,), norm_num_groups=4)
    with pytest.raises(HDZooError, match=message):
        train(network, Images(load_images(str(faces)), str(faces)), tmp_path / "run", CELEBA)
    assert not (tmp_path / "run").exists()


def test_headers_alone_tell_what_is_too_small(faces, monkeypatch):
    Image.new("RGB", (13, 40)).save(faces / "5.png")
    monkeypatch.setattr("hdzoo.images.images.SURVEYED_PIXELS", 2**14)
    with pytest.raises(HDZooError, match=r"5\.png is 13 x 40 pixels, and center_crop is 14"):
        Images(load_images(str(faces)), str(faces)).survey(Framing(4, 14))


def test_the_command_crops_as_it_is_told_to(run, faces, tmp_path):
    arguments = ("train", "--dataset", faces, "--output-dir", tmp_path / "run", *QUICK)
    options = ("-m", "block_out_channels=[8]", "-m", "norm_num_groups=4", "-m", "sample_size=4")
    bilinear = ("--image-interpolation-mode", "bilinear")
    code, _, err = run(*arguments, *options, "--center-crop", 14, *bilinear)
    assert code == 2
    assert "nothing is resized; give resize=True (--resize) as well" in err
    code, _, err = run(*arguments, *options, "--center-crop", 14, *bilinear, "--resize")
    assert code == 0, err
    assert "9 images, 14 x 14 to 19 x 22 pixels, colour (1 in grey); mean" in err
    assert HDPipeline.from_pretrained(tmp_path / "run").sample_shape == (3, 4, 4)
    # Another crop is another run.
    code, _, err = run(*arguments, *options, "--center-crop", 12, *bilinear, "--resize")
    assert code == 2
    assert "center_crop was 14 and is 12" in err


def test_the_command_trains_on_the_column_that_is_said(run, tmp_path):
    features = datasets.Features({"mask": datasets.Image(), "photo": datasets.Image()})
    masks = [Image.new("1", (8, 8))] * 8
    rows = {"mask": masks, "photo": list(map(Image.fromarray, GREYS[:8]))}
    path = tmp_path / "x.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    arguments = ("train", "--dataset", path, "--output-dir", tmp_path / "run", *QUICK)
    options = ("-m", "block_out_channels=[8]", "-m", "norm_num_groups=4")
    code, _, err = run(*arguments, *options)
    assert code == 2
    assert "image columns mask, photo" in err
    code, _, err = run(*arguments, *options, "--image-column", "photo")
    assert code == 0, err
    found = HDPipeline.from_pretrained(tmp_path / "run").unet.config.data_mean
    assert found == pytest.approx((GREYS[:8] / 255).mean(), rel=1e-3)
