"""Checkpoints of a training run: whole or not at all, and of one run only."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from hdzoo.errors import HDZooError
from hdzoo.files import write_json
from hdzoo.training.config import TrainingConfig

STATE_FILE = "training_state.json"


def latest_checkpoint(folder: Path) -> Path | None:
    """The last whole checkpoint in a folder; a half-written one has another name."""
    found = [path for path in folder.glob("step-*") if (path / STATE_FILE).is_file()]
    return max(found, key=lambda path: int(path.name.removeprefix("step-")), default=None)


def save_checkpoint(
    accelerator: Accelerator,
    folder: Path,
    step: int,
    seconds: float,
    config: TrainingConfig,
    num_images: int,
) -> None:
    """Writes a checkpoint under another name, renames it, and removes the older ones."""
    target, partial = folder / f"step-{step:07d}", folder / f"partial-{step:07d}"
    if accelerator.is_main_process:
        # What a kill has left: a folder of either name without its last file.
        for path in (target, partial):
            shutil.rmtree(path, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        state = {
            "step": step,
            "seconds": seconds,
            "config": dataclasses.asdict(config),
            "num_images": num_images,
        }
        write_json(partial / STATE_FILE, state)
        partial.rename(target)
        for path in (*folder.glob("step-*"), *folder.glob("partial-*")):
            if path != target:
                # Without its state file it is no checkpoint, however far a kill lets this come.
                (path / STATE_FILE).unlink(missing_ok=True)
                shutil.rmtree(path)
    accelerator.wait_for_everyone()


def check_same_run(checkpoint: Path, config: TrainingConfig, num_images: int) -> tuple[int, float]:
    """Reads a checkpoint's step and seconds, and refuses one of another run."""
    state = json.loads((checkpoint / STATE_FILE).read_text())
    check_same_options(checkpoint.parent, state, config, num_images)
    before = state["config"]["max_train_steps"]
    if before != config.max_train_steps and not config.lr_scheduler.startswith("constant"):
        raise HDZooError(
            f"the {config.lr_scheduler!r} schedule depends on max_train_steps, which was "
            f"{before} and is {config.max_train_steps}; give the same"
        )
    if state["step"] > config.max_train_steps:
        raise HDZooError(
            f"{checkpoint} is past max_train_steps {config.max_train_steps}; ask for at least "
            f"{state['step']} steps, or give another output folder"
        )
    return state["step"], state["seconds"]


def check_finished(record: Path, config: TrainingConfig, num_images: int) -> None:
    """Refuses a finished run without checkpoints that is not the very run that is asked for."""
    state = json.loads(record.read_text())
    check_same_options(record.parent, state, config, num_images)
    before = state["config"]["max_train_steps"]
    if before != config.max_train_steps:
        raise HDZooError(
            f"{record.parent} holds a finished run of {before} steps without checkpoints, which "
            f"cannot go on to {config.max_train_steps}; give another output folder"
        )


def check_same_options(
    folder: Path, state: dict[str, Any], config: TrainingConfig, num_images: int
) -> None:
    """Refuses a run of other options or other data, and says what differs."""
    # An option that did not exist yet had its default.
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    before = defaults | state["config"] | {"images": state.get("num_images", num_images)}
    now = dataclasses.asdict(config) | {"images": num_images}
    differs = [
        f"{key} was {before[key]!r} and is {now.get(key)!r}"
        for key in before
        if before[key] != now.get(key) and key != "max_train_steps"
    ]
    if differs:
        raise HDZooError(
            f"{folder} holds another run: {'; '.join(differs)}. Give the same options to go on "
            "with it, or another output folder"
        )
