"""Packages in plugins/ use hdzoo's public names alone."""

import ast
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[1] / "plugins").glob("*/src/**/*.py"))


def private_imports(source: str) -> list[str]:
    """What a file imports of hdzoo by a name with an underscore in front."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        parts = [name.split(".") for name in names]
        found += [".".join(p) for p in parts if p[0] == "hdzoo" and any(q[0] == "_" for q in p)]
    return found


def test_what_is_found() -> None:
    source = "from hdzoo.plugins import _registry, names\nimport hdzoo._own, _other\n"
    assert private_imports(source) == ["hdzoo.plugins._registry", "hdzoo._own"]
    assert private_imports("def f():\n    from hdzoo.files import _name as name") == [
        "hdzoo.files._name"
    ]
    assert SOURCES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_packages(path: Path) -> None:
    assert private_imports(path.read_text("utf-8")) == []
