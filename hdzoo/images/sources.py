"""Where images are: folders, parquet files, registered data sets, the Hub."""

import os
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdzoo import plugins
from hdzoo.errors import HDZooError
from hdzoo.files import named_path
from hdzoo.images.folder import load_folder
from hdzoo.images.parquet import check_rows, count_rows, find_files, find_row, load_parquet

if TYPE_CHECKING:
    from datasets import Dataset

IMAGE = "image"
# What an extra brings.
OPTIONAL = ("datasets", "sklearn")
_HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


def load_images(
    source: str | Path, split: str = "train", *, image_column: str | None = None
) -> "Dataset":
    """Loads a data set of images.

    Args:
        source: in this order: an existing folder of images (`hdzoo.images.folder.load_folder`) or
            ``.parquet`` file, whatever characters are in its name; a registered name
            (``"digits"``); a pattern of parquet files; a Hub id.
        split: the split of a folder, a registered set or a Hub data set. Parquet files have none.
        image_column: which column; by default ``"image"``, or the only one that holds images.

    Returns:
        A data set whose images are in the column ``"image"``; of several columns of images the
        others are left out.

    Raises:
        HDZooError: there is no such source or split, no column of images, or a choice of them.
    """
    named_path(source, "the source of the images")
    source = str(source)
    dataset = with_image_column(_load(source, split), repr(source), image_column)
    files = _parquet_files(source)
    if files:
        check_rows(files, dataset.data.column(IMAGE))
    return dataset


def name_row(source: str, row: int, num_rows: int) -> str:
    """An image in words: the row of the parquet file that it is in, where that can be told.

    Args:
        source: as `load_images` takes it, or any name of a data set.
        row: the image's number, from 0.
        num_rows: of the data set.
    """
    files = _parquet_files(source)
    if files and sum(map(count_rows, files)) == num_rows:
        return find_row(files, row)
    return f"row {row} of {source}"


def with_image_column(dataset: Any, source: str, wanted: str | None = None) -> "Dataset":
    """A data set with its images in the column ``"image"``, and no other images.

    Args:
        dataset: one of `datasets`, in which images are `datasets.Image`, their files' contents, or
            structs of "bytes" and "path", as pandas writes them.
        source: what to call it in a message.
        wanted: the column; by default ``"image"``, or the only one that holds images.

    Raises:
        HDZooError: it is no data set, or has no such column, or a choice of them.
    """
    from datasets import Dataset
    from datasets import Image as ImageFeature

    if not isinstance(dataset, Dataset):
        raise HDZooError(
            f"{source} is {type(dataset).__name__}, where a datasets.Dataset is needed: one split, "
            "not streamed"
        )
    found = [name for name, feature in dataset.features.items() if _holds_images(feature)]
    kinds = (f"{name} ({_kind(feature)})" for name, feature in dataset.features.items())
    columns = f"its columns are {', '.join(kinds)}"
    if wanted is not None and wanted not in found:
        raise HDZooError(
            f"{source} has no image column {wanted!r}; {columns}, and images are in "
            f"{', '.join(found) or 'none'}"
        )
    if not found:
        raise HDZooError(f"{source} has no image column; {columns}")
    if wanted is None and IMAGE not in found and len(found) > 1:
        raise HDZooError(
            f"{source} has the image columns {', '.join(found)}; say which by image_column "
            "(--image-column)"
        )
    chosen = wanted or (IMAGE if IMAGE in found else found[0])
    dataset = dataset.with_format(None)
    dataset = dataset.remove_columns([name for name in found if name != chosen])
    if chosen != IMAGE:
        if IMAGE in dataset.column_names:
            dataset = dataset.remove_columns(IMAGE)
        dataset = dataset.rename_column(chosen, IMAGE)
    if isinstance(dataset.features[IMAGE], ImageFeature):
        return dataset
    return dataset.cast_column(IMAGE, ImageFeature())


def _load(source: str, split: str) -> Any:
    registered = plugins.names("datasets")
    if os.path.isdir(source):
        if source in registered:
            warnings.warn(
                f"{source} is a folder here, which is taken; the registered data set of that name "
                "is not",
                stacklevel=3,
            )
        return load_folder(Path(source), split)
    files = _parquet_files(source)
    if os.path.exists(source) and not files and source not in registered:
        raise HDZooError(
            f"{source} is a file, and none of images that can be listed: give a .parquet file or "
            "the folder of the pictures"
        )
    try:
        if files:
            return load_parquet(files)
        if source in registered:
            return plugins.get("datasets", source)(split)
        _check_hub_id(source)
        from datasets import load_dataset

        return load_dataset(source, split=split)
    except HDZooError:
        raise
    # Whatever libraries, the Hub's client and others' plugins raise.
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in OPTIONAL:
            # The command knows the extra that brings it.
            raise
        raise HDZooError(
            f"cannot load images from {source!r} (split {split!r}): "
            f"{str(error) or type(error).__name__}. Give {_allowed()}"
        ) from error


def _parquet_files(source: str) -> list[Path]:
    """The files that a source means, if it is one of parquet files."""
    is_parquet = source.lower().endswith(".parquet") and not os.path.isdir(source)
    return find_files(source) if is_parquet else []


def _check_hub_id(source: str) -> None:
    """Refuses what can be no Hub id, so that nobody is asked for it."""
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    what = "" if _HUB_ID.fullmatch(source) else f"there is no {source!r}"
    if source.lower().endswith(".parquet"):
        what = f"no file is {source!r}, or matches it as a pattern"
    # They would read what is in the current folder.
    elif source in _PACKAGED_DATASETS_MODULES:
        what = f"{source!r} is a format, not a data set"
    if what:
        home = os.path.expanduser(os.path.expandvars(source))
        hint = f"; {home!r} is there" if home != source and os.path.exists(home) else ""
        raise HDZooError(f"cannot load images from {source!r}: {what}{hint}. Give {_allowed()}")


def _allowed() -> str:
    return (
        f"a registered name ({', '.join(plugins.names('datasets'))}), a .parquet file, a folder of "
        "images, or the id of a data set on the Hub"
    )


def _kind(feature: Any) -> str:
    return str(getattr(feature, "dtype", type(feature).__name__))


def _holds_images(feature: Any) -> bool:
    from datasets import Image as ImageFeature
    from datasets import Value

    if isinstance(feature, ImageFeature):
        return True
    if isinstance(feature, dict):
        return "bytes" in feature and set(feature) <= {"bytes", "path"}
    return isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")
