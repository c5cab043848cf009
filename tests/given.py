"""Files that tests compare with: what the authors' code gave, and handwritten digits.

What is beside this file is enough for every test. HDZOO_GOLDEN may name a folder with more outputs
of the authors' code, and HDZOO_MNIST one with the parquet files of ``ylecun/mnist``: then those are
taken, and more is compared.
"""

import os
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def golden(name: str) -> Path:
    """A file of the authors' outputs; see ``golden/README.md``."""
    path = _golden(name)
    if not path.is_file():
        pytest.skip(
            f"NOT CHECKED: agreement with the authors' outputs. There is no {path}; set "
            "HDZOO_GOLDEN to the folder that has it"
        )
    return path


def has_golden(name: str) -> bool:
    """Whether there is such a file, for tests of which there are as many as files."""
    return _golden(name).is_file()


def digits() -> Path:
    """200 of MNIST's test images: 10 in a row from every 500."""
    return _HERE / "mnist" / "sample.parquet"


def digit_numbers() -> list[int]:
    """Which of the 10,000 test images those of `digits` are."""
    return [begin + i for begin in range(0, 10_000, 500) for i in range(10)]


def all_digits() -> Path | None:
    """All test images of MNIST, if they are at hand."""
    folder = os.environ.get("HDZOO_MNIST")
    return Path(folder) / "test.parquet" if folder else None


def _golden(name: str) -> Path:
    folder = os.environ.get("HDZOO_GOLDEN")
    more = Path(folder) / name if folder else None
    return more if more is not None and more.is_file() else _HERE / "golden" / name
