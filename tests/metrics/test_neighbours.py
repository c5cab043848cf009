"""Nearest images: exact distances, copies that are found, and shares that are what they say."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from typer.testing import CliRunner

from hdzoo import HDZooError, cli
from hdzoo.images.framing import Framing
from hdzoo.metrics.features import get_extractor
from hdzoo.metrics.neighbours import PIXELS, Compared, Search, find_neighbours
from hdzoo.metrics.neighbours_picture import neighbours_figure

RNG = np.random.default_rng(0)
DATA = RNG.integers(0, 256, (60, 6, 6, 3), dtype=np.uint8)
REAL = RNG.integers(0, 256, (25, 6, 6, 3), dtype=np.uint8)
IMAGES = RNG.integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)


def save(folder, arrays):
    folder.mkdir()
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    copied = IMAGES.copy()
    copied[4] = DATA[17]
    # One number of 108 is off by 10.
    copied[7] = DATA[55]
    copied[7, 2, 3, 1] += 10 if copied[7, 2, 3, 1] < 128 else -10
    return {
        "images": save(folder / "images", copied),
        "data": save(folder / "data", DATA),
        "real": save(folder / "real", REAL),
        "arrays": copied,
    }


def rms(one, two):
    """All distances, one by one."""
    differences = one[:, None].astype(float) - two[None].astype(float)
    return np.sqrt((differences**2).mean((2, 3, 4))) / 255


def find(sets, **options):
    given = {"real": sets["real"], "real_split": "train"} | options
    return find_neighbours(sets["images"], sets["data"], **given)


@pytest.mark.parametrize("batch_size", [7, 256])
def test_pixel_distances_are_those_of_every_pair(sets, batch_size):
    (found,) = find(sets, num_neighbours=3, batch_size=batch_size).distances
    expected = rms(sets["arrays"], DATA)
    order = np.argsort(expected, axis=1)[:, :3]
    assert found.name == PIXELS
    assert np.array_equal(found.indices, order)
    # Sums of squares are exact; what is left are a root and a division.
    assert np.allclose(found.values, np.take_along_axis(expected, order, 1), rtol=1e-14, atol=0)
    assert np.allclose(found.nearest.real, rms(REAL, DATA).min(1), rtol=1e-14)


def test_copies_are_found(sets):
    (found,) = find(sets).distances
    assert (found.indices[4, 0], found.values[4, 0]) == (17, 0)
    assert found.indices[7, 0] == 55
    assert found.values[7, 0] == pytest.approx(10 / 255 / 108**0.5)
    # 25 real ones tell 5 % and half; both copies are nearer than 5 % of them, by far.
    for compared in (found.nearest, found.relative):
        assert list(compared.quantiles) == [0.05, 0.5]
        assert compared.share(0.05)[0] >= 2 / 12
    assert found.relative.images[4] == 0
    others = np.delete(np.arange(12), [4, 7])
    relative = found.values[others, 0] / found.values[others, 4]
    assert np.allclose(found.relative.images[others], relative, rtol=1e-15)


def test_plain_images_are_near_to_all_and_relatively_to_none(tmp_path):
    rng = np.random.default_rng(1)
    data, real = (rng.integers(0, 256, (n, 6, 6, 3), dtype=np.uint8) for n in (200, 50))
    plain = np.full((20, 6, 6, 3), 127, np.uint8)
    folders = [
        save(tmp_path / name, arrays)
        for name, arrays in (("plain", plain), ("data", data), ("real", real))
    ]
    (found,) = find_neighbours(*folders[:2], real=folders[2], real_split="train").distances
    # Half of the squared distances between independent images.
    assert found.nearest.share(0.05)[0] == 1
    assert found.relative.share(0.05)[0] == 0


def test_features_are_compared_as_they_are(sets):
    extractor = get_extractor("digits", device="cpu")
    by_pixels, found = find(sets, features="digits", num_neighbours=2).distances
    assert found.name == "digit-classifier features"
    one, two = (
        extractor(torch.from_numpy(arrays).permute(0, 3, 1, 2))["features"].double().numpy()
        for arrays in (sets["arrays"], DATA)
    )
    expected = np.linalg.norm(one[:, None] - two[None], axis=2)
    assert np.array_equal(found.indices[:, 0], expected.argmin(1))
    # Features differ by the rounding of float32 from batch to batch, and 0 by its root.
    least = expected.min(1)
    assert np.allclose(found.values[:, 0], least, rtol=1e-4, atol=1e-3 * np.abs(one).max())
    assert by_pixels.values.shape == (12, 2)


def test_of_equal_data_the_first_is_named():
    search = Search(torch.zeros(1, 4, dtype=torch.uint8), 3)
    for batch in (torch.ones(2, 4), torch.zeros(2, 4), torch.ones(2, 4)):
        search.add(batch.to(torch.uint8))
    assert search.indices.tolist() == [[2, 3, 0]]
    assert search.squares.tolist() == [[0, 0, 4]]


def test_large_bytes_are_not_rounded():
    # Sums of 2^24 and more, where float32 no longer counts by ones.
    one = torch.full((1, 1000), 255, dtype=torch.uint8)
    two = one.clone()
    two[0, 0] = 254
    search = Search(one, 1)
    search.add(two)
    assert search.squares.item() == 1


def test_shares_are_what_is_expected_of_images_like_the_real_ones():
    # Of the same law: the share is the quantile, in units of its standard error (of 300 runs, a
    # mean beyond 4 / sqrt(300) has probability 6e-5; their deviation is 1 up to discreteness).
    rng, scores = np.random.default_rng(0), []
    for _ in range(300):
        values, real = rng.gamma(5, size=(2, 200))
        share, error = Compared(values, real).share(0.5)
        scores.append((share - 0.5) / error)
    assert abs(np.mean(scores)) < 4 / 300**0.5
    assert stats.chi2(299).sf(299 * np.var(scores)) > 1e-4
    assert np.std(scores) > 0.8


def test_quantiles_that_so_few_do_not_tell_are_left_out():
    def told(count):
        return list(Compared(np.ones(3), np.ones(count)).quantiles)

    assert told(0) == []
    assert told(20) == [0.05, 0.5]
    assert told(100) == [0.01, 0.05, 0.5]


def test_one_neighbour_is_relative_to_none(sets):
    found = find(sets, num_neighbours=1)
    assert found.distances[0].relative.quantiles == {}
    assert not [row for row in found.rows() if "relative" in row["distance to the nearest"]]
    neighbours_figure(found)


def test_images_are_spread_evenly(sets):
    found = find(sets, num_images=4, real=None)
    assert found.chosen == [0, 3, 6, 9]
    assert np.allclose(found.distances[0].values[:, 0], rms(sets["arrays"][::3], DATA).min(1))
    assert "nothing says what is near" in found.legend()[-1]


def test_data_may_be_framed(sets, tmp_path):
    wide = save(tmp_path / "wide", np.pad(DATA, ((0, 0), (2, 2), (5, 5), (0, 0))))
    framing = Framing(center_crop=6)
    (found,) = find_neighbours(sets["images"], wide, framing=framing).distances
    assert np.array_equal(found.values, find(sets, real=None).distances[0].values)
    with pytest.raises(HDZooError, match=r"have 6x6 pixels and those of .*wide 16x10; bring"):
        find_neighbours(sets["images"], wide)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_neighbours": 0}, "num_neighbours is 0"),
        ({"num_neighbours": 61}, "num_neighbours is 61 and .*data has 60 images"),
        ({"num_images": 13}, "num_images is 13 and .*images has 12 images"),
        ({"num_images": 10}, "10 real images to compare with; at least 20"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"features": "nonsense"}, "nonsense"),
        ({"real": "nowhere"}, "nowhere"),
    ],
)
def test_errors(sets, options, message):
    with pytest.raises(HDZooError, match=message):
        find(sets, **options)


def test_the_picture_shows_the_nearest_first(sets):
    figure = neighbours_figure(find(sets, num_neighbours=2), num_shown=3)
    panels = [ax for ax in figure.get_axes() if ax.images]
    pictures = [ax.images[0].get_array() for ax in panels]
    # Rows of an image and two of the data: first the copy, then the one that is nearly so.
    assert len(panels) == 9
    for row, (image, near) in enumerate([(4, 17), (7, 55)]):
        assert np.array_equal(pictures[3 * row], sets["arrays"][image])
        assert np.array_equal(pictures[3 * row + 1], DATA[near])
    assert panels[1].get_title() == "0"
    assert [text.get_text() for text in panels[1].texts] == ["nearest by pixels"]


def test_the_command(sets, tmp_path):
    words = ["neighbours", sets["images"], sets["data"], "--real", sets["real"]]
    path = tmp_path / "near.png"
    options = ["--real-split", "train", "-k", 2, "--num-shown", 2, "-O", path]
    done = CliRunner().invoke(cli.app, [str(word) for word in (*words, *options)])
    assert done.exit_code == 0, done.output
    assert "25 images of" in done.stdout
    with Image.open(path) as picture:
        assert picture.format == "PNG"
    report = json.loads(path.with_suffix(".json").read_text())
    assert report["distances"][0]["neighbours"][4][0] == 17
    assert report["sets"]["data"]["num_images"] == 60
    assert report["distances"][0]["nearer_than_real"]["0.05"][0] >= 2 / 12
