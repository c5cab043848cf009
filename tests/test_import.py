"""``import hdzoo`` is quick, loads no torch, and still offers every public name."""

import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import hdzoo
import hdzoo.models

ROOT = Path(__file__).parents[1]


def run(code: str) -> str:
    """What `code` prints in a fresh interpreter that starts at the repository."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["hdzoo", "hdzoo.models", "hdzoo.plugins"])
def test_import_is_quick(module: str) -> None:
    code = f"import time; t = time.process_time(); import {module}; print(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.2


@pytest.mark.parametrize(
    "code",
    [
        "import hdzoo.models",
        "import hdzoo.plugins as p; p.plugin_modules(); p.distribution_of('hdzoo')",
        "import hdzoo.plugins as p; assert p.plugins()[0].samplers and 'ncsn' in p.names('models')",
    ],
)
def test_no_heavy_import(code: str) -> None:
    heavy = "{'torch', 'diffusers', 'numpy', 'huggingface_hub'}"
    assert run(f"{code}; import sys; print({heavy} & set(sys.modules))") == "set()"


@pytest.mark.parametrize("package", [hdzoo, hdzoo.models], ids=lambda package: package.__name__)
def test_public_names(package: ModuleType) -> None:
    assert set(package._MODULES) == set(package.__all__) - {"__version__"}
    assert set(package.__all__) <= set(dir(package))
    for name, module in package._MODULES.items():
        value = getattr(package, name)
        # diffusers writes a class's module into model_index.json.
        assert not isinstance(value, type) or value.__module__ == module
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        package.Nothing  # noqa: B018


def test_version_is_the_packaged_one() -> None:
    assert (
        hdzoo.__version__
        == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    )
