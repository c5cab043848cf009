"""A new sampler, as a package that passes its own tests and `hdzoo verify` as it is written."""

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template

from hdzoo import plugins
from hdzoo.errors import HDZooError
from hdzoo.files import check_folder
from hdzoo.version import __version__

# From what moves the state to the template of the sampler.
KINDS = {"move": "sampler_move.py", "update": "sampler_update.py"}
FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "gitignore": ".gitignore",
    "workflow.yml": ".github/workflows/test.yml",
    "init.py": "src/${module}/__init__.py",
    "test_kit.py": "tests/test_kit.py",
}
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def new_sampler(name: str, parent: str | Path = ".", kind: str = "move") -> Path:
    """Writes the package ``hdzoo-NAME``.

    It has one sampler, which works: a chain of moves that one may change, or an ``update`` with
    memory; its declared law; the one line that brings every check of `hdzoo verify` as tests; and
    a workflow that runs them.

    Args:
        name: the sampler's public name: lower case, digits, dashes, a letter first.
        parent: the folder to write the package in.
        kind: one of `KINDS`.

    Returns:
        The package's folder.

    Raises:
        HDZooError: the name is none or taken, the kind is unknown, or the folder is there.
    """
    if kind not in KINDS:
        raise HDZooError(f"unknown kind {kind!r}; allowed are {', '.join(KINDS)}")
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise HDZooError(
            f"{name!r} is no name for a sampler; take lower-case letters, digits and dashes, a "
            "letter first, such as 'my-sampler'"
        )
    if name in plugins.names("samplers"):
        raise HDZooError(
            f"{name!r} is brought by {plugins.provider('samplers', name)} already; choose another "
            "name"
        )
    folder = Path(parent) / f"hdzoo-{name}"
    if folder.exists() or folder.is_symlink():
        raise HDZooError(f"{folder} is there already; choose another name or folder")
    check_folder(folder)
    words = {
        "name": name,
        "module": f"hdzoo_{name.replace('-', '_')}",
        "class_name": "".join(word.capitalize() for word in name.split("-")) + "Sampler",
        "version": __version__,
    }
    templates = files("hdzoo.scaffold") / "template"
    targets = FILES | {KINDS[kind]: "src/${module}/sampler.py"}
    for template, target in targets.items():
        path = folder / Template(target).substitute(words)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (templates / f"{template}.txt").read_text(encoding="utf-8")
        path.write_text(Template(text).substitute(words), encoding="utf-8")
    return folder
