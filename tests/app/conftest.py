"""A page's models: the tiny one, beside those that are bundled."""

import pytest


@pytest.fixture(scope="module")
def models(tiny_model):
    from hdzoo.app.models import Models

    return Models([str(tiny_model)])


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return str(tiny_model)
