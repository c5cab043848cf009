"""Converts a checkpoint of the NCSN papers' authors into a pipeline folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hdzoo.checks import Flag, Maybe, OneOf
from hdzoo.conversion.card import SOURCES, write_conversion_card
from hdzoo.conversion.checkpoint import Checkpoint, Weights, read_checkpoint, trained
from hdzoo.conversion.config_file import AuthorsConfig
from hdzoo.conversion.families import Architecture, architecture, published_keys
from hdzoo.conversion.settings import Setting, find_setting, sampler_options
from hdzoo.errors import HDZooError
from hdzoo.files import (
    check_folder,
    file_hash,
    has_content,
    named_path,
    whole_folder,
    write_json,
)
from hdzoo.models.inputs import IMAGE_RULES
from hdzoo.models.rungs import LadderModel
from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.samplers.langevin import AnnealedLangevinSampler
from hdzoo.version import __version__

RECORD = "conversion.json"

# The families of networks that each repository has, the usual one first.
_FAMILIES = {
    "ncsn": ("ncsn",),
    "ncsnv2": ("ncsnv2", "ncsn"),
    "score_sde_pytorch": ("ncsnpp",),
}


@dataclass(frozen=True)
class Conversion:
    """What came of a conversion.

    Attributes:
        folder: of the pipeline.
        source: the repository that the checkpoint is from, a key of `SOURCES`.
        network: the name of the network's class.
        num_parameters: of the network.
        averaged: whether the weights are the exponential moving average.
        dataset: the data set, if it is known.
        assumed: what was taken for granted, by its name in a config.
    """

    folder: Path
    source: str
    network: str
    num_parameters: int
    averaged: bool
    dataset: str | None
    assumed: Mapping[str, Any]


def convert(
    checkpoint: str | Path,
    output_dir: str | Path,
    *,
    config: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    dataset: str | None = None,
    use_averaged: bool = True,
    source: str | None = None,
    license: str | None = None,
    command: str = "",
) -> Conversion:
    """Writes the pipeline folder of a published checkpoint: network, sampler, card, record.

    The network follows from the names and shapes of the weights; each of them finds its place in
    it, and none is left over. The sampler is annealed Langevin dynamics on the network's own
    ladder, with the paper's settings. Nothing that the files hold is executed. The folder is
    written whole or not at all.

    What the weights do not tell is taken from the config and the options. Where neither says it,
    it is assumed as published, and the card and the record list it; where it was published in more
    than one way, the checkpoint is refused until it is said.

    Args:
        checkpoint: a file of ermongroup/ncsn (NCSN), ermongroup/ncsnv2 (NCSNv2, its deeper
            variants) or yang-song/score_sde_pytorch (NCSN++), or a state dict of one of their
            networks.
        output_dir: the folder to write; new, or empty, or of the very same conversion.
        config: the ``config.yml`` of its training run, for what the weights do not tell: the size
            of the images, NCSN's noise levels, the sampler's settings where they are not the
            paper's.
        options: the same, one by one, by the names that they have in such a file
            (`hdzoo.conversion.config_file.NAMES`), such as ``{"sde": "vesde"}``; they come before
            the file.
        dataset: what it was trained on, one of the papers' data sets; what follows from the rest by
            default.
        use_averaged: whether to take the averaged weights, if the file has any; else those in it
            are not looked at.
        source: the repository that it is from, one of `SOURCES`; by default the one that
            lays out its files so.
        license: of the weights, as the Hub spells it, for the card.
        command: what made it, for the record.

    Raises:
        HDZooError: a file cannot be read, does not fit, or does not tell enough; or the folder is
            not empty.
    """
    checkpoint = named_path(checkpoint, "checkpoint")
    output_dir = named_path(output_dir, "output_dir").resolve()
    check_folder(output_dir)
    if has_content(output_dir) and not (output_dir / RECORD).is_file():
        raise HDZooError(f"{output_dir} exists and is no empty folder; choose a new one")
    source = Maybe(OneOf(tuple(SOURCES)))("source", source)
    config = None if config is None else named_path(config, "config")
    told = AuthorsConfig(config, options)
    found = read_checkpoint(checkpoint, averages=Flag()("use_averaged", use_averaged))
    plan = architecture(found.weights, told)
    source = _source(found, plan, source)
    setting, known = find_setting(
        plan.family, plan.options["in_channels"], plan.ladder, dataset, told
    )
    # What the user says of the data set comes before what the attention tells.
    sample_size = _sample_size(plan, setting, told, by_attention=dataset is None)
    averaged = found.averaged is not None
    network = _load(plan, sample_size, found)
    scheduler = AnnealedLangevinSampler(
        **_ladder(plan), **sampler_options(plan.family, plan.ladder, setting, told)
    )
    told.check_all_used(plan.family)
    pipe = HDPipeline(network.eval(), scheduler)
    record = {
        "checkpoint": checkpoint.name,
        "sha256": file_hash(checkpoint),
        "source": SOURCES[source].repository,
        "averaged": averaged,
        "dataset": known,
        "config": None if config is None else config.name,
        "options": dict(options or {}),
        "assumed": told.assumed,
        "hdzoo": __version__,
        "torch": torch.__version__,
        "command": command,
    }
    with whole_folder(output_dir) as partial:
        pipe.save_pretrained(partial)
        write_json(partial / RECORD, record)
        write_conversion_card(
            partial, output_dir.name, pipe, plan.family, source, record, known, license
        )
    return Conversion(
        output_dir,
        source,
        type(network).__name__,
        network.num_parameters(),
        averaged,
        known,
        told.assumed,
    )


def _source(found: Checkpoint, plan: Architecture, given: str | None) -> str:
    usual = next(name for name, families in _FAMILIES.items() if plan.family == families[0])
    source = given or found.source or usual
    if plan.family not in _FAMILIES[source]:
        origin = "in the layout" if given is None else "given as a checkpoint"
        raise HDZooError(
            f"the checkpoint holds a network of the family {plan.family} and is {origin} of "
            f"{source}, of which hdzoo converts {' and '.join(_FAMILIES[source])}; say where it is "
            f"from, such as --source {usual}"
        )
    return source


def _sample_size(
    plan: Architecture, setting: Setting | None, config: AuthorsConfig, by_attention: bool
) -> int:
    """The size of the images. All published NCSN++ have their attention at 16 pixels."""
    levels = plan.attention_levels or []
    size: int | None = config.read(IMAGE_RULES["sample_size"], "image_size")
    if size is None:
        if by_attention and len(levels) == 1:
            size = 16 << levels[0]
        elif setting is not None:
            size = setting.sample_size
        else:
            raise HDZooError(
                "the checkpoint does not tell the size of its images, and its noise levels are "
                "those of no paper; give its config.yml with image_size (--config), the data set "
                "(--dataset), or say it: -o image_size=..."
            )
        config.assumed["image_size"] = size
    if plan.attention_levels is not None:
        config.agree([size >> i for i in levels], "attn_resolutions")
    return size


def _ladder(plan: Architecture) -> dict[str, Any]:
    """The network's ladder as options of a sampler."""
    names = ("sigma_max", "sigma_min", "num_levels")
    return {name: plan.options[name] for name in names} | {
        "sigmas": plan.options.get("sigma_levels")
    }


def _load(plan: Architecture, sample_size: int, found: Checkpoint) -> LadderModel:
    """The network with each weight in its place; all are filled and nothing is left over."""
    weights = dict(found.weights)
    if found.averaged is not None:
        _compare({key: weights[key] for key in trained(weights)}, found.averaged, "averaged")
        weights |= found.averaged
    if plan.family == "ncsnpp":
        # It has the noise levels from its options.
        del weights["sigmas"]
    # What the names and shapes tell of may be far larger than what is there.
    with torch.device("meta"):
        sketch = plan.build(sample_size)
    keys, state = published_keys(sketch), sketch.state_dict()
    _compare({keys[key]: value for key, value in state.items()}, weights, "")
    network = plan.build(sample_size)
    network.load_state_dict({ours: weights[theirs] for ours, theirs in keys.items()})
    return network


def _compare(expected: Weights, found: Weights, kind: str) -> None:
    shapes = [
        f"{key} is {list(found[key].shape)} instead of {list(value.shape)}"
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    problems = {
        "missing": [key for key in expected if key not in found],
        "left over": [key for key in found if key not in expected],
        "of another shape": shapes,
    }
    lists = [
        f"{len(keys)} {what}: {', '.join(keys[:8])}{', ...' if len(keys) > 8 else ''}"
        for what, keys in problems.items()
        if keys
    ]
    if lists:
        raise HDZooError(
            f"the {kind + ' ' if kind else ''}weights do not fit the network that their names and "
            f"shapes tell: {'; '.join(lists)}. Take a whole checkpoint of one of the networks that "
            "hdzoo converts"
        )
