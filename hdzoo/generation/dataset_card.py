"""The card of a generated set, and its way to the Hub."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from hdzoo.cards import CARD, address_snippets
from hdzoo.errors import HDZooError
from hdzoo.files import whole_file
from hdzoo.hub.downloads import names_in
from hdzoo.hub.uploads import Upload, check_inside
from hdzoo.markdown import code, fenced, prose, table
from hdzoo.text import counted

USAGE = """\
from datasets import load_dataset

images = load_dataset(".", split="train")
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
    rows = [
        (key, value if isinstance(value, str) else json.dumps(value))
        for key, value in manifest.items()
        if key not in ("command", "network_options")
    ]
    sections = [
        f"# {prose(name)}",
        f"{counted(manifest['num_images'], 'image')} drawn by {prose(sampler)} from the model "
        f"{code(manifest['model'])}, with "
        f"{counted(manifest['num_inference_steps'], 'network evaluation')} each.",
        f"## Usage\n\n{fenced(USAGE, 'python')}",
        "Columns: `image`, `index` (image i is a function of the seed and i), `seed`, and "
        "`sampler`, the class and its options.",
        f"## Protocol\n\nIn full in `manifest.json`.\n\n{table(('', ''), rows)}",
    ]
    if manifest["command"]:
        sections.append(fenced(manifest["command"], "bash"))
    check = fenced("cat checksums/*.sha256 | sha256sum --check --quiet", "bash")
    sections.append(f"## Checksums\n\n{check}")
    card = DatasetCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n")
    with whole_file(folder / CARD) as partial:
        card.save(partial)


def push_to_hub(folder: Path, repo_id: str) -> str:
    """Sends the folder of a generated set to the Hub, as a dataset repository.

    Args:
        folder: of the set; hidden files in it stay here.
        repo_id: ``"namespace/name"``; made where it is missing.

    Returns:
        The address of the commit.

    Raises:
        HDZooError: the name is wrong, or the Hub does not take it.
    """
    upload = Upload(repo_id, repo_type="dataset", commit_message="Upload images with hdzoo")
    names = [name for name in names_in(folder) if "/." not in f"/{name}"]
    for name in names:
        check_inside(folder / name, folder)
    card = address_snippets((folder / CARD).read_text(), ["."], repo_id)
    content: dict[str, Path | bytes] = {name: folder / name for name in names}
    try:
        upload.prepare()
        return str(upload.send(content | {CARD: card.encode()}).commit_url)
    except HDZooError as error:
        raise HDZooError(f"{error}. The images are in {folder}") from error
