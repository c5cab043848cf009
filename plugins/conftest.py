"""Where all packages are tested together, fewer configurations are tried of each sampler.

A package's own run, from its folder, and `hdzoo verify` try 200.
"""

import pytest

from hdzoo.verification import closed_form


@pytest.fixture(autouse=True)
def few_configurations(monkeypatch):
    monkeypatch.setattr(closed_form, "CONFIGURATIONS", 15)
