"""Model cards: what the Hub shows of a trained pipeline."""

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from hdzoo.files import whole_file

USAGE = """\
from hdzoo import HDPipeline

pipe = HDPipeline.from_pretrained(".")  # this folder; or the name of its repository on the Hub
images = pipe(batch_size=16).images
"""


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
    data = ModelCardData(
        library_name="hdzoo",
        pipeline_tag="unconditional-image-generation",
        tags=["diffusers", "score-based", unet, sampler],
        datasets=dataset if on_hub else None,
        model_name=name,
    )
    sections = [
        f"# {name}",
        f"A {unet} for {size}x{size} images with {channels} channel{'s' * (channels > 1)}, trained "
        f"by denoising score matching on {record['num_images']:,} images"
        f"{f' of `{dataset}`' if dataset else ''}. Its sampler is {sampler}.",
        f"## Usage\n\n```python\n{USAGE}```",
        "## Training\n\n" + _table(("option", "value"), record["config"].items()),
        f"It took {record['seconds']:,} s on {record['num_processes']} process(es).",
    ]
    if record.get("command"):
        sections.append(f"```bash\n{record['command']}\n```")
    losses = network.get("held_out_loss")
    if losses:
        rows = zip(losses["sigmas"], losses["loss"], strict=True)
        sections.append(
            "## Held-out loss\n\nThe denoising loss per dimension, `E |sigma s + z|^2 / d`; 1 is "
            "that of a score of zero.\n\n"
            + _table(("sigma", "loss"), ((f"{s:.4g}", f"{loss:.4g}") for s, loss in rows))
        )
    sections.append("## Versions\n\n" + _table(("package", "version"), record["versions"].items()))
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")
    with whole_file(folder / "README.md") as partial:
        card.save(partial)


def _table(header: tuple[str, str], rows: Any) -> str:
    lines = [header, ("---", "---"), *rows]
    return "\n".join(f"| {left} | {right} |" for left, right in lines)
