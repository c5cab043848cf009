"""Accelerate's trackers: where the curves and pictures of a run are watched."""

from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from PIL import Image

from hdzoo.errors import HDZooError
from hdzoo.processes import fail_together

TRACKERS = ("tensorboard", "wandb")


def check_tracker(name: str | None) -> None:
    """Refuses a tracker that there is none of, before anything is written.

    Args:
        name: of one of `TRACKERS`, or None.

    Raises:
        HDZooError: it is another, or its package is not installed.
    """
    if name is not None and name not in TRACKERS:
        raise HDZooError(f"tracker is {name!r}; allowed are {', '.join(TRACKERS)}")
    # Accelerate would go on without it.
    if name is not None and name not in map(str, get_available_trackers()):
        raise HDZooError(f"tracker {name!r} needs a package: pip install {name}")


def start_tracker(accelerator: Accelerator, folder: Path, config: dict[str, Any]) -> None:
    """Starts the tracker of a run, if it has one.

    Args:
        accelerator: of the run.
        folder: of the run; logs go to ``logs/`` in it.
        config: its hyper-parameters.

    Raises:
        HDZooError: it does not start.
    """
    failure, wandb = None, {"name": folder.resolve().name, "dir": str(folder / "logs")}
    try:
        (folder / "logs").mkdir(exist_ok=True)
        accelerator.init_trackers("hdzoo", config=config, init_kwargs={"wandb": wandb})
    # What is wrong with an account or a network, each package says by an error of its own.
    except Exception as error:
        failure = HDZooError(
            f"the tracker does not start: {error}; mend that, or leave the tracker out"
        )
    fail_together(failure)


def track_picture(accelerator: Accelerator, name: str, picture: Image.Image, step: int) -> None:
    """Shows a picture in the tracker of a run, if it has one.

    Args:
        accelerator: of the run.
        name: of the series.
        picture: of the step.
        step: of the run.
    """
    for tracker in accelerator.trackers:
        layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
        tracker.log_images({name: np.asarray(picture.convert("RGB"))[None]}, step, **layout)
