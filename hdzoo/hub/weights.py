"""The weights files of a pipeline: which there are, and what is wrong with them."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hdzoo.checksums import check_tensors
from hdzoo.errors import HDZooError

SAFETENSORS = ".safetensors"
# What diffusers calls the weights of a network.
DIFFUSERS = "diffusion_pytorch_model"
PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
_SHARD = re.compile(r"-\d+-of-\d+")


def components(index: dict[str, Any]) -> list[str]:
    """The names of a pipeline's components, which are those of their folders."""
    return [name for name in index if not name.startswith("_")]


def is_weights(name: str) -> bool:
    """Whether a file has weights as safetensors, or says in which parts they are."""
    return name.endswith(SAFETENSORS) or f"{SAFETENSORS}.index." in name


def variant_of(name: str) -> str | None:
    """The variant that the name of a weights file bears, such as ``"fp16"``."""
    parts = _SHARD.sub("", name.rpartition("/")[2]).split(".")[1:]
    return ".".join(p for p in parts if p not in ("safetensors", "index", "json")) or None


def files_of(names: Collection[str], component: str) -> list[str]:
    """The files of a component: in its folder or, in the oldest pipelines, beside the index.

    Args:
        names: of the pipeline's files, with slashes.
        component: which.
    """
    own = [name for name in names if name.startswith(f"{component}/")]
    return own or [name for name in names if name.startswith(DIFFUSERS)]


def variants(names: Collection[str], component: str) -> set[str | None]:
    """The variants in which a component's weights are there; None is the plain one.

    Args:
        names: of the pipeline's files, with slashes.
        component: which.
    """
    return {variant_of(name) for name in files_of(names, component) if is_weights(name)}


def patterns(index: dict[str, Any], variant: str | None) -> tuple[list[str], list[str]]:
    """Which weights to take of a repository: patterns to allow, and patterns to ignore.

    Args:
        index: of the pipeline.
        variant: of the weights.
    """
    places = [*(f"{name}/" for name in components(index)), DIFFUSERS]
    if variant is None:
        ignored = [f"*/*.*{SAFETENSORS}", f"{DIFFUSERS}.*{SAFETENSORS}"]
        return [f"{place}*{SAFETENSORS}" for place in places], ignored
    # The number of a part comes after the variant, or before it: fp16-00001-of-00002.
    return [f"{place}*.{variant}[.-]*{SAFETENSORS[1:]}" for place in places], []


def check_names(
    names: Collection[str], index: dict[str, Any], variant: str | None, source: str
) -> None:
    """Refuses weights that are pickles only, or not there in the variant.

    Args:
        names: of the pipeline's files, with slashes.
        index: of the pipeline.
        variant: of the weights.
        source: which pipeline, for the message.

    Raises:
        HDZooError: what there is instead.
    """
    for component in components(index):
        found = variants(names, component)
        pickles = sorted(name for name in files_of(names, component) if name.endswith(PICKLES))
        if pickles and not found:
            raise HDZooError(
                f"{source} has weights as a pickle only, {pickles[0]}, and a pickle can run any "
                "code when it is opened: weights must be safetensors. Ask the author for them"
            )
        if found and variant not in found:
            allowed = ", ".join(sorted(repr(name) if name else "no variant" for name in found))
            raise HDZooError(
                f"{source} has no weights of the variant {variant!r} for its {component}; allowed "
                f"are {allowed}"
            )


def check_folder(
    folder: Path, index: dict[str, Any], variant: str | None, held_back: Collection[str] = ()
) -> None:
    """Refuses the weights of a folder as `check_names` does, parts that are something else, and
    damage: what was saved by hdzoo knows its checksum.

    Args:
        folder: of the pipeline.
        index: its content.
        variant: of the weights.
        held_back: components that the caller brings.

    Raises:
        HDZooError: the weights are of another kind or damaged, or a list of parts is damaged or
            names a file that is none of them or not there.
    """
    needed = {name: entry for name, entry in index.items() if name not in held_back}
    places = [folder, *(folder / name for name in components(needed))]
    paths = [path for place in places for path in sorted(place.glob("*"))]
    names = [path.relative_to(folder).as_posix() for path in paths]
    check_names(names, needed, variant, str(folder))
    for path in paths:
        if not is_weights(path.name) or variant_of(path.name) != variant:
            continue
        if f"{SAFETENSORS}.index." in path.name:
            _check_parts(path)
        elif path.parent != folder or path.name.startswith(DIFFUSERS):
            check_tensors(path)


def _check_parts(path: Path) -> None:
    try:
        parts = {str(part) for part in json.loads(path.read_text())["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HDZooError(f"{path} is damaged; download or save the folder again") from error
    for part in sorted(parts):
        if "/" in part or "\\" in part or not part.endswith(SAFETENSORS):
            raise HDZooError(
                f"{path} names {part!r} as a part of the weights, where a safetensors file beside "
                "it belongs; do not trust this folder"
            )
    missing = [part for part in sorted(parts) if not (path.parent / part).is_file()]
    if missing:
        whole = path.with_name(path.name.replace(".index.json", ""))
        advice = (
            f"; there is {whole.name} too: remove the list to load that" if whole.is_file() else ""
        )
        raise HDZooError(
            f"{path} lists {len(missing)} parts of the weights that are not there, {missing[0]} "
            f"first; download or save the folder again{advice}"
        )
