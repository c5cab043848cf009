"""What mkdocs calls while it builds the site: the pages and pictures that code makes."""

import re
from pathlib import Path
from typing import Any

from hdzoo_docs import api, blocks, commands, samplers, tutorials
from hdzoo_docs.notation import Notation
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

from hdzoo import plugins

ROOT = Path(__file__).parents[1]
# Pages of the repository that are pages of the site as well, in the place where they are.
MODELS, PACKAGES = "model_cards/*/README.md", "plugins/*/README.md"
IN_PACKAGES = "plugins/*/src/*/*/README.md"
OTHERS = ("CONTRIBUTING.md", "CHANGELOG.md", MODELS, PACKAGES, IN_PACKAGES)
OUTSIDE = re.compile(r"(?<=\]\()((?:\.\./)+)(?=(?:model_cards|plugins|CONTRIBUTING|CHANGELOG))")


@event_priority(100)
def on_config(config: Any) -> Any:
    config.markdown_extensions.append(Notation())
    made = {
        "Samplers": [{name: f"samplers/{name}.md"} for name in plugins.list_samplers()],
        "Models": [_other(path) for path in _found(MODELS, IN_PACKAGES)],
        "Packages": [_other(path) for path in _found(PACKAGES)],
        "Reference": [f"api/{name}.md" for name in api.pages()],
    }
    for entry in config.nav:
        for title, pages in entry.items():
            if title in made:
                entry[title] = [*pages, *made[title]]
    return config


def on_files(files: Files, config: Any) -> Files:
    def add(uri: str, content: str | bytes) -> None:
        files.append(File.generated(config, uri, content=content))

    def add_pictures(folder: str, pictures: list[Path]) -> None:
        for picture in pictures:
            uri = f"{folder}{picture.name}"
            if uri not in files.src_uris:
                files.append(File.generated(config, uri, abs_src_path=str(picture)))

    for file in files.documentation_pages():
        if file.generated_by is None:
            text, pictures = blocks.expand(file.content_string)
            file.content_string = OUTSIDE.sub(lambda up: up[1][3:], text)
            add_pictures("", pictures)
    for name, (text, pictures) in samplers.pages().items():
        add(f"samplers/{name}.md", text)
        add_pictures("samplers/", pictures)
    add("command-line.md", commands.page())
    for name, text in api.pages().items():
        add(f"api/{name}.md", text)
    for name, made in tutorials.pages().items():
        for ending, content in made.items():
            add(f"tutorials/{name}{ending}", content)
    for path in _found(*OTHERS):
        _add_other(path, add)
    return files


def _found(*patterns: str) -> list[Path]:
    return [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]


def _other(path: Path) -> dict[str, str]:
    return {path.parent.name: path.relative_to(ROOT).as_posix()}


def _add_other(path: Path, add: Any) -> None:
    """A page of the repository, and the pictures that it shows."""
    text = path.read_text()
    add(path.relative_to(ROOT).as_posix(), text)
    for link in re.findall(r"!\[[^\]]*\]\(([^):]+)\)", text):
        picture = (path.parent / link).resolve()
        add(picture.relative_to(ROOT).as_posix(), picture.read_bytes())
