"""Where all packages are tested together, fewer configurations are tried of each sampler.

A package's own run, from its folder, and `hdzoo verify` try 200.
"""

import pytest


@pytest.fixture(autouse=True)
def few_configurations(monkeypatch):
    # Not before the first test: pytest-xdist's first process reads this file, and runs none.
    from hdzoo.verification import closed_form

    monkeypatch.setattr(closed_form, "CONFIGURATIONS", 15)
