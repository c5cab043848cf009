"""Tutorials: scripts of cells, run, as pages and as notebooks.

A script is Python in which ``# %%`` begins a cell of code and ``# %% [markdown]`` one of text. What
a cell prints, and the value of the expression that it ends with, are shown below it.
"""

import ast
import base64
import contextlib
import hashlib
import io
import json
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from . import pictures

FOLDER = Path(__file__).parents[1] / "tutorials"
CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)


@dataclass
class Cell:
    """A part of a tutorial.

    Attributes:
        kind: ``"markdown"`` or ``"code"``.
        source: its text.
        printed: what it printed when it was run.
        picture: what it ended with, where that is a picture: a PNG.
    """

    kind: str
    source: str
    printed: str = ""
    picture: bytes = field(default=b"", repr=False)


def scripts() -> list[Path]:
    """All tutorials."""
    return sorted(FOLDER.glob("*.py"))


def cells(path: Path) -> list[Cell]:
    """The cells of a script, not run."""
    _, *found = CELL.split(path.read_text())
    made = []
    for head, body in zip(found[::2], found[1::2], strict=True):
        if head.strip() == "[markdown]":
            text = re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE)
            made.append(Cell("markdown", text))
        else:
            made.append(Cell("code", body.strip()))
    return made


def run(path: Path) -> list[Cell]:
    """Runs a script, cell by cell, in an empty folder that is removed."""
    names: dict[str, Any] = {"__name__": "__main__"}
    found, before = cells(path), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for cell in found:
                if cell.kind == "code":
                    _run(cell, names, path.name)
        finally:
            os.chdir(before)
    return found


def _run(cell: Cell, names: dict[str, Any], name: str) -> None:
    body = ast.parse(cell.source, name)
    last = body.body.pop() if body.body and isinstance(body.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(body, name, "exec"), names)
        value = last and eval(compile(ast.Expression(last.value), name, "eval"), names)
        if isinstance(value, Image.Image):
            file = io.BytesIO()
            value.save(file, "PNG")
            cell.picture = file.getvalue()
        elif value is not None:
            printed.write(f"{value}\n")
    cell.printed = printed.getvalue()


def pages() -> dict[str, dict[str, str | bytes]]:
    """For each tutorial its files: by ending of the name, the page, the notebook, the pictures."""
    return {path.stem: _files(path.stem, _kept(path)) for path in scripts()}


def _kept(path: Path) -> list[Cell]:
    """The cells as they were when the script was run last, which is now if anything has changed."""
    depends = [hashlib.sha256(path.read_bytes()).hexdigest(), *map(pictures.room, pictures.ROOMS)]

    def make(file: Path) -> None:
        made = [
            vars(cell) | {"picture": base64.b64encode(cell.picture).decode()} for cell in run(path)
        ]
        file.write_text(json.dumps(made))

    try:
        kept = pictures.kept(f"tutorial-{path.stem}", ".json", depends, make)
    except pictures.Left:
        return cells(path)
    made = [Cell(**cell) for cell in json.loads(kept.read_text())]
    for cell in made:
        cell.picture = base64.b64decode(cell.picture)
    return made


def _files(name: str, made: list[Cell]) -> dict[str, str | bytes]:
    parts: list[str] = []
    files: dict[str, str | bytes] = {}
    for number, cell in enumerate(made):
        if cell.kind == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        if cell.printed:
            parts.append(f"```text\n{cell.printed.rstrip()}\n```")
        if cell.picture:
            files[f"-{number}.png"] = cell.picture
            parts.append(f"![]({name}-{number}.png)")
    parts.insert(1, f"[This page as a notebook]({name}.ipynb)")
    return files | {".md": "\n\n".join(parts) + "\n", ".ipynb": notebook(made)}


def notebook(made: list[Cell]) -> str:
    """The cells in Jupyter's format, version 4.5."""
    return json.dumps(
        {
            "cells": [_jupyter(number, cell) for number, cell in enumerate(made)],
            "metadata": {
                "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        },
        indent=1,
    )


def _jupyter(number: int, cell: Cell) -> dict[str, Any]:
    source = {"id": f"cell-{number}", "metadata": {}, "source": cell.source}
    if cell.kind == "markdown":
        return {"cell_type": "markdown", **source}
    outputs: list[dict[str, Any]] = []
    if cell.printed:
        outputs.append({"output_type": "stream", "name": "stdout", "text": cell.printed})
    if cell.picture:
        picture = {"image/png": base64.b64encode(cell.picture).decode()}
        outputs.append({"output_type": "display_data", "metadata": {}, "data": picture})
    return {"cell_type": "code", "execution_count": None, "outputs": outputs, **source}
