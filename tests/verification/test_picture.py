"""The picture of bias against cost."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from hdzoo.verification.picture import bias_figure, cost_curves
from hdzoo.verification.verify import Verdict


def verdict(sampler, check, **numbers):
    return Verdict(sampler, check, "pass", "", numbers, 0.0)


VERDICTS = [
    verdict("langevin", "nfe"),
    verdict(
        "langevin",
        "bias",
        wasserstein2={"num_inference_steps": {100: 0.5, 10: 2.0}, "step_size": {1e-3: 7.0}},
    ),
    verdict("exact", "bias", wasserstein2={"num_inference_steps": {10: 0.25, 20: 0.0}}),
    verdict("odd", "bias", wasserstein2={"num_inference_steps": {}}),
    verdict("none", "bias"),
]


def test_curves_are_those_against_cost():
    assert cost_curves(VERDICTS) == {
        "langevin": {100: 0.5, 10: 2.0},
        "exact": {10: 0.25, 20: 0.0},
    }


def test_each_sampler_is_a_line_by_cost():
    axes = bias_figure(cost_curves(VERDICTS)).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    # Of no distance at all a logarithmic axis has no place.
    assert lines == {"exact": [[10, 0.25]], "langevin": [[10, 2.0], [100, 0.5]]}
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "20", "100"]
    colours = {line.get_color() for line in axes.lines}
    assert len(colours) == 2


@pytest.mark.parametrize("verdicts", [VERDICTS, VERDICTS[:1]], ids=["curves", "no curve"])
def test_the_command_writes_it(run, monkeypatch, tmp_path, verdicts):
    monkeypatch.chdir(tmp_path)
    # The package has a function of the module's name.
    monkeypatch.setattr(sys.modules[Verdict.__module__], "verify", lambda *_: verdicts)
    code, _, err = run("verify", "langevin", "--json", "--picture", "curves.png")
    assert code == 0
    assert "picture: curves.png" in err
    with Image.open(Path("curves.png")) as picture:
        assert picture.width > picture.height > 300
