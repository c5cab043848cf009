"""The pictures of a folder: every one on the disk, or a refusal."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from hdzoo.errors import HDZooError
from hdzoo.images.picture import FORMATS

if TYPE_CHECKING:
    from datasets import Dataset

# A top folder is a split only if it is named exactly so, and all others are too.
SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval")
OTHER_PICTURES = (
    *(".avif", ".heic", ".heif", ".jxl", ".jp2", ".j2k", ".jpx", ".tga", ".ico", ".icns", ".dds"),
    *(".psd", ".exr", ".hdr", ".svg", ".eps", ".fits", ".dcm", ".dng", ".nef", ".cr2", ".arw"),
    *(".qoi", ".pcx", ".sgi", ".xbm", ".xpm"),
)


def load_folder(folder: Path, split: str) -> "Dataset":
    """The pictures of a folder and the folders in it, links followed, in the order of their paths.

    What is left out is said in a warning, with its number: hidden files, and files that are no
    pictures, such as a ``metadata.csv``, which is not read.

    Args:
        folder: the folder.
        split: ``"train"``, which is all; or, where all folders at the top that hold pictures are
            named as splits are (`SPLITS`), one of them.

    Returns:
        A data set with the column ``"image"``. If each picture lies in a folder one level down,
        these are its ``"label"``: their numbers if they are numbered, else their names, in
        alphabetical order.

    Raises:
        HDZooError: there are no pictures, or no such split; a picture has a format that is not
            read; or a folder cannot be read, or is linked to from inside itself.
    """
    from datasets import ClassLabel, Dataset, Features, Value
    from datasets import Image as ImageFeature

    paths = [path.relative_to(folder) for path in _walk(folder)]
    pictures = _pictures(folder, sorted(paths, key=lambda path: path.parts))
    tops = {path.parts[0] if len(path.parts) > 1 else "" for path in pictures}
    has_splits = tops <= set(SPLITS)
    if not has_splits:
        _check_whole(folder, split, pictures)
    elif split not in tops:
        raise HDZooError(f"{folder} has no split {split!r}; it has {', '.join(sorted(tops))}")
    labels = {path: path.parts[has_splits:-1] for path in pictures}
    chosen = [path for path in pictures if not has_splits or path.parts[0] == split]
    columns: dict[str, list[Any]] = {
        "image": [os.path.abspath(folder / path) for path in chosen],
    }
    features = {"image": ImageFeature()}
    if all(len(label) == 1 for label in labels.values()):
        # Of all splits, so that a number means the same in each.
        names = sorted({label[0] for label in labels.values()})
        # Up to 18 digits go into an int64.
        numbered = all(re.fullmatch(r"[0-9]{1,18}", name) for name in names)
        numbered = numbered and len(set(map(int, names))) == len(names)
        columns["label"] = [labels[path][0] for path in chosen]
        if numbered:
            columns["label"] = list(map(int, columns["label"]))
        features["label"] = Value("int64") if numbered else ClassLabel(names=names)
    try:
        return Dataset.from_dict(columns, features=Features(features))
    except UnicodeEncodeError as error:
        raise HDZooError(f"{error.object!r} is no name in UTF-8; rename it") from error


def check_apart(source: str | Path, output_dir: Path) -> None:
    """Refuses an output folder inside a folder of pictures, which would read its grids and curves
    as pictures of the set from then on.

    Args:
        source: of the pictures, as `hdzoo.images.sources.load_images` takes it.
        output_dir: of what is made of them.

    Raises:
        HDZooError: it is that folder, or below it.
    """
    if not os.path.isdir(source):
        return
    folder, output = Path(source).resolve(), output_dir.resolve()
    if output.is_relative_to(folder):
        raise HDZooError(
            f"the output folder {output_dir} is in the folder of the images, {source}: what is "
            "written there would be read as images from then on; give a folder elsewhere"
        )


def _walk(folder: Path) -> Iterator[Path]:
    """All files, folders that are links followed, in the order of their paths."""

    def refuse(error: OSError) -> None:
        raise HDZooError(f"{error.filename} cannot be read: {error.strerror}") from error

    above: dict[str, tuple[str, ...]] = {str(folder): (os.path.realpath(folder),)}
    for where, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        real = above.pop(where)
        folders.sort()
        for name in folders:
            path = os.path.join(where, name)
            target = os.path.realpath(path)
            if target in real:
                raise HDZooError(f"{path} is a link to a folder that it is in; take it away")
            above[path] = (*real, target)
        yield from (Path(where, name) for name in sorted(files))


def _pictures(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """Those that are pictures by their suffix; the rest is said, or refused.

    Args:
        folder: where they are.
        paths: of files, below it.
    """
    registered = Image.registered_extensions()
    read = {suffix for suffix, name in registered.items() if name in (*FORMATS, "MPO")}
    hidden = [path for path in paths if any(part.startswith(".") for part in path.parts)]
    shown = [path for path in paths if not any(part.startswith(".") for part in path.parts)]
    pictures = [path for path in shown if path.suffix.lower() in read]
    others = [path for path in shown if path.suffix.lower() in OTHER_PICTURES]
    if others:
        raise HDZooError(
            f"{folder} has {len(pictures)} pictures and {len(others)} of formats that are not "
            f"read, such as {others[0]}; convert these to PNG, or take them away"
        )
    rest = [path for path in shown if path.suffix.lower() not in read]
    if not pictures:
        kinds = Counter(path.suffix.lower() or "no suffix" for path in rest)
        found = [f"{count} of {kind}" for kind, count in kinds.most_common(5)]
        found += [f"{len(hidden)} hidden"] if hidden else []
        tables = [path.parent for path in rest if path.suffix.lower() == ".parquet"]
        hint = f"; give its files themselves: '{folder / tables[0]}/*.parquet'" if tables else ""
        raise HDZooError(
            f"cannot load images from {str(folder)!r}: the folder has no pictures "
            f"({', '.join(FORMATS)}), but {' and '.join(found) or 'nothing'}{hint}"
        )
    left = [f"{len(hidden)} hidden (such as {hidden[0]})"] if hidden else []
    left += [f"{len(rest)} that are no pictures (such as {rest[0]})"] if rest else []
    if left:
        warnings.warn(f"of the files in {folder} left out are {' and '.join(left)}", stacklevel=4)
    return pictures


def _check_whole(folder: Path, split: str, pictures: Sequence[Path]) -> None:
    """Refuses any split but "train" of a folder without splits, and says what looks like some."""
    if split != "train":
        raise HDZooError(
            f"{folder} has no split {split!r}: its top folders are not all named as splits are "
            f"({', '.join(SPLITS)}), so that its {len(pictures)} pictures are one set, the split "
            "'train': ask for that"
        )
    alike = sorted(
        {part for path in pictures for part in path.parts[:-1] if part.lower() in SPLITS}
    )
    if alike:
        warnings.warn(
            f"the {len(pictures)} pictures of {folder} are taken as one set, those in folders "
            f"named {', '.join(alike)} too: splits are where all top folders are named exactly so",
            stacklevel=4,
        )
