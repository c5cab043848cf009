"""The folder of a generated set: of one protocol, one run at a time, complete at the end."""

from pathlib import Path
from typing import Any

from hdzoo.cards import CARD
from hdzoo.errors import HDZooError
from hdzoo.files import LOCK, PARTIAL, check_no_link, sweep, writing
from hdzoo.generation.dataset_card import write_dataset_card
from hdzoo.generation.manifest import MANIFEST, check_same_protocol, read_manifest, write_manifest
from hdzoo.generation.shards import Shards
from hdzoo.text import counted


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
    parts = [path.parent for path in (shards.path(0), shards.checksum_path(0))]
    for part in parts:
        check_no_link(part)
    with writing(folder):
        sweep(folder, *parts)
        if before is not None and before["num_images"] < shards.num_images:
            if before["num_images"] % shards.chunk_size:
                shards.remove(before["num_images"] // shards.chunk_size)
            (folder / CARD).unlink(missing_ok=True)
            before = None
        if before is None:
            write_manifest(folder, manifest)


def check_empty(folder: Path) -> None:
    """Refuses a folder that holds anything but what a run that was killed at its start leaves."""
    strange = [p.name for p in folder.iterdir() if p.name != LOCK and PARTIAL not in p.name]
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
