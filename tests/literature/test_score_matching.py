"""The reproduction on score matching: its integrals and variances against formulas."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from hdzoo.literature import score_matching
from hdzoo.literature.base import reproduce
from hdzoo.literature.score_matching_links import MODELS, Points, constants, objectives
from hdzoo.targets.named import gaussian, two_gaussians

MEAN, VARIANCE = 1.3, 0.8**2


@pytest.mark.parametrize("model", ["linear", "quadratic energy"])
def test_means_on_a_gaussian(model: str) -> None:
    """Of c - k x, by the first two moments of x, x_0 and z."""
    sigma, k, c = 0.5, 0.7, -0.4
    total, level = VARIANCE + sigma**2, 1 / sigma**2
    points = Points.of(gaussian(), sigma)
    weights = torch.tensor([k, c], dtype=torch.float64)
    found = objectives(partial(MODELS[model][0], weights), points)
    at_mean = c - k * MEAN
    square = k**2 * total + at_mean**2
    expected = {
        # The error is at_mean + (1 / V - k) (x - m).
        "explicit": (at_mean**2 + (1 / total - k) ** 2 * total) / 2,
        "implicit": square / 2 - k,
        "implicit with probes": square / 2 - k,
        "sliced": square / 2 - k,
        # It is at_mean - k (x_0 - m) + (1 / sigma - k sigma) z.
        "denoising": (at_mean**2 + k**2 * VARIANCE + (1 / sigma - k * sigma) ** 2) / 2,
        "sure": square / 2 - k + level / 2,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # The clean points end at 7 standard deviations: 1e-12 of them are beyond.
        assert found[name].item() == pytest.approx(value, abs=1e-10), name
    assert constants(points)["implicit"] == pytest.approx(-1 / total / 2, abs=1e-10)


def test_means_by_another_rule() -> None:
    """A network on a mixture, by Gauss and Hermite in each component."""
    sigma, weights = 0.5, torch.linspace(-1, 1, 24, dtype=torch.float64)
    score = partial(MODELS["network"][0], weights)
    nodes, shares = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(60))
    shares = shares / shares.sum()
    expected = {"explicit": 0.0, "denoising": 0.0}
    for mean, std in ((-1, 0.6), (1, 0.5)):
        noisy = mean + std * nodes[:, None] + sigma * nodes
        s = score(noisy.reshape(-1, 1)).view(60, 60)
        known = two_gaussians().score(noisy.reshape(-1, 1), sigma).view(60, 60)
        both = shares.outer(shares) / 2
        expected["explicit"] += (both * (s - known) ** 2).sum().item() / 2
        expected["denoising"] += (both * (s + nodes / sigma) ** 2).sum().item() / 2
    found = objectives(score, Points.of(two_gaussians(), sigma))
    for name, value in expected.items():
        # Both converge geometrically; this rule to 1e-8 with 60 nodes.
        assert found[name].item() == pytest.approx(value, abs=1e-7), name


def test_all_claims_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_matching, "SIMULATED", {2: 4000})
    monkeypatch.setattr(score_matching, "DIMENSIONS", (1, 128))
    reproduce("score-matching", tmp_path, "reproduce score-matching", lambda *_: None)
    written = json.loads((tmp_path / "score-matching.json").read_text())
    assert [claim["agrees"] for claim in written["claims"]] == [True] * 7
    assert (tmp_path / "score-matching.png").stat().st_size > 50_000
