"""Pipelines that diffusers saved, loaded as an `HDPipeline`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from hdzoo.checks import POSITIVE
from hdzoo.errors import HDZooError
from hdzoo.hub import weights
from hdzoo.hub.index import check_unconditional, pipeline_of_diffusers
from hdzoo.models.ncsn_unet import NCSNUNetModel
from hdzoo.samplers.consistent import ConsistentAnnealedSampler
from hdzoo.samplers.ladders import whole_number
from hdzoo.samplers.langevin import AnnealedLangevinSampler

# At 200 evaluations ancestral sampling of a mixture of digits is as near to it as 1,500 samples can
# show. It asks once at each of so many levels; a walk that takes its place does so on 20.
_LADDER = {"num_levels": 20, "steps_per_level": 10}
# Pixels of the networks that are not in [-1, 1]. What `KarrasVePipeline` shows its network is
# (x + 1) / 2, at half the noise.
_DATA_RANGES = {"ScoreSdeVePipeline": (0.0, 1.0), "KarrasVePipeline": (0.0, 1.0)}
_PARTS = ("unet", "scheduler")
# The package diffusers-ncsn on PyPI.
_PEERS_NETWORK = ["unet_2d_ncsn", "UNet2DModelForNCSN"]


def components(folder: Path, index: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The components that take the place of those in a folder.

    Args:
        folder: of a pipeline.
        index: what it has.
        given: what `HDPipeline.from_pretrained` is given, with the caller's own components.

    Returns:
        The caller's, and for a pipeline of diffusers' a sampler for its network, unless there is
        one: consistent annealed sampling between the noise levels of the pipeline's scheduler. For
        a folder of the package diffusers-ncsn, both components; none of its code is run.

    Raises:
        HDZooError: the pipeline is conditional or latent, or its scheduler does not fit.
    """
    own = {key: given[key] for key in _PARTS if key in given}
    if index.get("unet") == _PEERS_NETWORK:
        return _peers_components(folder, given) | own
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


def _peers_components(folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The network and the sampler of a folder of diffusers-ncsn, as its code runs them.

    The network is told the index of a noise level, and its output is the score. A step there is
    ``x + a/2 s + sqrt(a) z`` with ``a = sampling_eps (sigma_i / sigma_L)^2``, from a start that is
    uniform on [0, 1].
    """
    index, variant = {"unet": _PEERS_NETWORK}, given.get("variant")
    weights.check_folder(folder, index, variant)
    name = f"{weights.DIFFUSERS}{'.' + variant if variant else ''}{weights.SAFETENSORS}"
    config = _config(folder / "unet" / "config.json", folder, "unet")
    try:
        state = load_file(folder / "unet" / name)
        # Its config says None for the number of levels.
        levels = state.pop("sigmas").flatten().tolist()
        network = NCSNUNetModel(unet_options=config, sigma_levels=levels)
        state = {f"unet.{key}": value for key, value in state.items()}
        network.load_state_dict(state | {"sigmas": network.sigmas})
    except (OSError, KeyError, SafetensorError, RuntimeError) as error:
        raise HDZooError(
            f"{folder} cannot be loaded: {error}. If a file is damaged or missing, download or "
            "save the folder again"
        ) from error
    told = _scheduler_config(folder)
    steps, eps = told.get("num_annealed_steps", 100), told.get("sampling_eps", 1e-5)
    sampler = AnnealedLangevinSampler(
        sigmas=levels,
        steps_per_level=whole_number(steps, "num_annealed_steps"),
        step_size=POSITIVE("sampling_eps", eps) / 2,
        start="uniform",
    )
    dtype = given.get("dtype") or given.get("torch_dtype")
    if dtype is not None:
        network.to(dtype)
    return {"unet": network.eval(), "scheduler": sampler}


def _scheduler_config(folder: Path) -> dict[str, Any]:
    # The first repositories on the Hub have all files in one folder.
    inside = folder / "scheduler" / "scheduler_config.json"
    path = inside if inside.is_file() else folder / "scheduler_config.json"
    return _config(path, folder, "scheduler")


def _config(path: Path, folder: Path, part: str) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise HDZooError(
            f"{folder} cannot be loaded: {path} is missing or damaged: {error}; download or save "
            f"the folder again, or pass your own with {part}=..."
        ) from error
    if not isinstance(config, dict):
        raise HDZooError(
            f"{folder} cannot be loaded: {path} holds no object; download or save the folder again"
        )
    return config
