"""What the weights of a run depend on, and whether a folder holds that very run."""

import dataclasses
import hashlib
import json
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin

from hdzoo.environment import versions
from hdzoo.errors import HDZooError
from hdzoo.images.images import Images
from hdzoo.images.sources import IMAGE
from hdzoo.training.config import TrainingConfig

# Reading all of a large set would take longer than many a run.
MOST_HASHED = 10_000
# Recorded by the trainer in a network's config.
RESULT = "held_out_loss"


def run_protocol(
    network: ModelMixin, images: Images, config: TrainingConfig, num_processes: int
) -> dict[str, Any]:
    """All that the weights of a run depend on, as JSON has it.

    Args:
        network: that is trained.
        images: that it is trained on.
        config: the run.
        num_processes: that share each batch: each has noise of its own.
    """
    options = {key: value for key, value in network.config.items() if key[0] != "_"}
    options.pop(RESULT, None)
    protocol = {
        **dataclasses.asdict(config),
        "images": len(images),
        "images_sha256": images_hash(images),
        "num_processes": num_processes,
        "network": type(network).__name__,
        **{f"network.{key}": value for key, value in sorted(options.items())},
    }
    return dict(json.loads(json.dumps(protocol, default=str)))


def images_hash(images: Images) -> str:
    """SHA-256 over the image files of a data set, in their order; of 10,000 spread evenly at most.

    Args:
        images: of the data set.
    """
    from datasets import Image

    stride = -(-len(images) // MOST_HASHED)
    encoded = images.dataset.select_columns([IMAGE]).cast_column(IMAGE, Image(decode=False))
    digest = hashlib.sha256()
    for batch in encoded.select(range(0, len(images), stride)).iter(batch_size=1000):
        for image in batch[IMAGE]:
            content = image["bytes"]
            content = Path(image["path"]).read_bytes() if content is None else content
            digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def surroundings() -> dict[str, Any]:
    """What the weights depend on in their rounding alone."""
    return {
        "threads_per_process": torch.get_num_threads(),
        "device": device_name(),
        "versions": {"python": platform.python_version()}
        | versions("torch", "diffusers", "accelerate", "datasets"),
    }


def device_name() -> str:
    """What the machine computes with."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return platform.processor() or platform.machine()


def check_same_run(
    place: Path, before: dict[str, Any], now: dict[str, Any], done: int | None = None
) -> None:
    """Refuses to go on with a run of another protocol, and says what differs.

    Args:
        place: where it was found.
        before: its protocol.
        now: that of what is asked for.
        done: the steps that it has made; None for a finished one without checkpoints.

    Raises:
        HDZooError: they differ, in more than a ``max_train_steps`` that may change.
    """
    # An option that did not exist yet had its default.
    defaults = dataclasses.asdict(TrainingConfig())
    differs = list(differences(defaults | before, defaults | now))
    if differs:
        raise HDZooError(
            f"{place} holds another run: {'; '.join(differs)}. Give the same options to go on "
            "with it, or another output folder"
        )
    steps, asked = before["max_train_steps"], now["max_train_steps"]
    if done is None and steps != asked:
        raise HDZooError(
            f"{place} holds a finished run of {steps} steps without checkpoints, which cannot go "
            f"on to {asked}; give another output folder"
        )
    if steps != asked and not now["lr_scheduler"].startswith("constant"):
        raise HDZooError(
            f"the {now['lr_scheduler']!r} schedule depends on max_train_steps, which was {steps} "
            f"and is {asked}; give the same"
        )
    if done is not None and done > asked:
        raise HDZooError(
            f"{place} is past max_train_steps {asked}; ask for at least {done} steps, or give "
            "another output folder"
        )


def differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What two protocols do not agree in, but for ``max_train_steps``, as phrases."""
    for key in dict.fromkeys((*before, *now)):
        if key != "max_train_steps" and before.get(key) != now.get(key):
            yield f"{key} was {before.get(key)!r} and is {now.get(key)!r}"


def warn_of_rounding(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Says that a run goes on with other rounding, so that its last bits will differ.

    Args:
        before: the `surroundings` in which it was stopped.
        now: those in which it goes on.
    """
    flat = [one | one.get("versions", {}) | {"versions": None} for one in (before, now)]
    differs = list(differences(*flat))
    if differs:
        warnings.warn(
            f"the run goes on where rounding may differ: {'; '.join(differs)}. The weights will be "
            "as good, but not the same bit for bit",
            stacklevel=2,
        )
