"""Pipelines on their way to the Hub."""

import json
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from huggingface_hub import CommitInfo

from hdzoo import cards
from hdzoo.bundled import INDEX
from hdzoo.errors import HDZooError
from hdzoo.files import named_path
from hdzoo.hub import downloads, weights
from hdzoo.hub.index import read_index
from hdzoo.hub.resolve import REFERENCES, local_model
from hdzoo.hub.uploads import MAIN, Upload, check_inside
from hdzoo.markdown import prose, table

PICTURES = (".gif", ".jpeg", ".jpg", ".png", ".svg", ".webp")
# What a model owes to the one that it was made from.
INHERITED = ("license", "license_name", "license_link", "datasets")


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    load: Callable[..., Any],
    origin: str | None = None,
    **destination: Any,
) -> CommitInfo:
    """Sends a pipeline folder to a repository on the Hub, as one commit.

    First the folder is loaded, in each variant of the weights that it has, so that no broken model
    is sent. What goes is the index, the components' configurations and weights, the other JSON
    files beside the index, reference statistics, the card, and the pictures that it shows. Weights
    in the repository of the same variant that are no part of these are taken away, since a loader
    might prefer them. The card is the folder's, else the repository's, else a new one; missing
    metadata are added, and its snippets load the pipeline by the repository's name.

    Args:
        folder: as `HDPipeline.save_pretrained` left it; it is not changed.
        repo_id: ``"namespace/name"``; made where it is missing.
        load: what loads the folder, with ``variant=``: `HDPipeline.from_pretrained`.
        origin: the model that this one was loaded from, whose licence and data sets a new card
            takes over.
        **destination: ``private``, ``revision``, ``tag``, ``commit_message``, ``create_pr`` and
            ``token``, as in `Upload`.

    Returns:
        The commit; its ``commit_url`` is the address.

    Raises:
        HDZooError: the folder cannot be loaded, a file in it leads outside, the card's metadata
            cannot be read, or the Hub does not take it.
    """
    folder = named_path(folder, "folder")
    upload = Upload(repo_id, **destination)
    if not folder.is_dir():
        raise HDZooError(f"there is no folder {str(folder)!r}; give one with a pipeline")
    files = pipeline_files(folder, read_index(folder))
    variants = sorted(weights.variants(files, "unet") or {None}, key=str)
    loaded = {variant: load(folder, variant=variant) for variant in variants}
    variant, pipe = (None, loaded[None]) if None in loaded else next(iter(loaded.items()))
    card = read_card(folder)
    there = upload.prepare()
    if card is None and cards.CARD in there:
        card = upload.read(cards.CARD)
    if card is None:
        card = new_card(pipe, repo_id, origin)
    else:
        metadata = cards.describe(*class_names(pipe), images=pipe.data_range is not None)
        card = cards.complete_card(card, metadata, f"the card of {folder}")
    names = (cards.HERE, folder.resolve().name, repo_id.partition("/")[2])
    # The main branch and the plain weights are what is loaded when nothing is said.
    revision = None if upload.branch == MAIN else upload.branch
    card = cards.address_snippets(card, names, repo_id, revision=revision, variant=variant)
    content = {name: without_origin(path) for name, path in files.items()}
    content |= pictures(folder, card) | {cards.CARD: card.encode()}
    return upload.send(content, delete=superseded(there, files))


def pipeline_files(folder: Path, index: dict[str, Any]) -> dict[str, Path]:
    """What belongs to a pipeline, apart from its card: names in a repository, and files.

    Args:
        folder: of the pipeline.
        index: its content.

    Raises:
        HDZooError: one of them is a link that leads outside.
    """
    found = list(folder.glob("*.json"))
    for own in (REFERENCES, f"{weights.DIFFUSERS}*"):
        found += folder.glob(f"{own}{weights.SAFETENSORS}")
    for component in weights.components(index):
        for suffix in (".json", weights.SAFETENSORS):
            found += (folder / component).glob(f"*{suffix}")
    files = sorted(path for path in found if path.is_file() and not path.name.startswith("."))
    for path in files:
        check_inside(path, folder)
    return {path.relative_to(folder).as_posix(): path for path in files}


def without_origin(path: Path) -> Path | bytes:
    """A configuration without the place on this machine that it was loaded from."""
    if path.name != INDEX and not path.name.endswith("config.json"):
        return path
    content = json.loads(path.read_text())
    if content.pop("_name_or_path", None) is None:
        return path
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def pictures(folder: Path, card: str) -> dict[str, Path | bytes]:
    """The pictures of a folder that its card shows: names in a repository, and files.

    Args:
        folder: of the pipeline.
        card: its content.

    Raises:
        HDZooError: one of them is a link that leads outside.
    """
    files: dict[str, Path | bytes] = {}
    for shown in cards.pictures_in(card):
        name = PurePosixPath(unquote(shown))
        path = folder / name
        leads_out = name.is_absolute() or ".." in name.parts
        if path.suffix.lower() in PICTURES and not leads_out and path.is_file():
            check_inside(path, folder)
            files[name.as_posix()] = path
    return files


def read_card(folder: Path) -> str | None:
    """The card of a folder, if it has one.

    Raises:
        HDZooError: it leads outside, or its metadata cannot be read.
    """
    path = folder / cards.CARD
    if not path.is_file():
        return None
    check_inside(path, folder)
    content = path.read_bytes().decode(errors="replace")
    cards.read_metadata(content, str(path))
    return content


def class_names(pipe: Any) -> tuple[str, str]:
    """The names of the classes of the network and of the sampler."""
    return type(pipe.unet).__name__, type(pipe.scheduler).__name__


def new_card(pipe: Any, repo_id: str, origin: str | None) -> str:
    """A card for a pipeline that has none.

    Args:
        pipe: the pipeline.
        repo_id: of its repository.
        origin: the model that it was loaded from.
    """
    network, sampler = class_names(pipe)
    name, inherited = repo_id.partition("/")[2], inherited_metadata(origin)
    config = pipe.scheduler.config.items()
    options = {key: value for key, value in config if value is not None and key[0] != "_"}
    shape = "x".join(map(str, pipe.sample_shape))
    sections = [
        f"# {prose(name)}",
        f"A {prose(network)} of {pipe.unet.num_parameters():,} parameters for samples of the shape "
        f"{shape}. Its sampler is {prose(sampler)}.",
        f"## Usage\n\n{cards.usage(cards.HERE)}",
        "## Sampler\n\n" + table(("option", "value"), options.items()),
    ]
    inherited["model_name"] = name
    metadata = cards.describe(network, sampler, images=pipe.data_range is not None, **inherited)
    return cards.render_card(metadata, sections)


def inherited_metadata(origin: str | None) -> dict[str, Any]:
    """What the card of a model that is there, or in the cache, says of licence and data sets."""
    if origin is None:
        return {}
    try:
        local = local_model(origin)
        folder = local or downloads.download(origin, [cards.CARD], local_files_only=True)
        content = (folder / cards.CARD).read_text()
        known = cards.read_metadata(content, origin)
    # Without the card, the new one is as good as that of a model without origin.
    except Exception:
        return {}
    inherited = {key: known[key] for key in INHERITED if key in known}
    return inherited if local else inherited | {"base_model": origin}


def superseded(there: Iterable[str], files: Iterable[str]) -> list[str]:
    """The weights in a repository that new ones of the same component and variant replace.

    Args:
        there: the names of the files in the repository.
        files: the names of those that are sent.
    """
    new, old = weights_in(files), weights_in(there)
    return [name for name, place in old.items() if name not in new and place in new.values()]


def weights_in(names: Iterable[str]) -> dict[str, tuple[str, str | None]]:
    """The networks' weights among files, with the folder and the variant of each."""
    return {
        name: (name.rpartition("/")[0], weights.variant_of(name))
        for name in names
        if weights.is_weights(name) and not fnmatch(name, REFERENCES)
    }
