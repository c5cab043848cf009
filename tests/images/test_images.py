"""Images of a data set: each read as it is asked for; what a survey says of all."""

import io
import pickle

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from hdzoo.errors import HDZooError
from hdzoo.images import images as module
from hdzoo.images.framing import Framing
from hdzoo.images.images import Images
from hdzoo.images.picture import read_picture


def data_set(*pictures, **columns):
    features = datasets.Features({"image": datasets.Image()})
    rows = datasets.Dataset.from_dict({"image": list(pictures)}, features=features)
    for name, column in columns.items():
        rows = rows.add_column(name, column)
    return rows


def noise(mode, count=7, size=(6, 6), seed=0):
    shape = (count, size[1], size[0]) + ((3,) if mode == "RGB" else ())
    most, dtype = (65536, np.uint16) if mode == "I;16" else (256, np.uint8)
    return np.random.default_rng(seed).integers(0, most, shape).astype(dtype)


def images_of(arrays, name="some"):
    return Images(data_set(*map(Image.fromarray, arrays)), name)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_they_are_what_was_put_in(mode):
    arrays = noise(mode)
    images = images_of(arrays)
    assert len(images) == 7
    assert np.array_equal([np.asarray(image) for image in images], arrays)
    assert np.array_equal(images[-1], arrays[-1])
    assert np.array_equal([np.asarray(image) for image in images[1:6:2]], arrays[1:6:2])
    with pytest.raises(IndexError):
        images[7]


def test_a_choice_of_rows_and_other_columns_are_kept():
    arrays = noise("L")
    rows = data_set(*map(Image.fromarray, arrays), label=list(range(7))).select([5, 2])
    images = Images(rows.with_format("torch"), "some")
    assert np.array_equal([np.asarray(image) for image in images], arrays[[5, 2]])
    assert images.dataset["label"] == [5, 2]
    assert Images.of(images) is images


def test_other_processes_read_the_same():
    arrays = noise("L")
    images = pickle.loads(pickle.dumps(images_of(arrays)))
    loader = DataLoader(images, batch_size=3, collate_fn=list, num_workers=1)
    assert np.array_equal([np.asarray(image) for batch in loader for image in batch], arrays)


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_mean_and_deviation_are_those_of_all_pixels(mode):
    arrays = noise(mode, 300)
    survey = images_of(arrays).survey()
    scaled = arrays / (65535 if mode == "I;16" else 255)
    assert [survey.mean, survey.std] == pytest.approx([scaled.mean(), scaled.std()], rel=1e-9)
    assert (survey.num_images, survey.num_decoded, survey.side) == (300, 300, 6)
    assert (survey.channels, survey.has_colour) == ((3, True) if mode == "RGB" else (1, False))


def test_grey_counts_the_same_however_it_is_stored():
    arrays = noise("L", 20)
    one = images_of(arrays)
    other = images_of(
        [array if i % 2 else np.dstack([array] * 3) for i, array in enumerate(arrays)]
    )
    assert other.survey().mean == pytest.approx(one.survey().mean, rel=1e-12)
    assert other.survey().std == pytest.approx(one.survey().std, rel=1e-12)
    assert (other.survey().channels, other.survey().has_colour) == (3, False)
    assert "RGB, all grey" in str(other.survey())


def test_sizes_from_the_smallest_to_the_largest():
    sizes = [(6, 6), (3, 9), (20, 4), (6, 5)]
    survey = Images(data_set(*(Image.new("L", size) for size in sizes)), "some").survey()
    assert (survey.smallest, survey.largest) == ((3, 9), (20, 4))
    assert (survey.one_size, survey.side) == (False, None)
    assert "4 images, 3 x 9 to 20 x 4 pixels, grey" in str(survey)
    survey = images_of(noise("L", size=(6, 5))).survey()
    assert (survey.one_size, survey.side, survey.smallest) == (True, None, (6, 5))


def test_the_pixels_may_be_those_of_squares():
    # A white frame around a grey square, of which the centre is cropped.
    array = np.full((8, 12), 255, np.uint8)
    array[:, 2:-2] = 51
    images = images_of([array])
    assert images.survey(Framing(8)).mean == pytest.approx(0.2)
    assert images.survey(Framing(4)).std == pytest.approx(0, abs=1e-9)
    assert images.survey().mean == pytest.approx(0.2 * 2 / 3 + 1 / 3)
    assert images.survey(Framing(8)).smallest == (12, 8)


def test_of_a_large_set_a_part_is_decoded_and_said(monkeypatch):
    arrays = noise("L", 90)
    monkeypatch.setattr(module, "OPENING_PIXELS", 1)
    monkeypatch.setattr(module, "SURVEYED_PIXELS", 30 * 36)
    survey = images_of(arrays).survey()
    assert (survey.num_images, survey.num_decoded) == (90, 30)
    assert survey.mean == pytest.approx(arrays[::3].mean() / 255)
    assert "(of 30 of them;" in str(survey)
    # The headers are all read: one of another size and kind is seen wherever it is.
    other = [Image.fromarray(array) for array in arrays]
    other[1] = Image.new("RGB", (5, 9))
    survey = Images(data_set(*other), "some").survey()
    assert (survey.channels, survey.has_colour, survey.smallest) == (3, True, (6, 6))
    assert survey.largest == (5, 9)
    other[1] = Image.new("F", (6, 6))
    with pytest.raises(HDZooError, match=r"^row 1 of some has the mode 'F'"):
        Images(data_set(*other), "some").survey()


def test_what_was_found_is_kept(monkeypatch):
    images = images_of(noise("L"))
    first = images.survey()
    monkeypatch.setattr(Images, "read", lambda *_: pytest.fail("read again"))
    assert images.survey() is first


def test_null_and_damaged_pictures_are_named():
    file = io.BytesIO()
    Image.fromarray(noise("L")[0]).save(file, "PNG")
    good = {"bytes": file.getvalue(), "path": None}
    for bad, message in (
        (None, r"^row 2 of some is empty \(null\)"),
        ({"bytes": b"", "path": "x.png"}, "^row 2 of some is empty: it has 0 bytes"),
        ({"bytes": good["bytes"][:50], "path": "x.png"}, "^row 2 of some cannot be read"),
        ({"bytes": None, "path": "nowhere.png"}, r"^nowhere\.png is no file"),
    ):
        images = Images(data_set(good, good, bad, good), "some")
        with pytest.raises(HDZooError, match=message):
            images.survey()
        with pytest.raises(HDZooError, match=message):
            images[2]
        assert images[3].size == (6, 6)


def test_no_images_are_refused():
    with pytest.raises(HDZooError, match="some has no images"):
        Images(data_set(), "some")


def test_a_function_of_ones_own_reads_them():
    images = images_of(noise("L"))
    found = list(
        images.read([3, 1], lambda given, name: torch.tensor(read_picture(given, name).size))
    )
    assert torch.stack(found).tolist() == [[6, 6], [6, 6]]
