"""Files of a repository on the Hub, brought into the cache whole or not at all."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import CachedRepoTreeNotFoundError
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

from hdzoo.files import file_hash
from hdzoo.hub.client import patiently

SHA256 = re.compile(r"[0-9a-f]{64}")


def download(
    repo_id: str, allow: Sequence[str], ignore: Sequence[str] = (), **options: Any
) -> Path:
    """Downloads files of a repository, unless the cache has them, and verifies them.

    The client writes under another name and renames, and checks sizes. Weights are verified here at
    each call: in the cache a large file bears the SHA-256 that the Hub states as its name (where
    the file system has links). What is damaged is thrown away and asked for again.

    Args:
        repo_id: ``"namespace/name"``.
        allow: patterns of the files, ``*`` matching slashes too.
        ignore: patterns of files to leave out of those.
        **options: of `huggingface_hub.snapshot_download`.

    Returns:
        The folder in the cache, which is named by the commit; it may have other files too.

    Raises:
        Exception: those of the client; OSError if the content is not what was announced.
    """

    def attempt() -> Path:
        folder = Path(
            snapshot_download(
                repo_id, allow_patterns=list(allow), ignore_patterns=list(ignore), **options
            )
        )
        for name in filter_repo_objects(
            names_in(folder), allow_patterns=list(allow), ignore_patterns=list(ignore)
        ):
            verify(folder / name)
        return folder

    return patiently(attempt)


def verify(path: Path) -> None:
    """Throws a file of the cache away if it is not the one that its name there says."""
    blob = path.resolve()
    if not SHA256.fullmatch(blob.name):
        return
    digest = file_hash(blob)
    if digest != blob.name:
        for damaged in (path, blob):
            damaged.unlink(missing_ok=True)
        raise OSError(
            f"{path.name} has the SHA-256 {digest}, and the Hub says {blob.name}: it was damaged "
            "on the way or in the cache, from which it is removed"
        )


def names_in(folder: Path) -> list[str]:
    """The names of the files in a folder and its folders, sorted, with slashes."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def names_on_hub(repo_id: str, folder: Path, cache_dir: str | Path | None = None) -> list[str]:
    """The names of all files of a repository, at the commit of a folder that `download` gave."""
    try:
        tree = get_cached_repo_tree(repo_id, revision=folder.name, cache_dir=cache_dir)
    except CachedRepoTreeNotFoundError:
        # Put into the cache file by file, by another program.
        return names_in(folder)
    return [file.path for file in tree]
