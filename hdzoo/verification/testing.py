"""The checks of `hdzoo verify` as pytest tests, for the author of a sampler.

Installing hdzoo installs its pytest plugin. With

.. code-block:: bash

    pytest --hdzoo-sampler my-sampler

every check of the sampler is a test. To have them among a package's own tests, without the option,
write a test file of one line:

.. code-block:: python

    from hdzoo.verification.testing import test_sampler

Then ``--hdzoo-sampler`` chooses the samplers. Without it they are those of the package that the
file belongs to, by the nearest ``pyproject.toml``, or where it brings none, all of plugins.

A check that has nothing to say on a sampler is skipped, with the reason. So the tests of a sampler
whose law there is nothing to compare with pass, and tell by what they skip that `hdzoo verify`
calls it "contract only".
"""

import pytest


def test_sampler(name: str, check: str) -> None:
    """One check of one sampler; its verdict is the one that `hdzoo verify` prints."""
    from hdzoo.verification.verify import run_check

    verdict = run_check(name, check)
    print(verdict.message)
    if verdict.outcome == "fail":
        pytest.fail(verdict.message, pytrace=False)
    if verdict.outcome == "not applicable":
        pytest.skip(verdict.message)
