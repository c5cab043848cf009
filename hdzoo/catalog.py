"""What there is: rows about samplers, facts about a model."""

import hashlib
import inspect
import json
from functools import partial
from pathlib import Path
from typing import Any

from hdzoo import plugins
from hdzoo.errors import HDZooError
from hdzoo.hub.resolve import resolve_model
from hdzoo.hub.weights import variant_of
from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.samplers.presets import PRESETS, Preset


def sampler_rows() -> list[dict[str, Any]]:
    """One row for each registered sampler, as JSON has it.

    ``options`` has the defaults, ``required`` the names of options that have none. A sampler that
    cannot be imported or looked at has an ``error``, which is None for the others.
    """
    rows = []
    for name in plugins.list_samplers():
        package = plugins.provider("samplers", name)
        row: dict[str, Any] = {
            "name": name,
            "family": "",
            "source": "",
            "options": {},
            "required": [],
            "package": f"{package.distribution} {package.version}",
            "error": None,
        }
        try:
            row |= plugins.call_foreign(partial(_facts, plugins.get_sampler(name)))
        # Another's class may be anything; its neighbours are to be listed nevertheless.
        except Exception as error:
            row["error"] = plugins.describe(error)
        rows.append(row)
    return rows


def _facts(sampler: type[Any]) -> dict[str, Any]:
    parameters = inspect.signature(sampler.__init__).parameters.values()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    options = {p.name: p.default for p in parameters if p.kind in named and p.name != "self"}
    required = [name for name, default in options.items() if default is inspect.Parameter.empty]
    return {
        "family": str(getattr(sampler, "family", "")),
        "source": str(getattr(sampler, "source", "")),
        "options": {k: _as_json(v) for k, v in options.items() if k not in required},
        "required": required,
    }


def _as_json(value: Any) -> Any:
    """A default as JSON has it, in words where JSON has no such thing."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return str(value)


def weights_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of the weight files of a pipeline's components."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a pipeline: in its components' folders, or, as in diffusers' first
    pipelines, beside the index. Variants such as fp16 are left out if there are others."""
    found = sorted(folder.glob("*/**/*.safetensors")) or sorted(
        folder.glob("diffusion_pytorch_model*.safetensors")
    )
    return [path for path in found if variant_of(path.name) is None] or found


def network_options(folder: Path) -> dict[str, Any]:
    """The options of a pipeline's network, as its configuration has them: of the same weights,
    others make another network."""
    for path in (folder / "unet" / "config.json", folder / "config.json"):
        if path.is_file():
            config = json.loads(path.read_text())
            return {key: value for key, value in config.items() if not key.startswith("_")}
    return {}


def describe_model(model: str | Path) -> dict[str, Any]:
    """Facts about a model, in the order in which a person wants them."""
    folder = resolve_model(model)
    pipe = HDPipeline.from_pretrained(folder)
    network, config = pipe.unet, pipe.unet.config
    facts: dict[str, Any] = {
        "model": str(model),
        "folder": str(folder),
        "network": f"{type(network).__module__}.{type(network).__name__}",
        "parameters": network.num_parameters(),
        "weights_bytes": sum(path.stat().st_size for path in weight_files(folder)),
        "weights_sha256": weights_hash(folder),
        "sample_shape": list(pipe.sample_shape),
        "data_range": list(pipe.data_range or ()),
        "predicts": getattr(network, "prediction_type", pipe.scheduler.config.prediction_type),
        "sampler": type(pipe.scheduler).__name__,
        "sampler_options": {
            k: v for k, v in pipe.scheduler.config.items() if not k.startswith("_")
        },
        "num_inference_steps": pipe.scheduler.num_inference_steps,
    }
    facts["presets"] = {name: _described(preset, pipe) for name, preset in PRESETS.items()}
    if config.get("sigma_max"):
        facts["sigma_range"] = [config.sigma_min, config.sigma_max]
    if config.get("held_out_loss"):
        facts["held_out_loss_per_dimension"] = _losses(config.held_out_loss)
    if getattr(network, "guided", False):
        facts["guidance_scale"] = config.guidance_scale
        facts["guidance_interval"] = list(config.guidance_interval)
    return facts


def _described(preset: Preset, pipe: HDPipeline) -> str:
    """What a preset is on a model, or why it has none."""
    try:
        return preset.describe(pipe)
    except HDZooError as error:
        return f"none: {error}"


def _losses(recorded: Any) -> Any:
    """A recorded loss by noise level; what is none, in whatever file, as it is."""
    try:
        levels = [f"sigma {sigma:g}:" for sigma in recorded["sigmas"]]
        return dict(zip(levels, recorded["loss"], strict=True))
    except (TypeError, ValueError, KeyError):
        return recorded
