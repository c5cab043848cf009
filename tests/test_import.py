"""``import hdzoo`` is quick, loads no torch, and still offers every public name."""

import importlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

import hdzoo
import hdzoo.distances
import hdzoo.models
import hdzoo.targets
import hdzoo.verification

ROOT = Path(__file__).parents[1]


def run(code: str) -> str:
    """What `code` prints in a fresh interpreter that starts at the repository."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


PACKAGES = [hdzoo, hdzoo.models, hdzoo.targets, hdzoo.distances, hdzoo.verification]


@pytest.mark.parametrize("module", ["hdzoo", "hdzoo.models", "hdzoo.plugins"])
def test_import_is_quick(module: str) -> None:
    code = f"import time; t = time.process_time(); import {module}; print(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.2


@pytest.mark.parametrize(
    "code",
    [
        "import hdzoo.models, hdzoo.targets, hdzoo.distances, hdzoo.verification, hdzoo.version",
        "import hdzoo; dir(hdzoo), hdzoo.targets, hdzoo.__version__, hdzoo.list_samplers()",
        "import hdzoo.plugins as p; p.plugin_modules(); p.distribution_of('hdzoo')",
        "import hdzoo.plugins as p; assert p.plugins()[0].samplers and 'ncsn' in p.names('models')",
    ],
)
def test_no_heavy_import(code: str) -> None:
    heavy = "{'torch', 'diffusers', 'numpy', 'huggingface_hub'}"
    assert run(f"{code}; import sys; print({heavy} & set(sys.modules))") == "set()"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_public_names(package: ModuleType) -> None:
    assert dir(package) == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name == "__version__" or not name.startswith("_")
    with pytest.raises(AttributeError, match="Nothing"):
        package.Nothing  # noqa: B018


@pytest.mark.parametrize(
    ("package", "name"),
    [("verification", "verify"), ("verification", "bias"), ("distances", "moments")],
)
def test_a_function_that_is_called_as_its_file_is_the_function(package: str, name: str) -> None:
    # Importing a file sets its package's attribute of that name to the file.
    sys.modules.pop(f"hdzoo.{package}.{name}", None)
    file = importlib.import_module(f"hdzoo.{package}.{name}")
    assert isinstance(file, ModuleType)
    assert not isinstance(getattr(getattr(hdzoo, package), name), ModuleType)


def test_named_targets_are_reached_from_the_top() -> None:
    assert hdzoo.targets.named.two_gaussians().sample_shape == (1,)
    # A function of that name in `named`, a file of that name beside it.
    importlib.import_module("hdzoo.targets.laplace")
    assert hdzoo.targets.named.laplace().sample_shape == (1,)


def test_version_is_the_installed_one() -> None:
    assert hdzoo.__version__ == version("hdzoo")


def test_types_are_announced() -> None:
    assert (Path(hdzoo.__file__).parent / "py.typed").is_file()
