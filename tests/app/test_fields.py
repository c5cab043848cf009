"""Fields of options: made from the signature, with the model's values, and read as typed."""

import inspect
import math

import pytest
import zoo

from hdzoo import HDZooError, get_sampler
from hdzoo.app.fields import NOT_ASKED, Field, allowed, changed, fields_of, typed
from hdzoo.samplers.options import readout, step_size

MODEL = {"sigma_max": 5.0, "num_levels": 20, "prediction_type": "sample"}


@pytest.mark.parametrize("name", zoo.SAMPLERS)
def test_there_is_a_field_for_each_option_that_the_model_leaves_open(name):
    fields = {field.name: field for field in fields_of(name, MODEL)}
    parameters = list(inspect.signature(get_sampler(name).__init__).parameters)[1:]
    assert set(fields) == set(parameters) - set(NOT_ASKED)
    for option in set(fields) & set(MODEL):
        assert fields[option].default == MODEL[option]
    # What stands in a field is what a sampler then gets.
    sampler = get_sampler(name).from_config(MODEL)
    for option, field in fields.items():
        assert field.default == sampler.config[option]
        assert changed([Field(option, object())], {option: field.text or "null"}) == {
            option: sampler.config[option]
        }


def test_a_choice_of_words_is_a_choice_and_all_else_says_what_it_may_be():
    fields = {field.name: field for field in fields_of("dpm-solver-pp-2m", {})}
    assert fields["solver_type"].words == ("midpoint", "heun")
    assert fields["start"].words == ("normal", "uniform", "gaussian")
    assert fields["sigma_max"].words == ()
    assert "from 1e-15 to 1e+15" in fields["sigma_max"].allowed


def test_a_rule_says_what_it_allows():
    assert allowed("step_size", step_size).startswith("a number above 0, a list")
    assert allowed("readout", readout).startswith("None, 'alpha'")
    assert allowed("anything", None) == ""


FIELDS = [
    Field("step_size", None),
    Field("churn", 0.5),
    Field("start", "normal", ("normal", "uniform")),
    Field("on", False, ("true", "false")),
]


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        ({}, {}),
        ({"churn": "", "step_size": None}, {}),
        ({"churn": "0.5", "start": "normal", "on": "false", "step_size": ""}, {}),
        ({"churn": " 0.25 "}, {"churn": 0.25}),
        ({"churn": 2}, {"churn": 2}),
        ({"churn": "null"}, {"churn": None}),
        ({"step_size": "[0.1, 0.2]"}, {"step_size": [0.1, 0.2]}),
        ({"step_size": "ncsnv2"}, {"step_size": "ncsnv2"}),
        ({"start": "uniform", "on": "true"}, {"start": "uniform", "on": True}),
    ],
)
def test_what_was_changed(texts, options):
    assert changed(FIELDS, texts) == options


def test_nan_reaches_the_sampler_which_refuses_it():
    options = changed(FIELDS, {"churn": "NaN"})
    assert math.isnan(options["churn"])
    with pytest.raises(HDZooError, match="churn is nan; it must be"):
        get_sampler("heun")(**options)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"chrun": "1"}, "there is no option 'chrun'"),
        ({"churn": "9" * 3000}, "churn has 3,000 characters"),
    ],
)
def test_what_is_no_option_is_refused(texts, message):
    with pytest.raises(HDZooError, match=message):
        changed(FIELDS, texts)


def test_an_option_without_a_default_has_to_be_given():
    with pytest.raises(HDZooError, match="rate is empty, and has no default"):
        changed([Field("rate", required=True)], {"rate": " "})


@pytest.mark.parametrize("value", [1, 0.1, [1, 2.5], True, None, "word", "1", "null", ""])
def test_a_value_is_typed_so_that_it_is_read_back(value):
    assert changed([Field("x", object())], {"x": typed(value)}).get("x", "") == value
