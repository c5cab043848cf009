"""Where images come from: parquet files, registered data sets, the Hub; and in which column."""

import io
import os

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hdzoo import plugins
from hdzoo.errors import HDZooError
from hdzoo.images.images import Images
from hdzoo.images.sources import load_images, name_row

IMAGE = datasets.Image()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def picture(level):
    return Image.new("L", (8, 8), level)


def png(level):
    file = io.BytesIO()
    picture(level).save(file, "PNG")
    return file.getvalue()


def write(path, *levels):
    """A parquet file of flat pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {"image": [picture(level) for level in levels]}
    file = io.BytesIO()
    datasets.Dataset.from_dict(rows, features=datasets.Features({"image": IMAGE})).to_parquet(file)
    path.write_bytes(file.getvalue())
    return path


def levels(source, **options):
    rows = load_images(source, **options)
    return [int(np.asarray(image)[0, 0]) for image in Images(rows, str(source))]


# ---- registered data sets and the Hub -------------------------------------------------------


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    parts = [Images(load_images("digits", split), "digits") for split in ("train", "test")]
    assert list(map(len, parts)) == [1500, 297]
    expected = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    assert np.array_equal([np.asarray(image) for part in parts for image in part], expected)
    with pytest.raises(HDZooError, match=r"no split 'validation'.*'train' and 'test'"):
        load_images("digits", "validation")


def test_a_folder_comes_before_a_registered_name_which_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    picture(7).save("digits/1.png")
    with pytest.warns(UserWarning, match="digits is a folder here, which is taken"):
        assert levels("digits") == [7]


def test_hub_id_goes_to_datasets(monkeypatch):
    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        return datasets.Dataset.from_dict(
            {"img": [picture(7)]}, features=datasets.Features({"img": IMAGE})
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert levels("someone/pictures", split="test") == [7]
    assert asked == [("someone/pictures", "test")]


@pytest.mark.parametrize("error", [RuntimeError("scripts are not supported"), KeyError("x")])
def test_whatever_the_hub_or_a_plugin_raises_is_one_message(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(HDZooError, match="cannot load images from 'someone/pictures'"):
        load_images("someone/pictures")
    monkeypatch.setattr(plugins, "get", lambda *_: fail)
    with pytest.raises(HDZooError, match="cannot load images from 'digits'"):
        load_images("digits")


@pytest.mark.parametrize("brought", [[picture(1)], datasets.DatasetDict(), None])
def test_what_is_no_data_set_is_refused(monkeypatch, brought):
    monkeypatch.setattr(plugins, "get", lambda *_: lambda split: brought)
    with pytest.raises(HDZooError, match=f"'digits' is {type(brought).__name__}, where"):
        load_images("digits")


@pytest.mark.parametrize(
    "source",
    [
        "no/such/folder/at/all",
        "missing.parquet",
        "no such name",
        "/nowhere",
        "./a",
        "~/a",
        "$HOME/a",
    ],
)
def test_missing_sources_are_refused_and_nobody_is_asked(source, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(HDZooError, match=r"cannot load images from .*digits.*parquet"):
        load_images(source)


@pytest.mark.parametrize("source", ["imagefolder", "parquet", "csv", "webdataset"])
def test_names_of_formats_are_no_data_sets(source, tmp_path, monkeypatch):
    # datasets would read what is in the current folder.
    monkeypatch.chdir(tmp_path)
    picture(1).save("1.png")
    write(tmp_path / "1.parquet", 1)
    with pytest.raises(HDZooError, match=f"'{source}' is a format, not a data set"):
        load_images(source)


def test_what_a_shell_would_have_expanded_is_pointed_to(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "set" / "a.parquet", 1)
    for source in ("~/set", "$HOME/set", "~/set/a.parquet"):
        with pytest.raises(HDZooError, match=f"'{tmp_path}/set.*' is there"):
            load_images(source)


def test_no_source_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(1).save("1.png")
    with pytest.raises(HDZooError, match="the source of the images is ''"):
        load_images("")
    assert levels(".") == [1]


@pytest.mark.parametrize("name", ["one.png", "set.zip", "rows.csv"])
def test_other_files_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(png(1))
    with pytest.raises(HDZooError, match=f"{name} is a file, and none"):
        load_images(tmp_path / name)


# ---- parquet files --------------------------------------------------------------------------


def test_parquet_holds_the_same_images(tmp_path):
    write(tmp_path / "part-0.parquet", 1, 2)
    write(tmp_path / "part-1.parquet", 3)
    write(tmp_path / "UPPER.PARQUET", 4)
    assert levels(tmp_path / "part-1.parquet") == [3]
    assert levels(str(tmp_path / "part-*.parquet")) == [1, 2, 3]
    assert levels(str(tmp_path / "part-?.parquet")) == [1, 2, 3]
    assert levels(str(tmp_path / "part-[1-9].parquet")) == [3]
    assert levels(tmp_path / "UPPER.PARQUET") == [4]


@pytest.mark.parametrize(
    "name", ["w[2]", "w*", "w?", "$ELSEWHERE", "~", "a::b", "file:", "%20 é", "hf:"]
)
def test_a_path_is_taken_as_it_is(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ELSEWHERE", "w2")
    write(tmp_path / "w2" / "x.parquet", 99)
    write(tmp_path / name / "x.parquet", 1)
    assert levels(f"{name}/x.parquet") == [1]
    write(tmp_path / name / "[x].parquet", 2)
    assert levels(tmp_path / name / "[x].parquet") == [2]
    assert levels(f"{name}/*.parquet") == [2, 1]


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    path = write(tmp_path / "a.parquet", 1)
    stat = path.stat()
    assert levels(path) == [1]
    write(tmp_path / "b.parquet", 2).replace(path)
    # Of the same age: but another file.
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert levels(path) == [2]


def test_damaged_parquet_is_refused(tmp_path):
    path = tmp_path / "damaged.parquet"
    for content in (b"", b"PAR1 no parquet", write(tmp_path / "a.parquet", 1).read_bytes()[:-9]):
        path.write_bytes(content)
        with pytest.raises(HDZooError, match=r"cannot load images from .*damaged.parquet"):
            load_images(path)


def test_files_of_other_columns_are_refused(tmp_path):
    write(tmp_path / "a.parquet", 1)
    pq.write_table(pa.table({"text": ["one"]}), tmp_path / "b.parquet")
    with pytest.raises(HDZooError, match=r"cannot load images from .*a.parquet and 1 more"):
        load_images(str(tmp_path / "*.parquet"))


def test_rows_as_pandas_writes_them_are_read(tmp_path):
    path = tmp_path / "x.parquet"
    for rows in (
        [{"bytes": png(i), "path": None} for i in (1, 2)],
        [{"bytes": png(i), "path": f"{i}.png"} for i in (1, 2)],
        [{"path": f"{i}.png", "bytes": png(i)} for i in (1, 2)],
        [{"bytes": png(i)} for i in (1, 2)],
        [png(1), png(2)],
    ):
        pd.DataFrame({"image": rows, "label": [3, 4]}).to_parquet(path)
        assert levels(path) == [1, 2]
        found = load_images(path)
        assert found.features["image"] == IMAGE
        assert found["label"] == [3, 4]
    large = pa.array([png(1), png(2)], pa.large_binary())
    pq.write_table(pa.table({"image": large}), path)
    assert levels(path) == [1, 2]


def test_the_bytes_of_a_row_come_before_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(99).save("1.png")
    pd.DataFrame({"image": [{"bytes": png(1), "path": "1.png"}]}).to_parquet("x.parquet")
    assert levels("x.parquet") == [1]


def test_rows_that_name_files_are_read_where_it_is_known_which(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(5).save("1.png")
    rows = [{"bytes": png(1), "path": None}, {"bytes": None, "path": str(tmp_path / "1.png")}]
    pd.DataFrame({"image": rows}).to_parquet("x.parquet")
    assert levels("x.parquet") == [1, 5]
    rows.append({"bytes": None, "path": "1.png"})
    pd.DataFrame({"image": rows}).to_parquet("y.parquet")
    with pytest.raises(
        HDZooError, match=r"1 of 3 rows .* row 2 of y.parquet .* names the file '1.png'"
    ):
        load_images("y.parquet")


@pytest.mark.parametrize("empty", [None, {"bytes": None, "path": None}])
def test_empty_rows_are_counted_and_named(tmp_path, empty):
    good = {"bytes": png(1), "path": None}
    write(tmp_path / "a.parquet", 1, 2, 3)
    schema = pq.read_schema(tmp_path / "a.parquet")
    rows = pa.Table.from_pydict({"image": [good, empty, good, empty]}, schema)
    pq.write_table(rows, tmp_path / "b.parquet")
    with pytest.raises(
        HDZooError, match=r"2 of 7 rows .* row 1 of \S*b.parquet is the first .*null"
    ):
        load_images(str(tmp_path / "*.parquet"))


def test_damaged_pictures_are_named_by_their_file_and_row(tmp_path):
    write(tmp_path / "a.parquet", 1, 2, 3)
    rows = [{"bytes": png(1), "path": None}, {"bytes": png(1)[:50], "path": "b.png"}]
    schema = pq.read_schema(tmp_path / "a.parquet")
    pq.write_table(pa.Table.from_pydict({"image": rows}, schema), tmp_path / "b.parquet")
    source = str(tmp_path / "*.parquet")
    images = Images(load_images(source), source)
    for read in (images.survey, lambda: images[4], lambda: list(images)):
        with pytest.raises(HDZooError, match=r"^row 1 of \S*b.parquet cannot be read"):
            read()
    # A part of them has rows of its own.
    part = Images(load_images(source).select([0, 4]), source)
    with pytest.raises(HDZooError, match=r"^row 1 of \S*\*.parquet cannot be read"):
        part.survey()


def test_rows_are_named():
    assert name_row("someone/pictures", 3, 10) == "row 3 of someone/pictures"


# ---- columns --------------------------------------------------------------------------------


def two(first, second):
    rows = {first: [picture(1)], second: [picture(2)], "text": ["a"]}
    return datasets.Dataset.from_dict(
        rows,
        features=datasets.Features({first: IMAGE, second: IMAGE, "text": datasets.Value("string")}),
    )


@pytest.mark.parametrize(
    "columns", [("conditioning_image", "image"), ("mask", "image"), ("image", "mask")]
)
def test_the_column_image_is_taken_wherever_it_is(tmp_path, columns):
    path = tmp_path / "x.parquet"
    two(*columns).to_parquet(path)
    own = 1 + columns.index("image")
    assert levels(path) == [own]
    assert load_images(path).column_names == ["image", "text"]
    other = next(column for column in columns if column != "image")
    assert levels(path, image_column=other) == [3 - own]
    assert levels(path, image_column="image") == [own]


def test_several_columns_none_of_which_is_image_are_refused(tmp_path):
    path = tmp_path / "x.parquet"
    two("mask", "photo").to_parquet(path)
    with pytest.raises(
        HDZooError, match=r"image columns mask, photo; say which by .*--image-column"
    ):
        load_images(path)
    assert levels(path, image_column="photo") == [2]
    for column in ("text", "images"):
        with pytest.raises(
            HDZooError, match=f"no image column '{column}'; .*images are in mask, photo"
        ):
            load_images(path, image_column=column)
    with pytest.raises(HDZooError, match="the data set has the image columns mask, photo"):
        Images(two("mask", "photo"), "the data set")


def test_the_only_column_is_taken(tmp_path):
    path = tmp_path / "x.parquet"
    two("img", "image").remove_columns("image").to_parquet(path)
    assert levels(path) == [1]


@pytest.mark.parametrize(
    "column", [["a"], [[1, 2]], [{"bytes": png(1), "path": "", "size": 3}], [7]]
)
def test_data_without_images_are_refused(tmp_path, column):
    pd.DataFrame({"text": column}).to_parquet(tmp_path / "text.parquet")
    with pytest.raises(HDZooError, match=r"no image column; its columns are text \("):
        load_images(tmp_path / "text.parquet")


def test_no_rows_are_refused(tmp_path):
    write(tmp_path / "x.parquet")
    with pytest.raises(HDZooError, match=r"x.parquet has no images"):
        Images(load_images(tmp_path / "x.parquet"), str(tmp_path / "x.parquet"))
