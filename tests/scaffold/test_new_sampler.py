"""A package written by `hdzoo new-sampler` works as it is."""

import os
import subprocess
import sys
from pathlib import Path

import processes
import pytest

from hdzoo import HDZooError
from hdzoo.scaffold.new_sampler import KINDS, new_sampler

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=KINDS)
def package(request, tmp_path_factory):
    """A package of each kind, and an environment in which it is as if installed."""
    folder = new_sampler(f"tried-{request.param}", tmp_path_factory.mktemp("new"), request.param)
    module = f"hdzoo_tried_{request.param}"
    # What pip would write beside the module.
    info = folder / "src" / f"{module}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {folder.name}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[hdzoo]\ntried-{request.param} = {module}\n")
    path = os.pathsep.join([str(folder / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return folder, os.environ | {"PYTHONPATH": path, "HDZOO_STRICT_PLUGINS": "1"}


def test_it_passes_its_own_tests(package):
    folder, environment = package
    # Of the 200 configurations that are tried, for the time.
    few = "from hdzoo.verification import closed_form\n\nclosed_form.CONFIGURATIONS = 15\n"
    (folder / "tests" / "conftest.py").write_text(few)
    done = processes.run(
        *("-m", "pytest", folder, "-q", "-p", "no:cacheprovider"),
        *("-c", folder / "pyproject.toml", "--hdzoo-sampler", folder.name[6:]),
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # It claims no law that it leaves as it is.
    skipped = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert all("leaves_invariant" in line for line in skipped)


def test_its_files_are_in_order(package):
    folder, _ = package
    options = (
        "--isolated",
        "--no-cache",
        "--line-length=100",
        "--select=E,F,W,I,UP,B",
        "--target-version=py311",
    )
    # From its own folder, where hdzoo is somebody else's package.
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *options, "."],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    for path in folder.rglob("*"):
        if path.is_file() and "dist-info" not in str(path):
            assert "$" not in path.read_text().replace("${{ matrix", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("My-Sampler",), "'My-Sampler' is no name"),
        (("",), "'' is no name"),
        (("../up",), "'../up' is no name"),
        (("2m",), "'2m' is no name"),
        (("class",), "'class' is no name"),
        (("langevin",), "'langevin' is brought by plugin 'builtin'"),
        (("mine", ".", "chain"), "unknown kind 'chain'; allowed are move, update"),
    ],
)
def test_refusals(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HDZooError, match=message):
        new_sampler(*arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    new_sampler("mine", tmp_path)
    (tmp_path / "hdzoo-mine" / "README.md").write_text("changed")
    with pytest.raises(HDZooError, match="is there already"):
        new_sampler("mine", tmp_path)
    assert (tmp_path / "hdzoo-mine" / "README.md").read_text() == "changed"
