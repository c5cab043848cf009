"""Imports point down the house, and there is no circle: the contracts in ``pyproject.toml``."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter says of the package in a folder."""
    return subprocess.run(
        [sys.executable, "-c", LINT], cwd=folder, capture_output=True, text=True, timeout=120
    )


def test_imports_point_down() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "code", "broken"),
    [
        ("scores/clocks.py", "def f():\n    from hdzoo import cards", "Imports point down"),
        ("files.py", "from hdzoo import __version__", "No room imports the package's __init__"),
        ("models/rungs.py", "from hdzoo.models import ncsn", "No circles within a room"),
        ("new_room.py", "", "Imports point down"),
    ],
)
def test_a_fault_is_found(file: str, code: str, broken: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "hdzoo", tmp_path / "hdzoo", ignore=shutil.ignore_patterns("*.pyc"))
    with (tmp_path / "hdzoo" / file).open("a") as module:
        module.write(f"\n{code}\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert f"{broken} BROKEN" in done.stdout
    assert done.stdout.count("BROKEN") == 1
