"""What a report of a fault says of the machine."""

import json
import platform
import re
from importlib.metadata import requires, version
from pathlib import Path

import pytest

from hdzoo import environment, plugins
from hdzoo.environment import PACKAGES, describe_environment, versions
from hdzoo.version import __version__

ROOT = Path(__file__).parents[1]


def test_versions_are_those_of_the_packages() -> None:
    assert versions("torch", "numpy") == {
        "hdzoo": version("hdzoo"),
        "torch": version("torch"),
        "numpy": version("numpy"),
    }


def test_the_report_names_python_packages_and_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = plugins.PluginInfo("mine", "hdzoo-mine", "1.2", "mine", error="ImportError: no mine")
    monkeypatch.setattr(environment.plugins, "plugins", lambda: [broken])
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "no-such-package"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    found = describe_environment()
    assert found["python"] == platform.python_version()
    assert found["torch"] == version("torch")
    assert found["no-such-package"] == "not installed"
    assert found["plugins"] == {"mine (hdzoo-mine 1.2)": "ImportError: no mine"}
    assert "hf_secret" not in json.dumps(found)


def test_it_names_every_package_that_is_required() -> None:
    # Those without which nothing starts are seen at once.
    quiet = {"filelock", "lazy-loader", "packaging", "pluggy", "psutil", "pyyaml", "rich"}
    needed = {re.split(r"[\s<>=!;\[]", one)[0] for one in requires("hdzoo") if "extra" not in one}
    assert needed - quiet <= set(PACKAGES)


def test_the_citation_has_the_version() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_command(run) -> None:
    code, out, _ = run("info", "--env", "--json")
    assert code == 0
    assert json.loads(out)["hdzoo"] == __version__
    code, _, err = run("info", "energy-mnist", "--env")
    assert code == 2
    assert "'energy-mnist'" in err
