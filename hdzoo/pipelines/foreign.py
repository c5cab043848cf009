"""Pipelines that diffusers saved, loaded as an `HDPipeline`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hdzoo.errors import HDZooError
from hdzoo.hub.index import check_unconditional, pipeline_of_diffusers
from hdzoo.samplers.consistent import ConsistentAnnealedSampler

# At 200 evaluations ancestral sampling of a mixture of digits is as near to it as 1,500 samples can
# show. It asks once at each of so many levels; a walk that takes its place does so on 20.
_LADDER = {"num_levels": 20, "steps_per_level": 10}
# Pixels of the networks that are not in [-1, 1]. What `KarrasVePipeline` shows its network is
# (x + 1) / 2, at half the noise.
_DATA_RANGES = {"ScoreSdeVePipeline": (0.0, 1.0), "KarrasVePipeline": (0.0, 1.0)}
_PARTS = ("unet", "scheduler")


def components(folder: Path, index: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The components that take the place of those in a folder.

    Args:
        folder: of a pipeline.
        index: what it has.
        given: what `HDPipeline.from_pretrained` is given, with the caller's own components.

    Returns:
        The caller's, and for a pipeline of diffusers' a sampler for its network, unless there is
        one: consistent annealed sampling between the noise levels of the pipeline's scheduler.

    Raises:
        HDZooError: the pipeline is conditional or latent, or its scheduler does not fit.
    """
    own = {key: given[key] for key in _PARTS if key in given}
    name = pipeline_of_diffusers(index)
    if name is None:
        return own
    check_unconditional(index, str(folder))
    # It may have been given one of ours before it was saved.
    if "scheduler" in own or index["scheduler"][0] != "diffusers":
        return own
    config = _scheduler_config(folder)
    options: dict[str, Any] = {}
    if name == "KarrasVePipeline":
        sigmas = {"sigma_max": 100.0, "sigma_min": 0.02} | config
        options = {key: sigmas[key] / 2 for key in ("sigma_max", "sigma_min")}
        options["prediction_type"] = "score"
    sampler = ConsistentAnnealedSampler.from_config(config, readout="full", **_LADDER, **options)
    return own | {"scheduler": sampler}


def record_data_range(unet: Any, index: dict[str, Any]) -> None:
    """Writes the range of its pixels into a network's configuration, where its pipeline knew it."""
    data_range = _DATA_RANGES.get(pipeline_of_diffusers(index) or "")
    if data_range and unet is not None and "data_range" not in unet.config:
        unet.register_to_config(data_range=data_range)


def _scheduler_config(folder: Path) -> dict[str, Any]:
    # The first repositories on the Hub have all files in one folder.
    inside = folder / "scheduler" / "scheduler_config.json"
    path = inside if inside.is_file() else folder / "scheduler_config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise HDZooError(
            f"{folder} cannot be loaded: {path} is missing or damaged: {error}; download or save "
            "the folder again, or pass your own with scheduler=..."
        ) from error
    if not isinstance(config, dict):
        raise HDZooError(
            f"{folder} cannot be loaded: {path} holds no object; download or save the folder again"
        )
    return config
