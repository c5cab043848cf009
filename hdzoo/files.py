"""Files that are written whole or not at all."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hdzoo.errors import HDZooError


def named_path(path: str | Path, what: str) -> Path:
    """A path that somebody has named.

    Args:
        path: the path.
        what: it is of, for the message.

    Raises:
        HDZooError: it is none, or empty, which would be the current folder.
    """
    if not isinstance(path, str | Path) or not str(path).strip():
        raise HDZooError(f"{what} is {path!r}; give a name or a path, '.' for the current folder")
    return Path(path)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path with the same ending; on success it takes the place of ``path``.

    Args:
        path: the file to write; its folder is made where it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        # A rename may reach the disk before what it renames.
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, indented."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
