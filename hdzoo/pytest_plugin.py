"""The option ``--hdzoo-sampler`` of pytest, and its tests (`hdzoo.verification.testing`).

Imported by every pytest where hdzoo is installed, so it imports no torch before it is needed.
"""

import tomllib
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from hdzoo import plugins
from hdzoo.errors import HDZooError
from hdzoo.verification import testing


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("hdzoo").addoption(
        "--hdzoo-sampler",
        action="append",
        metavar="NAME",
        help="check this registered sampler by `hdzoo verify`; may be repeated",
    )


def pytest_configure(config: pytest.Config) -> None:
    try:
        for name in config.getoption("--hdzoo-sampler") or ():
            plugins.provider("samplers", name)
    except HDZooError as error:
        raise pytest.UsageError(f"--hdzoo-sampler: {error}") from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.function is not testing.test_sampler:
        return
    from hdzoo.verification.verify import CHECKS

    cases = [(name, check) for name in _chosen(metafunc) for check in CHECKS]
    metafunc.parametrize(("name", "check"), cases, ids=[f"{name}-{check}" for name, check in cases])


def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Adds the tests where the option is given and no test file has them."""
    collected = any(getattr(item, "function", None) is testing.test_sampler for item in items)
    if config.getoption("--hdzoo-sampler") and not collected:
        module = pytest.Module.from_parent(session, path=Path(testing.__file__))
        items.extend(session.genitems(module))


def _chosen(metafunc: pytest.Metafunc) -> list[str]:
    """The samplers of the option; or else of the package whose tests these are, or if it has none
    all that come from other packages than hdzoo."""
    names = metafunc.config.getoption("--hdzoo-sampler")
    if names:
        return list(dict.fromkeys(names))
    sources = {
        name: canonicalize_name(plugins.provider("samplers", name).distribution)
        for name in plugins.list_samplers()
    }
    project = _project(metafunc.definition.path)
    own = [name for name, source in sources.items() if source == project]
    return own or [name for name, source in sources.items() if source != "hdzoo"]


def _project(path: Path) -> str | None:
    """The name in the nearest ``pyproject.toml`` above a file."""
    for folder in path.parents:
        if (folder / "pyproject.toml").is_file():
            project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
            return canonicalize_name(project.get("project", {}).get("name", ""))
    return None
