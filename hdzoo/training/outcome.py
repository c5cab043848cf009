"""What a training run leaves: the pipeline folder, with its record, its pictures and its card."""

import dataclasses
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusers import ModelMixin
from PIL import Image

from hdzoo.cards import CARD, CURVE, SAMPLES, stopped_at, write_card
from hdzoo.errors import HDZooError
from hdzoo.files import file_hash, whole_file, write_json
from hdzoo.training.losses import LOG, LossLog, held_out_loss, save_curve
from hdzoo.training.protocol import RESULT, surroundings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RECORD_FILE = "training.json"
IGNORED = "checkpoints/\nlogs/\n.lock\n"


def finish(
    network: ModelMixin,
    scheduler: Any,
    folder: Path,
    record: dict[str, Any],
    log: LossLog,
    *,
    held_out: Any = None,
    num_samples: int = 0,
) -> None:
    """Writes all that a trained network leaves; the record comes last.

    Args:
        network: with its final weights.
        scheduler: the sampler to save with it.
        folder: the pipeline folder.
        record: what made the weights.
        log: of the losses.
        held_out: batches of images to measure the loss on.
        num_samples: images for the card; 0 for none.
    """
    from hdzoo.pipelines.pipeline import HDPipeline

    if held_out is not None:
        config = record["config"]
        losses = held_out_loss(
            network, held_out, config["seed"], dequantize=config.get("dequantize", False)
        )
        network.register_to_config(**{RESULT: losses})
    HDPipeline(unet=network, scheduler=scheduler).save_pretrained(folder)
    save_curve(log.lines, folder / CURVE)
    (folder / SAMPLES).unlink(missing_ok=True)
    if num_samples:
        save_samples(network, scheduler, folder / SAMPLES, num_samples, quiet=False)
    if not (folder / ".gitignore").exists():
        with whole_file(folder / ".gitignore") as partial:
            partial.write_text(IGNORED)
    record["num_inference_steps"] = getattr(scheduler, "num_inference_steps", None)
    before, card = read_record(folder) or {}, folder / CARD
    # One that somebody has changed is theirs.
    if not card.exists() or before.get("card_sha256") == file_hash(card):
        write_card(folder, record, dataset=record["dataset"])
        before["card_sha256"] = file_hash(card)
    write_json(folder / RECORD_FILE, record | {"card_sha256": before.get("card_sha256")})


def save_samples(
    network: ModelMixin,
    scheduler: Any,
    path: Path,
    number: int = 16,
    num_inference_steps: int | None = None,
    quiet: bool = True,
) -> Image.Image | None:
    """Draws and saves a grid of samples, the same noise each time; None if they are not finite.

    Args:
        network: that draws.
        scheduler: likewise.
        path: of the PNG.
        number: of samples.
        num_inference_steps: the sampler's own by default.
        quiet: whether to leave out the progress.
    """
    from hdzoo.pipelines.generators import sample_generators
    from hdzoo.pipelines.pipeline import HDPipeline
    from hdzoo.sampling import image_grid

    pipe = HDPipeline(unet=network, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=quiet, desc="samples for the card")
    generators = sample_generators(0, range(number))
    try:
        images = pipe(number, num_inference_steps, generators, return_dict=False)[0]
    except HDZooError as error:
        # A young network may well send a chain to infinity; its training goes on.
        warnings.warn(f"no samples in {path.name}: {error}", stacklevel=2)
        return None
    grid = image_grid(images)
    with whole_file(path) as partial:
        grid.save(partial)
    return grid


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a run that has left its pipeline folder; None if there is none.

    Raises:
        HDZooError: it is damaged.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text())
        if isinstance(record["config"], dict) and isinstance(record.get("protocol", {}), dict):
            return dict(record)
    except (ValueError, KeyError, TypeError):
        pass
    raise HDZooError(
        f"{path} is damaged, so nobody knows which run the folder holds; put it back, or give "
        "another output folder"
    )


def run_record(
    config: "DataclassInstance", num_images: int, seconds: float, num_processes: int
) -> dict[str, Any]:
    """What made the weights: options, data size, time, versions, machine."""
    return {
        "config": dataclasses.asdict(config),
        "num_images": num_images,
        "seconds": round(seconds),
        "num_processes": num_processes,
        **surroundings(),
    }


def result_lines(folder: Path) -> list[str]:
    """How far a run is and what its loss is, in lines for people.

    Args:
        folder: of the run.
    """
    record = read_record(folder) or {}
    lines = []
    if (where := stopped_at(record)) is not None:
        lines.append(f"stopped {where}; the folder is a pipeline of the weights so far. To go on:")
        lines.append(record.get("command") or "call train again, with the same arguments")
    if (loss := record.get("loss")) is not None:
        lines.append(f"loss {loss:.4g}, the mean of the last steps; all of them are in {LOG}")
    held_out = json.loads((folder / "unet" / "config.json").read_text()).get(RESULT)
    if held_out:
        pairs = zip(held_out["sigmas"], held_out["loss"], strict=True)
        some = list(pairs)[:: -(-len(held_out["loss"]) // 10)]
        values = ", ".join(f"{loss:.3g} at {sigma:.3g}" for sigma, loss in some)
        lines.append(f"held-out loss per dimension by noise level: {values}")
    return lines
