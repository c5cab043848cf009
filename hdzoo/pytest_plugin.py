"""The option ``--hdzoo-sampler`` of pytest, and its tests (`hdzoo.verification.testing`).

Imported by every pytest where hdzoo is installed, so it imports no torch before it is needed.
"""

from pathlib import Path

import pytest

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

    cases = [(name, check) for name in _chosen(metafunc.config) for check in CHECKS]
    metafunc.parametrize(("name", "check"), cases, ids=[f"{name}-{check}" for name, check in cases])


def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Adds the tests where the option is given and no test file has them."""
    collected = any(getattr(item, "function", None) is testing.test_sampler for item in items)
    if config.getoption("--hdzoo-sampler") and not collected:
        module = pytest.Module.from_parent(session, path=Path(testing.__file__))
        items.extend(session.genitems(module))


def _chosen(config: pytest.Config) -> list[str]:
    """The samplers of the option, or else all that come from other packages than hdzoo."""
    names = config.getoption("--hdzoo-sampler")
    if names:
        return list(dict.fromkeys(names))
    return [
        name
        for name in plugins.list_samplers()
        if plugins.provider("samplers", name).distribution != "hdzoo"
    ]
