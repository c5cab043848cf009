"""Pipelines on their way from the Hub into a folder."""

import shutil
from pathlib import Path
from typing import Any

from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

from hdzoo import cards
from hdzoo.bundled import INDEX
from hdzoo.errors import HDZooError
from hdzoo.files import check_folder, has_content, named_path, whole_folder
from hdzoo.hub import downloads, weights
from hdzoo.hub.index import read_index
from hdzoo.hub.resolve import DOWNLOADED, local_model, refusal, resolve_model


def pull(
    name: str, output_dir: str | Path | None = None, *, variant: str | None = None, **options: Any
) -> Path:
    """Downloads a pipeline into the cache, and from there into a folder of its own if wanted.

    Args:
        name: a Hub id; or a folder or a bundled name, which is there already.
        output_dir: the folder, new or empty, or with the very same pipeline; it is there whole or
            not at all. It gets the pictures of the card too, so that it can be pushed again.
        variant: of the weights, such as ``"fp16"``.
        **options: ``revision``, ``token``, ``cache_dir``, ``local_files_only`` and
            ``force_download``, as in `hdzoo.hub.resolve.resolve_model`.

    Returns:
        The folder, or the one in the cache.

    Raises:
        HDZooError: there is no such pipeline, or ``output_dir`` has something else, is in use, or
            cannot be written.
    """
    output = None if output_dir is None else named_path(output_dir, "output_dir")
    if output is not None:
        check_folder(output)
        if has_content(output) and not (output / INDEX).is_file():
            raise HDZooError(f"{output} is there and is not empty; give a new folder, or remove it")
    folder = resolve_model(name, variant=variant, **options)
    if output is None:
        return folder
    index = read_index(folder)
    weights.check_folder(folder, index, variant)
    card = folder / cards.CARD
    pictures = cards.pictures_in(card.read_text()) if card.is_file() else []
    if pictures and local_model(name) is None:
        # Of the same commit.
        with refusal(name, options):
            downloads.download(name, pictures, **options | {"revision": folder.name})
    allow, ignore = weights.patterns(index, variant)
    wanted = filter_repo_objects(
        downloads.names_in(folder),
        allow_patterns=[*DOWNLOADED, *allow, *pictures],
        ignore_patterns=ignore,
    )
    with whole_folder(output.resolve()) as partial:
        for file in wanted:
            (partial / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / file, partial / file)
    return output
