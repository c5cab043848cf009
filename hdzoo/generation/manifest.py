"""The manifest of a generated set: all that its images depend on."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from hdzoo.catalog import weights_hash
from hdzoo.environment import versions
from hdzoo.errors import HDZooError
from hdzoo.files import write_json
from hdzoo.hub.resolve import resolve_model
from hdzoo.pipelines.backends import backend_of
from hdzoo.pipelines.labels import labels_in_words
from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.text import counted

MANIFEST = "manifest.json"
# Kept for people: a model is its weights and options wherever it lies, and the command may differ
# in the number of processes.
RECORDED_ONLY = ("model", "command")


def options_of(component: Any) -> dict[str, Any]:
    """The options of a network or a sampler, as JSON has them."""
    own = {k: v for k, v in component.config.items() if not k.startswith("_")}
    return json.loads(json.dumps(own, default=str))


def device_kind(device: torch.device) -> str:
    """A device's type and what kind of that type it is, since kinds round differently."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    return device.type


def make_manifest(
    pipe: HDPipeline,
    model: str | Path,
    *,
    start: Any,
    num_images: int,
    chunk_size: int,
    seed: int,
    num_threads: int,
    command: str | None,
    class_label: int | None = None,
) -> dict[str, Any]:
    """The protocol of a set.

    Args:
        pipe: the pipeline that draws, its sampler's number of evaluations set.
        model: where the network is from.
        start: the sampler of the images to start from; None for noise.
        num_images: of the set.
        chunk_size: images drawn together.
        seed: of the set.
        num_threads: of each process.
        command: what the user typed.
        class_label: the class of all images, if one was asked for.
    """
    return {
        "model": str(model),
        "weights_sha256": weights_hash(resolve_model(model)),
        "network": type(pipe.unet).__name__,
        "network_options": options_of(pipe.unet),
        "dtype": str(pipe.unet.dtype).removeprefix("torch."),
        "backend": backend_of(pipe.unet),
        "sampler": type(pipe.scheduler).__name__,
        "sampler_options": options_of(pipe.scheduler),
        "num_inference_steps": len(pipe.scheduler.timesteps),
        "started_from": "noise" if start is None else type(start).__name__,
        "start_options": None if start is None else options_of(start),
        "start_num_inference_steps": 0 if start is None else len(start.timesteps),
        "seed": seed,
        "class_labels": labels_in_words(pipe.unet, class_label),
        "num_images": num_images,
        "chunk_size": chunk_size,
        "num_threads": num_threads,
        "device": device_kind(pipe.device),
        "versions": versions("torch", "diffusers"),
        "command": command,
    }


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Reads the manifest of a folder; None if there is none.

    Raises:
        HDZooError: it is damaged.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text())
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("num_images"), int):
        raise HDZooError(
            f"{path} is damaged, so nobody knows what the images beside it are; put the manifest "
            "back, or give another output folder"
        )
    return manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest of a folder."""
    write_json(folder / MANIFEST, manifest)


def check_same_protocol(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuses to add images of one protocol to those of another; more of the same are welcome.

    Args:
        folder: of the set.
        before: the manifest that is there.
        now: that of what is asked for.

    Raises:
        HDZooError: they differ, in more than a larger number of images; the message says in what.
    """
    differs = list(differences(before, now))
    if differs:
        raise HDZooError(
            f"{folder} holds images of another protocol: {'; '.join(differs)}. Give the same to go "
            "on with them, or another output folder"
        )
    if now["num_images"] < before["num_images"]:
        raise HDZooError(
            f"{folder} is a set of {counted(before['num_images'], 'image')} and num_images is "
            f"{now['num_images']}; it can only grow. The first ones are "
            f"load_dataset({str(folder)!r}, split='train[:{now['num_images']}]')"
        )


def differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What two manifests do not agree in, but for ``num_images``, as phrases."""
    old, new = flat(before), flat(now)
    for key in dict.fromkeys((*old, *new)):
        if key != "num_images" and old.get(key) != new.get(key):
            yield f"{key} was {old.get(key)!r} and is {new.get(key)!r}"


def flat(manifest: dict[str, Any]) -> dict[str, Any]:
    """The protocol with keys such as ``versions.torch``."""
    # Sets of a time when there was no other say nothing.
    entries: dict[str, Any] = {"backend": "torch"}
    for key, value in manifest.items():
        if isinstance(value, dict):
            entries |= {f"{key}.{inner}": content for inner, content in value.items()}
        elif key not in RECORDED_ONLY:
            entries[key] = value
    return entries
