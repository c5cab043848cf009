"""What the factorial is run on: Gaussians in closed form, the digits mixture, and networks.

A target that is sampled keeps of each chain and seed a digest, which adds up over seeds, and has
distances of any seeds together.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from hdzoo.catalog import weights_hash
from hdzoo.distances.wasserstein import gaussian_wasserstein2
from hdzoo.errors import HDZooError
from hdzoo.hub.resolve import resolve_model
from hdzoo.literature.factorial.cells import Cell, Chain, End, Ladder, ends, laws, seed_of
from hdzoo.literature.factorial.rules import DIGITS, SINGULAR, SMOOTH
from hdzoo.metrics.comparison import weighted_distance
from hdzoo.metrics.features import Extractor, get_extractor
from hdzoo.metrics.metrics import class_shares, frechet_distance, moments
from hdzoo.metrics.reference import Reference, load_reference, reference_of
from hdzoo.samplers.gaussian import GaussianLaw
from hdzoo.sampling import load_pipeline
from hdzoo.targets import named
from hdzoo.targets.mixture import GaussianMixtureScore

Digest = dict[str, np.ndarray]
SEEDS = (0, 1, 2, 3, 4)


class Spectrum:
    """A Gaussian with the spectrum of images, whose distances are exact.

    Args:
        evaluations: of the report's ladder, 10 levels from 1 to .01.
        singular_fraction: the part of the directions in which the data do not vary.
    """

    def __init__(self, evaluations: int, singular_fraction: float) -> None:
        self.kind = SINGULAR if singular_fraction else SMOOTH
        self.name = f"spectrum, {self.kind}, {evaluations} evaluations"
        target = named.spectrum_target(singular_fraction=singular_fraction)
        # Eigenvalues come in groups: waves of one length.
        self.variances, self.counts = np.unique(target.variances[0].numpy(), return_counts=True)
        levels = np.geomspace(1, 0.01, 10)
        shares = self.variances / (self.variances + levels[:, None] ** 2)
        loss = (shares @ self.counts / self.counts.sum()).tolist()
        record = {"sigmas": levels.tolist(), "loss": loss}
        self.ladder = Ladder(1.0, 0.01, 10, evaluations, record)

    def table(self, chain: Chain) -> dict[Cell, float]:
        """The Fréchet distances of the cells of a chain that starts with noise of the first level
        about the data's mean."""
        zero = 0 * self.variances
        start = GaussianLaw(zero, self.variances, zero, zero + self.ladder.sigma_max**2)
        return {
            Cell(chain, *end): float(
                self.counts @ (law.mean**2 + (np.sqrt(law.variance) - np.sqrt(self.variances)) ** 2)
            )
            for end, law in laws(self.ladder, chain, start).items()
        }


class Sampled(Protocol):
    """A target whose cells are sampled."""

    name: str
    kind: str
    ladder: Ladder
    num_samples: int

    @property
    def protocol(self) -> dict[str, Any]:
        """All that a digest depends on, but for the chain and the seed."""

    def digests(self, chain: Chain, seed: int) -> dict[End, Digest]:
        """Draws the samples of all cells of a chain."""

    def measure(self, seeds: Sequence[Digest]) -> dict[str, float]:
        """The distances of some seeds together, the one that rules are about first."""


# ---- digits -------------------------------------------------------------------------------------

# Points that the mixture's loss is a mean over; its error is below 1 %.
LOSS_POINTS = 4000
BATCH = 1000


class Digits:
    """The mixture fitted to digits, with its exact score.

    The distance is Fréchet's, of pixels; beside it the total variation of the weights of the modes,
    and the noise that is left where the data do not vary, over that of the last level.

    Args:
        num_samples: of each seed.
        evaluations: of 10 levels from 5 to .02.
    """

    name, kind = "digits", DIGITS

    def __init__(self, num_samples: int, evaluations: int) -> None:
        self.num_samples = num_samples
        self.target: GaussianMixtureScore = named.digits()
        levels = np.geomspace(5, 0.02, 10).tolist()
        record = {"sigmas": levels, "loss": [expected_loss(self.target, s) for s in levels]}
        self.ladder = Ladder(5.0, 0.02, 10, evaluations, record)

    @property
    def protocol(self) -> dict[str, Any]:
        return {"target": self.name, "num_samples": self.num_samples, **self.ladder._asdict()}

    @cached_property
    def null_space(self) -> np.ndarray:
        """Directions in which the data do not vary, shape (64, how many)."""
        values, vectors = np.linalg.eigh(self.target.covariance.numpy())
        return np.asarray(vectors[:, values < 1e-12])

    def digests(self, chain: Chain, seed: int) -> dict[End, Digest]:
        found: dict[End, Digest] = {}
        for batch, begin in enumerate(range(0, self.num_samples, BATCH)):
            size = min(BATCH, self.num_samples - begin)
            for end, samples in ends(self.target, self.ladder, chain, size, (seed, batch)).items():
                sums = self.sums(samples)
                before = found.get(end)
                found[end] = sums if before is None else _added([before, sums])
        return found

    def sums(self, samples: torch.Tensor) -> Digest:
        """What the distances need of samples, added up."""
        points = samples.double()
        shares = self.target.component_probabilities(points, self.ladder.sigma_min)
        flat = points.flatten(1).numpy()
        residue = (flat - self.target.mean.numpy()) @ self.null_space
        return {
            "count": np.array(len(flat)),
            "sum": flat.sum(0),
            "squares": flat.T @ flat,
            "modes": shares.sum(0).numpy(),
            "residue": np.array((residue**2).mean(1).sum()),
        }

    def measure(self, seeds: Sequence[Digest]) -> dict[str, float]:
        sums = _added(seeds)
        count, mean = sums["count"], sums["sum"] / sums["count"]
        covariance = (sums["squares"] - count * np.outer(mean, mean)) / (count - 1)
        distance = gaussian_wasserstein2(
            mean, covariance, self.target.mean.numpy(), self.target.covariance.numpy()
        )
        modes = np.abs(sums["modes"] / count - self.target.weights.numpy()).sum() / 2
        residue = sums["residue"] / count / self.ladder.sigma_min**2
        return {"Frechet": distance**2, "mode TV": float(modes), "noise left": float(residue)}


def expected_loss(target: GaussianMixtureScore, sigma: float) -> float:
    r"""The denoising loss per dimension of an exact score, :math:`E |\sigma s + z|^2 / d`."""
    draws = torch.Generator().manual_seed(seed_of(LOSS_POINTS))
    points = target.sample(LOSS_POINTS, draws).double()
    z = torch.randn(points.shape, generator=draws, dtype=points.dtype)
    return float((sigma * target.score(points + sigma * z, sigma) + z).square().mean())


def _added(seeds: Sequence[Digest]) -> Digest:
    return {key: np.sum([one[key] for one in seeds], axis=0) for key in seeds[0]}


# ---- networks -----------------------------------------------------------------------------------


class Network:
    """A score network of digits, judged by the features of the classifier that travels with hdzoo.

    The distance is Fréchet's, of features; beside it the class-weighted one, and the total
    variation of the class shares.

    Args:
        model: a folder, a bundled name, or a Hub id; with a reference for the features ``digits``,
            or else that of ``ncsn-mnist`` is taken.
        kind: of the data it was trained on.
        num_samples: of each seed.
        evaluations: of the ladder.
        ladder: its first and last level, and how many it has.
    """

    def __init__(
        self,
        model: str | Path,
        kind: str,
        num_samples: int,
        evaluations: int,
        ladder: tuple[float, float, int],
    ) -> None:
        self.name, self.kind, self.num_samples = str(model), kind, num_samples
        self.model = model
        self.network = load_pipeline(model).unet
        record = self.network.config.get("held_out_loss")
        if record is None:
            raise HDZooError(
                f"the network {self.name!r} records no held-out loss, which variance-matched "
                "hand-offs and read-outs need; take one that hdzoo has trained with --held-out"
            )
        self.ladder = Ladder(*ladder, evaluations, {key: list(record[key]) for key in record})

    @property
    def protocol(self) -> dict[str, Any]:
        return {
            "weights": weights_hash(resolve_model(self.model)),
            "features": self.extractor.weights_sha256,
            "num_samples": self.num_samples,
            **self.ladder._asdict(),
        }

    @cached_property
    def extractor(self) -> Extractor:
        return get_extractor("digits")

    @cached_property
    def reference(self) -> Reference:
        try:
            path = reference_of(self.model, "digits")
        except HDZooError:
            path = reference_of("ncsn-mnist", "digits")
        found = load_reference(path)
        found.check_extractor(self.extractor)
        return found

    def digests(self, chain: Chain, seed: int) -> dict[End, Digest]:
        found = ends(self.network, self.ladder, chain, self.num_samples, (seed,))
        return {end: self.features(samples) for end, samples in found.items()}

    def features(self, samples: torch.Tensor) -> Digest:
        """Features and classes of samples, as pictures of 256 grey levels."""
        low, high = self.network.config.data_range
        pixels = ((samples - low) / (high - low)).clamp(0, 1).mul(255).round().byte()
        layers = self.extractor(pixels.expand(-1, 3, -1, -1))
        return {
            "features": layers[self.extractor.layers["fid"]].float().cpu().numpy(),
            "classes": layers[self.extractor.layers["isc"]].argmax(1).cpu().numpy(),
        }

    def measure(self, seeds: Sequence[Digest]) -> dict[str, float]:
        features, classes = (
            torch.from_numpy(np.concatenate([one[key] for one in seeds]))
            for key in ("features", "classes")
        )
        real = self.reference.layers[self.extractor.layers["isc"]].argmax(1)
        labelled = torch.cat([features.double(), classes[:, None]], 1)
        shares = [class_shares(one, 10) for one in (classes, real)]
        return {
            "FD": frechet_distance(moments(features), self.reference.moments),
            "class-weighted FD": weighted_distance(labelled, self.reference.moments, real),
            "class TV": float(np.abs(shares[0] - shares[1]).sum() / 2),
        }


def told(target: "Sampled | Spectrum") -> Mapping[str, Any]:
    """A target's settings, for the record."""
    settings = {"name": target.name, "kind": target.kind, **target.ladder._asdict()}
    if isinstance(target, Spectrum):
        return settings | {"exact": True}
    own = {"num_samples": target.num_samples, "seeds": list(SEEDS)}
    return settings | target.protocol | own
