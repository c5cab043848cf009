"""A pipeline on its way to disk: what a save replaces, and what it leaves alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hdzoo.bundled import INDEX
from hdzoo.checksums import add_checksum
from hdzoo.files import check_folder, inner_folder, move, partial_name, remove, writing
from hdzoo.hub import weights


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Gives a temporary folder for a pipeline; on success its files take their places.

    Args:
        folder: of the pipeline, new or not.

    Raises:
        HDZooError: it cannot be written, or has a link where a component's folder belongs.
    """
    check_folder(folder)
    with writing(folder):
        partial = inner_folder(folder, partial_name("pipeline"))
        try:
            yield partial
            for path in partial.rglob(f"*{weights.SAFETENSORS}"):
                add_checksum(path)
            _place(partial, folder)
        finally:
            remove(partial)


def _place(partial: Path, folder: Path) -> None:
    """Moves files to their places, the index last, and removes the weights that they supersede."""
    paths = [path.relative_to(partial) for path in partial.rglob("*") if path.is_file()]
    for component in {path.parent for path in paths}:
        inner_folder(folder, *component.parts)
    new = {path for path in paths if weights.is_weights(path.name)}
    saved = {(path.parent, weights.variant_of(path.name)) for path in new}
    for path in sorted(paths, key=lambda path: (path not in new, path.name == INDEX, path)):
        move(partial / path, folder / path)
    for component, variant in saved:
        for old in (folder / component).iterdir():
            if (
                old.relative_to(folder) not in new
                and weights.is_weights(old.name)
                and weights.variant_of(old.name) == variant
            ):
                old.unlink()
