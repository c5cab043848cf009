"""Checkpoints of a training run: one file each, whole or not there, of tensors and JSON alone."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from diffusers import ModelMixin
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError, safe_open

from hdzoo.checksums import check_tensors, save_tensors
from hdzoo.errors import HDZooError
from hdzoo.training.objectives import Objective

# The entry of a file's metadata.
STATE = "hdzoo_training"
_NAME = re.compile(r"step-(\d+)\.safetensors")


@dataclass
class Progress:
    """How far a run is, and what it has seen on the way.

    Attributes:
        step: optimiser steps done.
        seconds: they took.
        running: of each process, the sum of the losses since the last one that was logged.
        logged: the step of that one.
        losses: the lines of the log.
    """

    step: int = 0
    seconds: float = 0.0
    running: tuple[float, ...] = ()
    logged: int = 0
    losses: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk, opened no further than its JSON.

    Attributes:
        path: of the file.
        progress: of the run.
        protocol: of the run.
        surroundings: in which it was written.
        scaler: the state of the gradient scaler, in half precision.
    """

    path: Path
    progress: Progress
    protocol: dict[str, Any]
    surroundings: dict[str, Any]
    scaler: dict[str, Any]


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The last checkpoint in a folder.

    Raises:
        HDZooError: it is damaged, or of a version that wrote pickles.
    """
    if list(folder.glob("step-*/*.pkl")):
        raise HDZooError(
            f"{folder} has a checkpoint with pickles, which could run code when they are opened; "
            "this version neither writes nor opens them. Give another output folder"
        )
    found = {
        int(name[1]): path for path in folder.glob("*") if (name := _NAME.fullmatch(path.name))
    }
    if not found:
        return None
    path = found[max(found)]
    try:
        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()[STATE])
        return Checkpoint(path, progress=Progress(**state.pop("progress")), **state)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise HDZooError(
            f"{path} is no checkpoint of this version, or damaged: {error}. Give another output "
            "folder, or remove it to train from the start"
        ) from error


def save_checkpoint(
    accelerator: Accelerator,
    folder: Path,
    parts: tuple[ModelMixin, torch.optim.Optimizer, EMAModel],
    objective: Objective,
    progress: Progress,
    protocol: dict[str, Any],
    surroundings: dict[str, Any],
) -> None:
    """Writes a checkpoint, and removes the older ones. To be called in every process.

    Args:
        accelerator: of the run.
        folder: of the checkpoints.
        parts: the network without its wrapper, the optimiser, and the moving average.
        objective: of this process; the others' states are gathered.
        progress: of this process; the others' sums are gathered.
        protocol: of the run.
        surroundings: in which it runs.
    """
    running = gather_object(list(progress.running))
    remembered = gather_object([{k: v.cpu() for k, v in objective.state_dict().items()}])
    if accelerator.is_main_process:
        scaler = accelerator.scaler
        state = {
            "progress": asdict(progress) | {"running": running},
            "protocol": protocol,
            "surroundings": surroundings,
            "scaler": {} if scaler is None else scaler.state_dict(),
        }
        path = folder / f"step-{progress.step:07d}.safetensors"
        tensors = dict(tensors_of(*parts))
        for process, memory in enumerate(remembered):
            tensors |= {f"objective.{process}.{key}": value for key, value in memory.items()}
        save_tensors(tensors, path, {STATE: json.dumps(state)})
        for older in folder.glob("step-*.safetensors"):
            if older != path:
                older.unlink()
    accelerator.wait_for_everyone()


def tensors_of(
    network: ModelMixin, optimizer: torch.optim.Optimizer, ema: EMAModel
) -> list[tuple[str, torch.Tensor]]:
    """All tensors of the weights that a run needs to go on, with their names in a checkpoint."""
    names = [name for name, _ in network.named_parameters()]
    found = [(f"model.{name}", value) for name, value in network.state_dict().items()]
    found += [(f"average.{n}", v) for n, v in zip(names, ema.shadow_params, strict=True)]
    found.append(("average_step", torch.tensor(ema.optimization_step)))
    for index, state in optimizer.state_dict()["state"].items():
        found += [(f"adam.{names[index]}.{key}", value) for key, value in state.items()]
    return found


def load_checkpoint(
    accelerator: Accelerator,
    checkpoint: Checkpoint,
    network: ModelMixin,
    optimizer: torch.optim.Optimizer,
    ema: EMAModel,
    objective: Objective,
) -> None:
    """Puts everything in its place.

    Args:
        accelerator: of the run.
        checkpoint: which.
        network: the network without its wrapper.
        optimizer: fresh.
        ema: fresh, on the device where it belongs.
        objective: fresh.

    Raises:
        HDZooError: the file is damaged, or its tensors do not fit the network.
    """
    path = checkpoint.path
    if not check_tensors(path):
        raise HDZooError(f"{path} has no checksum, so that nobody knows whether it is whole")
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    names = [name for name, _ in network.named_parameters()]
    try:
        network.load_state_dict(_below("model.", tensors))
        for name, average in zip(names, ema.shadow_params, strict=True):
            average.copy_(tensors[f"average.{name}"])
        ema.optimization_step = int(tensors["average_step"])
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in _below("adam.", tensors).items():
            name, _, entry = key.rpartition(".")
            state.setdefault(names.index(name), {})[entry] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
        objective.load_state_dict(_below(f"objective.{accelerator.process_index}.", tensors))
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(checkpoint.scaler)
    except (RuntimeError, KeyError, ValueError) as error:
        raise HDZooError(
            f"{path} holds a run of another network: {error}. Give the same to go on with it, or "
            "another output folder"
        ) from error


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
