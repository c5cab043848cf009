"""Files that some tests compare with and that are not in this repository; without them they skip.

Where they are is told by the environment: HDZOO_GOLDEN, the folder of what the authors' code gave,
and HDZOO_MNIST, that of the parquet files of ``ylecun/mnist``.
"""

import os
from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"


def golden(name: str) -> Path:
    """A file of the authors' outputs."""
    return _file("HDZOO_GOLDEN", _SHARED / "golden", name, "agreement with the authors' outputs")


def mnist(name: str) -> Path:
    """``train.parquet`` or ``test.parquet``."""
    return _file("HDZOO_MNIST", _SHARED / "data" / "mnist", name, "what is said of MNIST")


def _file(variable: str, folder: Path, name: str, what: str) -> Path:
    path = Path(os.environ.get(variable) or folder) / name
    if not path.is_file():
        pytest.skip(
            f"NOT CHECKED: {what}. There is no {path}; set {variable} to the folder that has it"
        )
    return path
