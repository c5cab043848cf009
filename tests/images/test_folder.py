"""Folders of pictures: every one on the disk is read, or said, or refused."""

import errno
import os
import warnings

import numpy as np
import pytest
from datasets import ClassLabel, Value
from datasets import Image as ImageFeature
from PIL import Image

from hdzoo.errors import HDZooError
from hdzoo.images.images import Images
from hdzoo.images.sources import load_images


def fill(folder, *names):
    """Pictures of 8x8, of which the first is of the level 1, the next of 2, and so on."""
    for level, name in enumerate(names, 1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), level).save(path, "PNG")
    return folder


def levels(folder, split="train"):
    """The levels of what is listed, sorted."""
    images = Images(load_images(str(folder), split), str(folder))
    return sorted(int(np.asarray(image)[0, 0]) for image in images)


def test_all_pictures_whatever_their_names_look_like(tmp_path):
    names = [f"street {i}.png" for i in range(40)] + [f"train {i}.png" for i in range(8)]
    names += ["test.png", "validation-1.png", "a_test_b.PNG", "x.train.Jpeg", "TEST.jpg"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert levels(fill(tmp_path, *names)) == list(range(1, len(names) + 1))


def test_pictures_are_in_the_order_of_their_paths(tmp_path):
    names = ["b/2.png", "b/10.png", "a.png", "a/1.png", "c.png", "B/1.png", "b/a/1.png"]
    rows = load_images(str(fill(tmp_path, *names)))
    files = rows.cast_column("image", ImageFeature(decode=False))["image"]
    found = [file["path"].removeprefix(f"{tmp_path}/") for file in files]
    assert found == ["B/1.png", "a/1.png", "a.png", "b/10.png", "b/2.png", "b/a/1.png", "c.png"]


def test_class_folders_that_are_named_as_a_split_are_classes(tmp_path):
    names = [f"{label}/{i}.png" for label in ("cat", "train", "plane") for i in range(4)]
    folder = fill(tmp_path, *names)
    with pytest.warns(
        UserWarning, match="the 12 pictures of .* one set, those in folders named train"
    ):
        rows = load_images(str(folder))
    assert rows["label"] == [0] * 4 + [1] * 4 + [2] * 4
    assert rows.features["label"] == ClassLabel(names=["cat", "plane", "train"])
    with pytest.raises(
        HDZooError, match=r"no split 'test': .* its 12 pictures are one set, the split 'train'"
    ):
        load_images(str(folder), "test")


@pytest.mark.parametrize(
    "names",
    [
        ["Train/1.png", "Test/2.png"],
        ["imgs/train/1.png", "imgs/test/2.png"],
        ["train/1.png", "extra.png"],
        ["train 1/1.png", "test/2.png"],
    ],
)
def test_what_only_looks_like_splits_is_one_set_and_said(tmp_path, names):
    with pytest.warns(UserWarning, match="the 2 pictures of .* are taken as one set"):
        assert levels(fill(tmp_path, *names)) == [1, 2]


def test_splits_are_where_all_top_folders_are_named_so(tmp_path):
    folder = fill(
        tmp_path, "train/cat/1.png", "train/dog/1.png", "train/dog/2.png", "test/dog/1.png"
    )
    (folder / "annotations").mkdir()
    (folder / "annotations" / "boxes.json").write_text("{}")
    with pytest.warns(UserWarning, match=r"left out are 1 that are no pictures \(such as anno"):
        assert levels(folder) == [1, 2, 3]
    assert levels(folder, "test") == [4]
    with pytest.raises(HDZooError, match="no split 'validation'; it has test, train"):
        load_images(str(folder), "validation")
    # A number means the same in each split.
    train, test = (load_images(str(folder), split) for split in ("train", "test"))
    assert train["label"] == [0, 1, 1]
    assert test["label"] == [1]
    assert test.features["label"].names == ["cat", "dog"]


def test_numbered_folders_are_their_numbers(tmp_path):
    rows = load_images(str(fill(tmp_path, "9/a.png", "3/a.png", "10/a.png")))
    assert rows.features["label"] == Value("int64")
    assert rows["label"] == [10, 3, 9]
    # Two names of one number are two classes.
    fill(tmp_path, "03/a.png")
    assert load_images(str(tmp_path)).features["label"].names == ["03", "10", "3", "9"]


@pytest.mark.parametrize("names", [["1.png", "cat/2.png"], ["cat/1.png", "cat/deep/2.png"]])
def test_folders_of_several_depths_are_no_labels(tmp_path, names):
    assert "label" not in load_images(str(fill(tmp_path, *names))).column_names
    assert levels(tmp_path) == [1, 2]


def test_what_is_left_out_is_counted(tmp_path):
    folder = fill(tmp_path, "1.png", "2.jpg", ".hidden.png", "cat/._3.png", ".cache/4.png")
    for name in ("metadata.csv", "metadata.jsonl", "cat/Thumbs.db", "noise", ".DS_Store"):
        (folder / name).write_text("file_name,text\n1.png,one\n")
    with pytest.warns(UserWarning, match="left out") as said:
        # Also those that a metadata file does not name.
        assert levels(folder) == [1, 2]
    (text,) = {str(warning.message) for warning in said}
    assert "left out are 4 hidden (such as .DS_Store) and 4 that are no pictures (such as" in text


def test_a_path_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("ELSEWHERE", str(tmp_path / "set1"))
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "set1", *(f"{i}.png" for i in range(9)))
    for level, name in enumerate(
        (
            "set[1]",
            "set*",
            "set?",
            "$ELSEWHERE",
            "~",
            "a::b",
            "file:",
            "x.parquet",
            "{a,b}",
            "%20 é",
        ),
        1,
    ):
        folder = tmp_path / name
        fill(folder, *["a.png"] * level)
        # A name of several levels is the last.
        assert levels(folder) == levels(name) == [level], name


def test_links_are_followed_and_loops_refused(tmp_path):
    folder = fill(tmp_path / "set", "1.png")
    fill(tmp_path / "other", "a.png", "b.png", "c.png")
    (folder / "linked").symlink_to(tmp_path / "other")
    (folder / "d.png").symlink_to(tmp_path / "other" / "b.png")
    assert levels(folder) == [1, 1, 2, 2, 3]
    (tmp_path / "link").symlink_to(folder)
    assert levels(tmp_path / "link") == [1, 1, 2, 2, 3]
    (tmp_path / "other" / "loop").symlink_to(folder)
    with pytest.raises(HDZooError, match="loop is a link to a folder that it is in"):
        load_images(str(folder))


def test_links_to_nothing_and_empty_files_are_refused_by_name(tmp_path):
    folder = fill(tmp_path, "1.png")
    (folder / "a.png").symlink_to(folder / "nowhere.png")
    with pytest.raises(HDZooError, match=r"^\S*/a\.png is no file"):
        levels(folder)
    (folder / "a.png").unlink()
    (folder / "b.png").touch()
    with pytest.raises(HDZooError, match=r"^\S*/b\.png is empty: it has 0 bytes"):
        levels(folder)


@pytest.mark.parametrize("name", ["a.avif", "b/c.HEIC", "x.tga", "y.svg"])
def test_pictures_of_other_formats_are_refused_with_both_numbers(tmp_path, name):
    folder = fill(tmp_path, "1.png", "2.png", name)
    with pytest.raises(HDZooError, match=f"has 2 pictures and 1 of formats .* such as {name}"):
        load_images(str(folder))


def test_folders_without_pictures_are_refused(tmp_path):
    with pytest.raises(HDZooError, match=r"the folder has no pictures .*, but nothing"):
        load_images(str(tmp_path))
    (tmp_path / "a.txt").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "b.parquet").touch()
    with pytest.raises(HDZooError, match=r"1 of \.txt and 1 of \.parquet; .*/data/\*\.parquet'"):
        load_images(str(tmp_path))


def test_folders_that_cannot_be_read_are_refused(tmp_path, monkeypatch):
    folder, scandir = fill(tmp_path, "1.png", "closed/2.png"), os.scandir

    def refusing(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    # The superuser, whom containers run tests as, reads every folder.
    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(HDZooError, match="closed cannot be read: Permission denied"):
        load_images(str(folder))


def test_names_that_are_no_text_are_refused(tmp_path):
    fill(tmp_path, "1.png")
    os.rename(os.fsencode(tmp_path / "1.png"), os.fsencode(tmp_path) + b"/\xff.png")
    with pytest.raises(HDZooError, match="no name in UTF-8"):
        load_images(str(tmp_path))
