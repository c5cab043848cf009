"""Model cards: what the Hub shows of a trained pipeline."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

from hdzoo.errors import HDZooError
from hdzoo.files import whole_file
from hdzoo.markdown import code, fenced, prose, table
from hdzoo.text import counted

CARD = "README.md"
HERE = "."
TASK = "unconditional-image-generation"
# What training leaves beside the card.
SAMPLES, CURVE = "samples.png", "loss.png"
USAGE = """\
from hdzoo import HDPipeline

pipe = HDPipeline.from_pretrained({source})
images = pipe(batch_size=16).images
"""
# What one reads who tries it without.
PLAIN_DIFFUSERS = (
    "The pipeline's class is that of the package hdzoo: plain "
    "`DiffusionPipeline.from_pretrained` says that the module diffusers has no attribute "
    "HDPipeline."
)
_LOADING = re.compile(
    r"""(?P<call>\b(?:HD\w*Pipeline\.from_pretrained|load_dataset)\(\s*)"""
    r"""(["'])(?P<name>[^"']*)\2(?:,\s*(?:revision|variant)=(["'])[^"']*\4)*"""
)
_PICTURE = re.compile(r"""!\[[^\]]*\]\(\s*<?([^\s)>]+)|<img\b[^>]*?\ssrc=["']([^"']+)""")


def describe(network: str, sampler: str, images: bool = True, **more: Any) -> dict[str, Any]:
    """The metadata by which the Hub finds and shows a pipeline.

    Args:
        network: the name of its class.
        sampler: the name of its class.
        images: whether samples are images.
        **more: what else is known, such as ``datasets`` and ``license``; None is left out.
    """
    data = ModelCardData(
        library_name="hdzoo",
        pipeline_tag=TASK if images else None,
        tags=["diffusers", "score-based", network, sampler],
        **more,
    )
    return data.to_dict()


def usage(source: str) -> str:
    """The snippet of a card, between its fences, and what it is good for.

    Args:
        source: a folder, or the name of a repository.
    """
    snippet = fenced(USAGE.format(source=json.dumps(source)), "python")
    return f"{snippet}\n\n{PLAIN_DIFFUSERS}"


def render_card(metadata: dict[str, Any], sections: list[str]) -> str:
    """The text of a card.

    Args:
        metadata: for the Hub.
        sections: of Markdown.
    """
    header = yaml_dump(metadata, sort_keys=False)
    return f"---\n{header}---\n\n" + "\n\n".join(sections) + "\n"


def read_metadata(content: str, source: str) -> dict[str, Any]:
    """The metadata of a card, as the Hub's own reader understands them.

    Args:
        content: of the card.
        source: which card, for the message.

    Raises:
        HDZooError: they cannot be read.
    """
    try:
        return ModelCard(content).data.to_dict()
    except Exception as error:
        raise HDZooError(f"the metadata of {source} cannot be read: {error}; mend them") from error


def complete_card(content: str, metadata: dict[str, Any], source: str) -> str:
    """Adds the metadata that a card lacks; all else stays as it is, byte for byte.

    Args:
        content: of the card.
        metadata: what it should have; a key that it has already keeps its value.
        source: which card, for messages.

    Raises:
        HDZooError: its metadata cannot be read.
    """
    known = read_metadata(content, source)
    missing = {key: value for key, value in metadata.items() if key not in known}
    if not missing:
        return content
    block = yaml_dump(missing, sort_keys=False)
    header = REGEX_YAML_BLOCK.match(content)
    if header is None:
        return f"---\n{block}---\n\n{content}"
    end = header.end(2)
    completed = f"{content[:end]}\n{block.rstrip()}{content[end:]}"
    # The Hub's reader has the last word on what is added.
    read_metadata(completed, source)
    return completed


def address_snippets(
    content: str, names: Collection[str], repo_id: str, **options: str | None
) -> str:
    """Makes the snippets of a card load the model, or the data set, from its repository.

    Args:
        content: of the card.
        names: by which its snippets call it so far, beside the card's ``model_name``;
            those of repositories without the namespace.
        repo_id: of the repository.
        **options: ``revision`` and ``variant``, where they are needed.
    """
    own = {*names, read_metadata(content, "the card").get("model_name")}

    def addressed(found: re.Match[str]) -> str:
        known = found["name"].rpartition("/")[2] in own
        return found["call"] + _arguments(repo_id, options) if known else found[0]

    return _LOADING.sub(addressed, content)


def _arguments(source: str, options: dict[str, str | None]) -> str:
    given = (f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None)
    return ", ".join([json.dumps(source), *given])


def pictures_in(content: str) -> list[str]:
    """The pictures beside a card that it shows, by their names in Markdown or HTML."""
    shown = (left or right for left, right in _PICTURE.findall(content))
    return sorted({name for name in shown if "://" not in name})


def _aim(config: dict[str, Any]) -> str:
    name = config.get("objective", "denoising")
    return "denoising score matching" if name == "denoising" else f"the objective {code(name)}"


def stopped_at(record: dict[str, Any]) -> str | None:
    """Where a run was stopped before its last step, in words; None for a finished one.

    Args:
        record: of the training run, as in ``training.json``.
    """
    if "step" not in record:
        return None
    step, last = record["step"], record["config"]["max_train_steps"]
    return f"after {step:,} of {last:,} steps" if step < last else None


def write_card(folder: Path, record: dict[str, Any], dataset: str | None = None) -> None:
    """Writes ``README.md`` into a pipeline folder.

    Args:
        folder: as `HDPipeline.save_pretrained` left it.
        record: of the training run, as in ``training.json``.
        dataset: where the images are from; the Hub links it if it is the id of a data set there.
    """
    index = json.loads((folder / "model_index.json").read_text())
    network = json.loads((folder / "unet" / "config.json").read_text())
    name, (_, unet), (_, sampler) = folder.resolve().name, index["unet"], index["scheduler"]
    size, channels = network["sample_size"], network["in_channels"]
    on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", dataset or "") and not (
        Path(str(dataset)).exists() or str(dataset).endswith(".parquet")
    )
    metadata = describe(unet, sampler, datasets=dataset if on_hub else None, model_name=name)
    origin, cost = record.get("init_from"), record.get("num_inference_steps")
    where = stopped_at(record)
    shown = [name for name in (SAMPLES, CURVE) if (folder / name).is_file()]
    sections = [
        f"# {prose(name)}",
        *([f"![Samples of its own sampler]({SAMPLES})"] if SAMPLES in shown else ()),
        f"A {prose(unet)} for {size}x{size} images with {counted(channels, 'channel')}, trained "
        f"by {_aim(record['config'])} on {counted(record['num_images'], 'image')}"
        f"{f' of {code(dataset)}' if dataset else ''}"
        f"{f', from the weights of {code(origin)}' if origin else ''}. "
        f"Its sampler is {prose(sampler)}"
        f"{f' with {cost:,} network evaluations' if cost else ''}.",
        f"## Usage\n\n{usage(HERE)}",
        "## Training\n\n" + table(("option", "value"), record["config"].items()),
        f"It took {record['seconds']:,} s on "
        f"{counted(record['num_processes'], 'process', 'processes')}"
        f"{f', and was stopped {where}' if where else ''}.",
    ]
    if record.get("command"):
        sections.append(fenced(record["command"], "bash"))
    if CURVE in shown:
        sections.append(f"![The loss against the steps]({CURVE})")
    losses = network.get("held_out_loss")
    if losses:
        rows = zip(losses["sigmas"], losses["loss"], strict=True)
        sections.append(
            "## Held-out loss\n\nThe denoising loss per dimension, `E |sigma s + z|^2 / d`; 1 is "
            "that of a score of zero.\n\n"
            + table(("sigma", "loss"), ((f"{s:.4g}", f"{loss:.4g}") for s, loss in rows))
        )
    sections.append("## Versions\n\n" + table(("package", "version"), record["versions"].items()))
    with whole_file(folder / CARD) as partial:
        partial.write_text(render_card(metadata, sections))
