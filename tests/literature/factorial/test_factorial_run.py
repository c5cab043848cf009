"""The run: distances of digests, what is kept of it, and the files that it writes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hdzoo.distances.wasserstein import gaussian_wasserstein2
from hdzoo.errors import HDZooError
from hdzoo.literature.base import reproduce
from hdzoo.literature.factorial import findings, run, targets
from hdzoo.literature.factorial.cells import ENDS, Chain, Ladder
from hdzoo.literature.factorial.intervals import without_each
from hdzoo.literature.factorial.rules import MNIST, RULES
from hdzoo.literature.factorial.targets import Digest, Digits, Network, Spectrum, expected_loss
from hdzoo.metrics.comparison import layer_of, statistic_of
from hdzoo.targets import named
from hdzoo.targets.mixture import GaussianMixtureScore

CHAIN = Chain("half", "averaged", 1.1)


def test_loss_of_an_exact_score() -> None:
    """c = s^2 / (s^2 + sigma^2) on a Gaussian; 4,000 points of 16 dimensions are good to .6 %."""
    target = GaussianMixtureScore.from_components(torch.zeros(16), 0.5)
    for sigma in (0.1, 2.0):
        expected = 0.5 / (0.5 + sigma**2)
        assert expected_loss(target, sigma) == pytest.approx(expected, rel=0.025)


def test_spectrum_counts_every_direction() -> None:
    spectrum = Spectrum(20, 0.5)
    assert spectrum.counts.sum() == 3072
    assert spectrum.counts[spectrum.variances == 0] == 1536
    assert spectrum.counts @ spectrum.variances / 3072 == pytest.approx(0.25**2)
    mean_loss = np.mean(
        [v / (v + 0.01**2) for v in named.spectrum_target(singular_fraction=0.5).variances[0]]
    )
    assert spectrum.ladder.held_out_loss["loss"][-1] == pytest.approx(mean_loss)


def test_digits_are_measured_over_seeds_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "LOSS_POINTS", 100)
    digits = Digits(30, 20)
    points = [digits.target.sample(30, torch.Generator().manual_seed(s)).double() for s in (0, 1)]
    found = digits.measure([digits.sums(one) for one in points])
    flat = torch.cat(points).flatten(1).numpy()
    distance = gaussian_wasserstein2(
        flat.mean(0), np.cov(flat.T), digits.target.mean.numpy(), digits.target.covariance.numpy()
    )
    assert found["Frechet"] == pytest.approx(distance**2)
    assert found["noise left"] < 1e-9
    # Noise of the last level has its own variance where the data have none.
    noisy = [one + 0.02 * torch.randn(one.shape, dtype=one.dtype) for one in points]
    left = digits.measure([digits.sums(one) for one in noisy])["noise left"]
    # Of at least 60 numbers: standard error sqrt(2 / 60).
    assert left == pytest.approx(1, abs=0.8)
    assert found["mode TV"] < 0.5
    # In two batches, of which the second is smaller.
    monkeypatch.setattr(targets, "BATCH", 20)
    drawn = digits.digests(CHAIN, 0)
    assert set(drawn) == set(ENDS)
    assert all(one["count"] == 30 for one in drawn.values())


def test_network_is_measured_as_evaluate_does() -> None:
    network = Network("ncsn-mnist", MNIST, 3, 8, (5.0, 0.1, 2))
    seeds = [network.digests(CHAIN, seed) for seed in (0, 1)]
    assert set(seeds[0]) == set(ENDS)
    assert seeds[0]["kept", 1.0]["features"].shape == (3, 128)
    assert not np.array_equal(*(one["kept", 1.0]["features"] for one in seeds))
    # As if both seeds had drawn some of the data.
    layers, extractor = network.reference.layers, network.extractor
    parts = [{name: values[i : i + 150] for name, values in layers.items()} for i in (0, 150)]
    digests: list[Digest] = [
        {
            "features": part[extractor.layers["fid"]].numpy(),
            "classes": part[extractor.layers["isc"]].argmax(1).numpy(),
        }
        for part in parts
    ]
    found = network.measure(digests)
    both = {name: values[:300] for name, values in layers.items()}
    for metric, name in (("fid", "FD"), ("wfid", "class-weighted FD"), ("tv", "class TV")):
        one, real = (layer_of(metric, of, extractor) for of in (both, layers))
        (expected,) = statistic_of(metric, real, network.reference)(one)
        assert found[name] == pytest.approx(expected, rel=1e-6)


class Counted:
    """A target that counts what it is asked for."""

    name, kind, num_samples = "some/where", MNIST, 1
    ladder = Ladder(1.0, 0.1, 2, 4, {"sigmas": [1.0], "loss": [0.5]})

    def __init__(self) -> None:
        self.asked: list[tuple[Chain, int]] = []
        self.version = 1

    @property
    def protocol(self) -> dict[str, Any]:
        return {"version": self.version}

    def digests(self, chain: Chain, seed: int) -> dict[tuple[str, float | str], Digest]:
        self.asked.append((chain, seed))
        return {end: {"a b": np.array([seed, n])} for n, end in enumerate(ENDS)}

    def measure(self, seeds: Sequence[Digest]) -> dict[str, float]:
        values = np.array([one["a b"] for one in seeds])
        return {"FD": float(1 + values[:, 1].mean() + values[:, 0].var()), "TV": 0.1}


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    target = Counted()
    first = run.kept(target, CHAIN, 3, tmp_path)
    again = run.kept(target, CHAIN, 3, tmp_path)
    assert target.asked == [(CHAIN, 3)]
    assert list(again) == list(first) == list(ENDS)
    for end in ENDS:
        np.testing.assert_array_equal(again[end]["a b"], first[end]["a b"])
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("where-half-averaged-1.1-3-")
    # Damaged files are made anew; other settings have files of their own.
    path.write_bytes(path.read_bytes()[:100])
    run.kept(target, CHAIN, 3, tmp_path)
    target.version = 2
    run.kept(target, CHAIN, 3, tmp_path)
    run.kept(target, CHAIN._replace(eta=0.1), 3, tmp_path)
    assert len(target.asked) == 4
    assert len(list(tmp_path.iterdir())) == 3


def test_the_whole_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "Spectrum", lambda _, share: Spectrum(20, share))
    monkeypatch.setattr(run, "Digits", lambda *_: Counted())
    monkeypatch.setattr(findings, "SHOWN", (0.2,))
    name, said = "half-denoising-factorial", list[str]()
    options = {"quick": True, "network": None}
    result = reproduce(name, tmp_path, "test", lambda text, *_: said.append(text), options)
    assert len(result.claims) == len(RULES)
    written = json.loads((tmp_path / f"{name}.json").read_text())
    found = written["numbers"]["targets"]["some/where"]
    assert {metric: len(cells) for metric, cells in found["cells"].items()} == {
        "FD": 448,
        "TV": 448,
    }
    assert {verdict["rule"] for verdict in found["verdicts"]} == {rule.name for rule in RULES}
    assert written["settings"]["targets"][-1]["seeds"] == [0, 1, 2, 3, 4]
    page = (tmp_path / f"{name}.md").read_text()
    for rule in RULES:
        assert rule.statement in page
    assert (tmp_path / f"{name}.png").stat().st_size > 50_000
    assert len(list((tmp_path / name).glob("where-*.npz"))) == 32 * 5
    with pytest.raises(HDZooError, match="no option 'chains'; it has dequantised, network, quick"):
        reproduce(name, tmp_path, "test", lambda *_: None, {"chains": 1})
    # An exact distance has no width; that of seeds here has the variance of 0 to 4, 2.5.
    exact = written["numbers"]["targets"]["spectrum, smooth, 20 evaluations"]["cells"]["Frechet"]
    assert all(cell["low"] == cell["high"] for cell in exact.values())
    assert found["cells"]["FD"]["own, fresh, eta 0.1, kept, lambda 0"]["value"] == (
        pytest.approx(1 + 0 + 2.5)
    )


def test_pooled_seeds() -> None:
    assert without_each([1, 2, 3]) == [[1, 2, 3], [2, 3], [1, 3], [1, 2]]
