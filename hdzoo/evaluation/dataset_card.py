"""The card of a generated set, and its way to the Hub."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData, HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from hdzoo.errors import HDZooError
from hdzoo.files import whole_file

CARD = "README.md"
USAGE = """\
from datasets import load_dataset

images = load_dataset(".", split="train")  # this folder; or the name of its repository on the Hub
images[0]["image"]
"""


def write_dataset_card(folder: Path, manifest: dict[str, Any]) -> None:
    """Writes ``README.md`` into the folder of a generated set.

    Args:
        folder: of the set.
        manifest: its protocol.
    """
    name, sampler = folder.resolve().name, manifest["sampler"]
    data = DatasetCardData(
        pretty_name=name,
        task_categories=["unconditional-image-generation"],
        tags=["hdzoo", "score-based", "synthetic", manifest["network"], sampler],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "data/train-*.parquet"}],
            }
        ],
    )
    rows = "\n".join(
        f"| {key} | {cell(value)} |"
        for key, value in manifest.items()
        if key not in ("command", "network_options")
    )
    sections = [
        f"# {name}",
        f"{manifest['num_images']:,} images drawn by {sampler} from the model "
        f"`{manifest['model']}`, with {manifest['num_inference_steps']} network evaluations each.",
        f"## Usage\n\n```python\n{USAGE}```",
        "Columns: `image`, `index` (image i is a function of the seed and i), `seed`, and "
        "`sampler`, the class and its options.",
        f"## Protocol\n\nIn full in `manifest.json`.\n\n| | |\n| --- | --- |\n{rows}",
    ]
    if manifest["command"]:
        sections.append(f"```bash\n{manifest['command']}\n```")
    sections.append(
        "## Checksums\n\n```bash\ncat checksums/*.sha256 | sha256sum --check --quiet\n```"
    )
    card = DatasetCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")
    with whole_file(folder / CARD) as partial:
        card.save(partial)


def cell(value: Any) -> str:
    """A value in a table of Markdown."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`"


def check_repo_id(repo_id: str) -> None:
    """Refuses what cannot be the name of a repository.

    Args:
        repo_id: ``"namespace/name"``.

    Raises:
        HDZooError: it is no such name.
    """
    try:
        validate_repo_id(repo_id)
        if "/" not in repo_id:
            raise HFValidationError(f"{repo_id!r} has no namespace")
    except HFValidationError as error:
        raise HDZooError(
            f"{repo_id!r} is no name for a repository on the Hub: {error}; give NAMESPACE/NAME"
        ) from error


def push_to_hub(folder: Path, repo_id: str) -> str:
    """Sends the folder of a generated set to the Hub, as a dataset repository.

    Args:
        folder: of the set.
        repo_id: ``"namespace/name"``; made where it is missing.

    Returns:
        The address of the repository.

    Raises:
        HDZooError: the name is wrong, or the Hub does not take it.
    """
    check_repo_id(repo_id)
    api = HfApi()
    try:
        url = api.create_repo(repo_id, repo_type="dataset", exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            repo_type="dataset",
            folder_path=folder,
            commit_message="Upload images with hdzoo",
            ignore_patterns=[".lock", "**/.partial-*", ".partial-*"],
        )
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise HDZooError(
            f"the Hub does not take {repo_id!r}: {reason}. The images are in {folder}; log in with "
            "`hf auth login` if need be, and give the same command again"
        ) from error
    return str(url)
