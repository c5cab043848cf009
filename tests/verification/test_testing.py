"""hdzoo as a pytest plugin, in pytest runs of their own."""

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import processes
import pytest

from hdzoo import plugins
from hdzoo.pytest_plugin import pytest_generate_tests
from hdzoo.verification import testing


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return processes.run(
        *("-m", "pytest", "-p", "no:cacheprovider", "-rA", "-q", *arguments), cwd=folder
    )


ONE_LINE = "from hdzoo.verification.testing import test_sampler\n"
# Of the 200 configurations that are tried, for the time.
FEW = "from hdzoo.verification import closed_form\nclosed_form.CONFIGURATIONS = 15\n"


def test_the_option_gives_the_whole_kit(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(FEW)
    done = run_pytest(tmp_path, "--hdzoo-sampler", "langevin")
    assert done.returncode == 0, done.stdout + done.stderr
    for check in ("nfe", "generators", "exact-law", "bias", "monte-carlo"):
        assert f"test_sampler[langevin-{check}]" in done.stdout
    assert "18 passed, 1 skipped" in done.stdout
    assert "no law is declared that it leaves as it is" in done.stdout
    # What was measured is in the report.
    assert re.search(r"15 configurations in .*, largest relative deviation", done.stdout)


def test_one_line_among_other_tests(tmp_path: Path) -> None:
    """With the option the kit is collected once, where the line is."""
    (tmp_path / "test_kit.py").write_text(ONE_LINE)
    done = run_pytest(tmp_path, "--hdzoo-sampler", "langevin", "-k", "nfe")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED test_kit.py::test_sampler[langevin-nfe]" in done.stdout
    assert "1 passed, 18 deselected" in done.stdout


def test_without_the_option_it_is_the_samplers_of_plugins(tmp_path: Path) -> None:
    (tmp_path / "test_kit.py").write_text(ONE_LINE)
    done = run_pytest(tmp_path, "--collect-only")
    assert "test_sampler[example-ddim-exact-law]" in done.stdout
    assert "test_sampler[langevin-" not in done.stdout


@pytest.mark.parametrize(
    ("project", "chosen"),
    [("hdzoo-a-one", "a"), ("HDZOO_B", "b"), ("hdzoo", "c"), ("other", "ab"), (None, "ab")],
)
def test_a_package_checks_its_own_samplers(
    project: str | None, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {"a": "hdzoo-A_one", "b": "hdzoo-b", "c": "hdzoo"}
    monkeypatch.setattr(plugins, "list_samplers", lambda: list(sources))
    monkeypatch.setattr(
        plugins, "provider", lambda _, name: SimpleNamespace(distribution=sources[name])
    )
    if project:
        (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "{project}"\n')
    definition = SimpleNamespace(path=tmp_path / "tests" / "test_kit.py")
    cases: list[tuple[str, str]] = []
    pytest_generate_tests(
        SimpleNamespace(
            function=testing.test_sampler,
            definition=definition,
            config=SimpleNamespace(getoption=lambda _: None),
            parametrize=lambda names, values, ids: cases.extend(values),
        )  # type: ignore[arg-type]
    )
    assert "".join(dict.fromkeys(name for name, _ in cases)) == chosen


def test_other_tests_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text("def test_other(): pass\n")
    assert "1 passed" in run_pytest(tmp_path).stdout


def test_unknown_sampler(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "--hdzoo-sampler", "langvin")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--hdzoo-sampler: unknown sampler 'langvin'; did you mean 'langevin'" in done.stderr


BROKEN = """
import pytest
from hdzoo import LangevinSampler, plugins
from hdzoo.verification.testing import test_sampler

class Broken(LangevinSampler):
    def plan(self, sigmas, counts):
        return [m._replace(noise=2 * m.noise) for m in super().plan(sigmas, counts)]

@pytest.fixture(autouse=True)
def broken(monkeypatch):
    monkeypatch.setattr(plugins, "get_sampler", lambda name: Broken)
"""


def test_a_broken_sampler_fails(tmp_path: Path) -> None:
    (tmp_path / "test_kit.py").write_text(BROKEN)
    done = run_pytest(tmp_path, "--hdzoo-sampler", "langevin", "-k", "exact-law or nfe")
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert "the law is not that of the declared closed form" in done.stdout
