"""Models of the page: those that are bundled, and those that whoever starts it gives."""

import pytest

from hdzoo import HDZooError
from hdzoo.app.models import DEFAULT_MODEL, Models
from hdzoo.plugins import names


def test_all_registered_models_are_offered_the_default_one_first():
    offered = Models().names
    assert offered[0] == DEFAULT_MODEL
    assert sorted(offered) == names("pipelines")


def test_a_model_that_is_given_comes_first_and_is_loaded_once(tiny):
    models = Models([tiny])
    assert models.names[0] == tiny
    assert models.pipeline(tiny) is models.pipeline(tiny)
    pipe = models.load(tiny, "heun", {"churn": 1.0})
    assert pipe.unet is models.pipeline(tiny).unet
    assert type(models.pipeline(tiny).scheduler).__name__ == "AnnealedLangevinSampler"


def test_a_model_that_is_not_there_is_heard_of_at_the_start(tmp_path):
    with pytest.raises(HDZooError, match="there is no model"):
        Models([str(tmp_path / "none")])


def test_a_broken_model_is_a_message(tmp_path):
    (tmp_path / "model_index.json").write_text("{")
    models = Models([str(tmp_path)])
    with pytest.raises(HDZooError):
        models.pipeline(str(tmp_path))


def test_any_folder_where_that_is_wanted_alone(tiny):
    with pytest.raises(HDZooError, match="is no model of this page"):
        Models().pipeline(tiny)
    assert Models(any_model=True).pipeline(tiny)
    with pytest.raises(HDZooError, match="no model"):
        Models(any_model=True).pipeline("/etc/passwd")
