"""The rows of parquet files."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdzoo.errors import HDZooError

if TYPE_CHECKING:
    from datasets import Dataset


def find_files(pattern: str) -> list[Path]:
    """The files that a path means: itself, or what a pattern matches.

    Each part of the path that exists is that part, whatever characters are in it; only others are
    patterns, with ``*``, ``?`` and ``[...]``.

    Args:
        pattern: the path.
    """
    path = Path(pattern)
    found = [Path(path.anchor)]
    for part in path.relative_to(path.anchor).parts:
        found = [
            inner
            for outer in found
            for inner in ([outer / part] if os.path.lexists(outer / part) else outer.glob(part))
        ]
    return sorted(file for file in found if file.is_file())


def load_parquet(files: Sequence[Path]) -> "Dataset":
    """The rows of parquet files, in the order of the files.

    Args:
        files: their paths, which are taken as they are.

    Raises:
        HDZooError: a file is damaged, or the number of rows that come is not that of the files.
    """
    from datasets import load_dataset
    from datasets.data_files import DataFilesList

    name = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    # A list of this type is not taken for patterns. What is beside the names tells the cache
    # whether a file is still the same.
    listed = DataFilesList([_plain_path(file) for file in files], [_stamp(file) for file in files])
    try:
        wanted = sum(map(count_rows, files))
        if not wanted:
            raise HDZooError(f"{name} has no images")
        dataset = load_dataset("parquet", data_files={"train": listed}, split="train")
    except HDZooError:
        raise
    # Whatever the libraries raise of a damaged file.
    except Exception as error:
        raise HDZooError(
            f"cannot load images from {name}: {error}. Give whole parquet files, of the same "
            "columns"
        ) from error
    if len(dataset) != wanted:
        raise HDZooError(
            f"{name} have {wanted} rows, and {len(dataset)} were read; remove what is cached of "
            "them in ~/.cache/huggingface/datasets"
        )
    return dataset


def check_rows(files: Sequence[Path], images: Any) -> None:
    """Refuses rows that hold no picture: nothing at all, or the name of a file in a folder that is
    not known.

    Args:
        files: where they are from.
        images: their column, of structs of "bytes" and "path".
    """
    import pyarrow.compute as pc

    rows = pc.indices_nonzero(pc.struct_field(images, "bytes").is_null())
    paths = pc.struct_field(images, "path").take(rows).to_pylist()
    wrong = [
        (row, path)
        for row, path in zip(rows.to_pylist(), paths, strict=True)
        if path is None or not os.path.isabs(path)
    ]
    if wrong:
        row, path = wrong[0]
        what = "is empty (null)" if path is None else f"names the file {path!r} and holds none"
        raise HDZooError(
            f"{len(wrong)} of {len(images)} rows hold no picture: {find_row(files, row)} is the "
            f"first (rows count from 0), which {what}; take them out, or put the pictures' files "
            "in as bytes"
        )


def count_rows(file: Path) -> int:
    """How many rows a parquet file says that it has."""
    from pyarrow.parquet import read_metadata

    # Of the names of files some would be taken for addresses.
    with file.open("rb") as content:
        return int(read_metadata(content).num_rows)


def find_row(files: Sequence[Path], row: int) -> str:
    """In which file a row is, and which row of it that is, in words."""
    for file in files:
        count = count_rows(file)
        if row < count:
            return f"row {row} of {file}"
        row -= count
    raise AssertionError("there is no such row")


def _stamp(file: Path) -> tuple[str, ...]:
    stat = file.stat()
    return tuple(map(str, (file.resolve(), stat.st_size, stat.st_mtime_ns, stat.st_ino)))


def _plain_path(file: Path) -> str:
    """A path that `datasets` takes as it is: it expands ``$HOME`` in names of files, and splits
    them at ``::``. A link has neither."""
    from datasets import config

    path = os.path.abspath(file)
    if "$" not in path and "::" not in path:
        return path
    links = Path(config.HF_DATASETS_CACHE) / "hdzoo-links"
    link = links / f"{hashlib.sha256(os.fsencode(path)).hexdigest()}.parquet"
    links.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(path)
    return str(link)
