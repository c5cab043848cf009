"""The results of a model in its card's metadata, where the Hub reads them."""

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index
from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

from hdzoo.cards import CARD, TASK
from hdzoo.catalog import weights_hash
from hdzoo.errors import HDZooError
from hdzoo.files import check_file, named_path, whole_file
from hdzoo.metrics.report import Report

HEADER = re.compile(r"\A---\n(.*?\n)---[ \t]*(?=\n|\Z)", re.DOTALL)
# A key at the left edge, and all lines up to the next one.
MODEL_INDEX = re.compile(r"^model-index:.*\n(?:[ \t#-].*\n|\n)*", re.MULTILINE)

# What makes two results the same number found again; the command and spreads may differ.
IDENTITY = ("sampler", "sampler_options", "num_inference_steps", "num_images", "weights_sha256")


def write_results(folder: str | Path, report: Report) -> Path:
    """Writes the results of a generated set into the card of the model that drew it.

    A result that the card has already, of the same metric, data and sampler at the same cost, gives
    way to the new one. The rest of the card stays as it is, byte for byte.

    Args:
        folder: of the model, with its weights and ``README.md``.
        report: on images of this model.

    Returns:
        The card.

    Raises:
        HDZooError: there is no card, it is damaged, or another model drew the images.
    """
    folder = named_path(folder, "folder")
    path = folder / CARD
    check_drawn_by(folder, report.images["source"], report.images["manifest"])
    content = path.read_bytes().decode()
    try:
        card = ModelCard(content)
    except Exception as error:
        raise HDZooError(f"the metadata of {path} cannot be read: {error}; mend them") from error
    header = HEADER.match(content)
    if header is None:
        raise HDZooError(f"{path} does not begin with metadata between two lines of '---'")
    new = results_of(report)
    known = {identity(result) for result in new}
    data: Any = card.data
    kept = [old for old in data.eval_results or [] if identity(old) not in known]
    name = data.model_name or folder.resolve().name
    index = eval_results_to_model_index(name, kept + new)
    block = yaml_dump({"model-index": index}, sort_keys=False)
    rest, found = header[1], MODEL_INDEX.search(header[1])
    begin, end = found.span() if found else (len(rest), len(rest))
    metadata = rest[:begin] + block + rest[end:]
    with whole_file(path) as partial:
        changed = f"---\n{metadata}{content[header.end(1) :]}"
        # The Hub's own reader has the last word on what is written.
        ModelCard(changed)
        partial.write_bytes(changed.encode())
    return path


def check_drawn_by(folder: Path, source: str, manifest: dict[str, Any] | None) -> None:
    """Refuses a folder without a card that can be written, and results of another model's images.

    Args:
        folder: of the model.
        source: of the images.
        manifest: of them.
    """
    path = folder / CARD
    if not path.is_file():
        raise HDZooError(f"there is no card {str(path)!r}; give the folder of a model with a card")
    check_file(path)
    if manifest is None:
        raise HDZooError(
            f"{source} has no manifest that says which model drew it; results go into a card from "
            "sets of `hdzoo generate` alone"
        )
    digest = weights_hash(folder)
    if manifest["weights_sha256"] != digest:
        raise HDZooError(
            f"the images were drawn by a model whose weights have the SHA-256 "
            f"{manifest['weights_sha256']}, and those of {folder} have {digest}; give the folder "
            "of the model that drew them"
        )


def results_of(report: Report) -> list[EvalResult]:
    """The report as the Hub describes results."""
    manifest, reference = report.images["manifest"], report.reference
    # The Hub's tools drop what is None on writing.
    options = {
        key: value for key, value in manifest["sampler_options"].items() if value is not None
    }
    return [
        EvalResult(
            task_type=TASK,
            dataset_type=reference["dataset"],
            dataset_name=reference["dataset"],
            dataset_split=reference["split"],
            metric_type=result.name.partition(" (")[0].lower(),
            metric_name=result.name,
            metric_value=significant(result.value),
            metric_args={
                "sampler": manifest["sampler"],
                "sampler_options": options,
                "num_inference_steps": manifest["num_inference_steps"],
                "seed": manifest["seed"],
                "num_images": result.num_images,
                "num_reference": result.num_reference,
                "spread": significant(result.spread),
                "spread_of": result.spread_of,
                "equal_size": {
                    key: significant(value) for key, value in vars(result.equal_size).items()
                },
                "features": report.extractor["name"],
                "weights_sha256": report.extractor["weights_sha256"],
                "metrics_seed": report.seed,
                "versions": report.versions,
                "command": report.command,
            },
        )
        for result in report.results
    ]


def significant(number: float) -> float:
    """A number to six digits, whole ones as they are."""
    return number if isinstance(number, int) else float(f"{number:.6g}")


def identity(result: EvalResult) -> str:
    """What two results have in common if they are the same number found again."""
    args: dict[str, Any] = result.metric_args or {}
    own = {key: args.get(key) for key in IDENTITY}
    return json.dumps([result.unique_identifier, result.metric_name, own], sort_keys=True)
