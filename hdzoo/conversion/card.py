"""The card of a converted pipeline."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hdzoo.cards import CARD, HERE, describe, render_card, usage
from hdzoo.files import whole_file
from hdzoo.markdown import code, fenced, prose, table
from hdzoo.pipelines.pipeline import HDPipeline
from hdzoo.text import counted


@dataclass(frozen=True)
class Source:
    """A repository of code that published checkpoints come from.

    Attributes:
        repository: on GitHub.
        code_licence: of the code there; the weights have none of their own that is known.
    """

    repository: str
    code_licence: str


SOURCES = {
    "ncsn": Source("ermongroup/ncsn", "GPL-3.0"),
    "ncsnv2": Source("ermongroup/ncsnv2", "MIT"),
    "score_sde_pytorch": Source("yang-song/score_sde_pytorch", "Apache-2.0"),
}
PAPERS = {
    "ncsn": ("1907.05600", "Generative Modeling by Estimating Gradients of the Data Distribution"),
    "ncsnv2": ("2006.09011", "Improved Techniques for Training Score-Based Generative Models"),
    "ncsnpp": (
        "2011.13456",
        "Score-Based Generative Modeling through Stochastic Differential Equations",
    ),
}
SAMPLER_OPTIONS = (
    "sigma_max",
    "sigma_min",
    "num_levels",
    "steps_per_level",
    "step_size",
    "hand_off",
    "readout",
)
# The published sampler, where hdzoo has another in its place.
SUBSTITUTES = {
    "ncsnpp": " It stands for the paper's predictor-corrector sampler: on each level a Langevin "
    "step, which is the corrector, and a half-denoising step to the next for the predictor."
}
# Names of the data sets on the Hub, where they have one of their own.
HUB_DATASETS = {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10"}


def write_conversion_card(
    folder: Path,
    name: str,
    pipe: HDPipeline,
    family: str,
    source: str,
    record: dict[str, Any],
    dataset: str | None,
    license: str | None,
) -> None:
    """Writes ``README.md`` into the folder of a converted pipeline.

    Args:
        folder: of the pipeline.
        name: of the model.
        pipe: the pipeline.
        family: of the network, a key of `PAPERS`.
        source: where the checkpoint is from, a key of `SOURCES`.
        record: of the conversion, as in ``conversion.json``.
        dataset: a short name of the data set; None if it is not known.
        license: of the weights, as the Hub spells it; None if it is not known.
    """
    origin, (paper, title) = SOURCES[source], PAPERS[family]
    network, sampler = type(pipe.unet).__name__, type(pipe.scheduler).__name__
    channels, height, width = pipe.sample_shape
    metadata = describe(
        network,
        sampler,
        datasets=HUB_DATASETS.get(dataset or ""),
        license=license,
        model_name=name,
    )
    metadata["tags"] += [f"arxiv:{paper}"]
    weights = "the exponential moving average" if record["averaged"] else "not averaged"
    owned = (
        f"The weights are under {code(license)}." if license else "That of the weights is unknown."
    )
    options = ", ".join(f"{key} {pipe.scheduler.config[key]}" for key in SAMPLER_OPTIONS)
    apart = ("command", "options", "assumed")
    rows = [(key, value) for key, value in record.items() if key not in apart]
    sections = [
        f"# {prose(name)}",
        f"An {network} for {height}x{width} images with {counted(channels, 'channel')}"
        f"{f', trained on {dataset}' if dataset else ''}: a checkpoint of "
        f"[{origin.repository}](https://github.com/{origin.repository}), converted by hdzoo. Its "
        f"weights are {weights}. Paper: [{title}](https://arxiv.org/abs/{paper}).",
        f"## Usage\n\n{usage(HERE)}",
        f"The sampler is {sampler} with {pipe.scheduler.num_inference_steps:,} network "
        f"evaluations: {options}.{SUBSTITUTES.get(family, '')}",
        f"## Licence\n\n{owned} The code of {origin.repository}, of which nothing is here, is "
        f"under {origin.code_licence}.",
        "## Conversion\n\n" + table(("", ""), rows),
    ]
    for title, key in (
        ("Said, for the weights do not tell", "options"),
        ("Assumed as published, for the weights do not tell and nobody said", "assumed"),
    ):
        if record[key]:
            sections.append(f"### {title}\n\n" + table(("", ""), list(record[key].items())))
    if record["command"]:
        sections.append(fenced(record["command"], "bash"))
    with whole_file(folder / CARD) as partial:
        partial.write_text(render_card(metadata, sections))
