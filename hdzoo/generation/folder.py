"""The folder of a generated set: of one protocol, one run at a time, complete at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hdzoo.cards import CARD
from hdzoo.errors import HDZooError
from hdzoo.generation.dataset_card import write_dataset_card
from hdzoo.generation.manifest import MANIFEST, check_same_protocol, read_manifest, write_manifest
from hdzoo.generation.shards import Shards, writing
from hdzoo.text import counted

LOCK = ".lock"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder; the system ends it when the process is killed.

    Args:
        folder: of the set; it is made where it is missing.

    Raises:
        HDZooError: another run is in it, or it cannot be written.
    """
    lock = FileLock(folder / LOCK, timeout=0)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise HDZooError(
                f"{folder} is in use by another run; wait for its end, or give another output "
                "folder"
            ) from None
    try:
        yield
    finally:
        lock.release()


def prepare(shards: Shards, manifest: dict[str, Any]) -> None:
    """Makes sure that a folder is this set's, clears it up, and writes the manifest.

    Args:
        shards: of the set.
        manifest: of what is asked for.

    Raises:
        HDZooError: the folder holds another set or something else, or cannot be written.
    """
    folder = shards.folder
    before = read_manifest(folder)
    if before is None:
        check_empty(folder)
    elif shards.present():
        check_same_protocol(folder, before, manifest)
    else:
        # Nothing has been drawn by the protocol that is there.
        before = None
    with writing(folder):
        for pattern in (".partial-*", "*/.partial-*"):
            for leftover in folder.glob(pattern):
                leftover.unlink()
        if before is not None and before["num_images"] < shards.num_images:
            if before["num_images"] % shards.chunk_size:
                shards.remove(before["num_images"] // shards.chunk_size)
            (folder / CARD).unlink(missing_ok=True)
            before = None
        if before is None:
            write_manifest(folder, manifest)


def check_empty(folder: Path) -> None:
    """Refuses a folder that holds anything but what a run that was killed at its start leaves."""
    strange = [p.name for p in folder.iterdir() if p.name != LOCK and ".partial-" not in p.name]
    if strange:
        raise HDZooError(
            f"{folder} holds {min(strange)!r} and no {MANIFEST}; give a new or an empty folder, or "
            "that of a set to go on with"
        )


def finish(shards: Shards, manifest: dict[str, Any]) -> None:
    """Makes sure that the set is complete, and writes its card unless it has one."""
    found = shards.count_images()
    if found != shards.num_images:
        raise HDZooError(
            f"{shards.folder} has {found} of {counted(shards.num_images, 'image')}, since "
            "something has taken shards away meanwhile; give the same command again"
        )
    if not (shards.folder / CARD).exists():
        with writing(shards.folder):
            write_dataset_card(shards.folder, manifest)
