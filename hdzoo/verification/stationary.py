"""Whether a chain stays in the law that its sampler says it leaves as it is."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy import stats

from hdzoo.errors import HDZooError
from hdzoo.verification.chain import on_signs
from hdzoo.verification.checks import CheckFailed, Finding, NotApplicable, on_options
from hdzoo.verification.configurations import configuration
from hdzoo.verification.small import option_names

NUM_SAMPLES = 20_000
STEPS, MANY_STEPS = 12, 60
SIGMA = 0.8
# Step sizes in units of sigma^2, beside the sampler's own: where nearly all is accepted, a test of
# acceptance says little.
ETAS = (None, 0.5, 1.0)
# With a few dozen statistics of each sampler, by chance once in ten thousand samplers.
LEAST_P_VALUE = 1e-6
MOST_LEFT = 0.5


class Real:
    """Samples of a mixture in the plane, and what tells whether they have its law.

    Args:
        sigma: the noise level.
    """

    def __init__(self, sigma: float) -> None:
        from hdzoo.targets.mixture import GaussianMixtureScore

        covariances = [[[0.3, 0.1], [0.1, 0.2]], [[0.1, 0.0], [0.0, 0.4]]]
        self.model = GaussianMixtureScore.from_components(
            [[-0.8, 0.3], [0.7, -0.5]], covariances, [0.4, 0.6]
        )
        self.sigma = sigma
        self.means = np.array([[-0.8, 0.3], [0.7, -0.5]])
        self.covariances = np.array(covariances) + sigma**2 * np.eye(2)
        self.weights = np.array([0.4, 0.6])

    def sample(self, sampler: Any, generator: torch.Generator) -> torch.Tensor:
        return self.model.sample(NUM_SAMPLES, generator, sigma=self.sigma).double()

    def displace(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1.5

    def distance(self, x: torch.Tensor) -> float:
        """How far the mean is away."""
        return float(np.linalg.norm(x.numpy().mean(0) - self.weights @ self.means))

    def p_values(self, x: torch.Tensor) -> Iterator[tuple[str, float]]:
        """In three directions: of the mean, of the mean square, and of the distribution."""
        points = x.numpy()
        for direction in ([1.0, 0.0], [0.0, 1.0], [0.6, 0.8]):
            u = np.array(direction)
            means, stds = self.means @ u, np.sqrt(np.einsum("kij,i,j->k", self.covariances, u, u))
            along, text = points @ u, f"along {tuple(direction)}"
            exact = self.weights @ means, self.weights @ (means**2 + stds**2)
            for name, values, value in zip(
                ("mean", "mean square"), (along, along**2), exact, strict=True
            ):
                error = values.std() / np.sqrt(len(values))
                gap = (values.mean() - value) / max(error, 1e-300)
                said = f"the {name} {text} is {values.mean():.4f}, exactly {value:.4f}"
                yield said, float(2 * stats.norm.sf(abs(gap)))
            cdf = lambda t, m=means, s=stds: stats.norm.cdf((t[:, None] - m) / s) @ self.weights  # noqa: E731
            yield f"the distribution {text} is another", float(stats.kstest(along, cdf).pvalue)


class IndependentSigns:
    """Four independent signs, as a model whose score is exact."""

    means = np.array([0.6, -0.3, 0.0, 0.8])

    def sample(self, num_samples: int, generator: torch.Generator) -> torch.Tensor:
        drawn = torch.rand(num_samples, 4, generator=generator, dtype=torch.float64)
        return torch.where(2 * drawn - 1 < torch.from_numpy(self.means), 1.0, -1.0).double()

    def _half_log_odds(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        return torch.from_numpy(np.arctanh(self.means)) + x.double() / sigma**2

    def score(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        return ((self._half_log_odds(x, sigma).tanh() - x) / sigma**2).to(x.dtype)

    def log_density(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        told = self._half_log_odds(x, sigma).cosh().log() - x.double() ** 2 / (2 * sigma**2)
        return told.sum(1).to(x.dtype)


class Signs:
    """Samples of four independent signs, and what tells whether they have their law.

    Args:
        sigma: the noise level; 0 for clean signs.
    """

    def __init__(self, sigma: float) -> None:
        self.model = IndependentSigns()
        points = np.array(list(product((-1.0, 1.0), repeat=4)))
        # Each is turned over with probability 1 / (1 + exp(2 / sigma^2)).
        kept = np.tanh(1 / sigma**2) if sigma > 0 else 1.0
        self.shares = ((1 + points * self.model.means * kept) / 2).prod(1)

    def sample(self, sampler: Any, generator: torch.Generator) -> torch.Tensor:
        clean = self.model.sample(NUM_SAMPLES, generator)
        z = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
        noisy: torch.Tensor = sampler.add_noise(clean, z, sampler.timesteps[:1])
        return noisy

    def displace(self, x: torch.Tensor) -> torch.Tensor:
        return -torch.ones_like(x)

    def _counts(self, x: torch.Tensor) -> np.ndarray:
        places = ((x.numpy() + 1) / 2) @ 2.0 ** np.arange(4)[::-1]
        if not set(places.tolist()) <= set(range(len(self.shares))):
            raise CheckFailed("the state is in {-1, 1}^d (state_space), and no longer there")
        return np.bincount(places.astype(int), minlength=len(self.shares))

    def distance(self, x: torch.Tensor) -> float:
        """The total variation."""
        return float(np.abs(self._counts(x) / len(x) - self.shares).sum() / 2)

    def p_values(self, x: torch.Tensor) -> Iterator[tuple[str, float]]:
        counts = self._counts(x)
        said = f"the shares of the 16 are {np.round(counts / len(x), 4).tolist()}"
        yield said, float(stats.chisquare(counts, self.shares * len(x)).pvalue)


def check_stationary_law(sampler_class: type[Any]) -> Finding:
    """Starts chains in the law that a sampler says it leaves as it is (`leaves_invariant`).

    In the noisy data, of a mixture in the plane or of independent signs, they must stay, by tests
    of 20,000 chains, at the sampler's own step size and at large ones. So that it is not for want
    of moving, chains that start elsewhere must have come half of the way after 60 evaluations, at
    one of the step sizes.
    """
    declared = getattr(sampler_class, "leaves_invariant", None)
    if declared is None:
        raise NotApplicable("no law is declared that it leaves as it is (Sampler.leaves_invariant)")
    if declared != "noisy data":
        raise CheckFailed(f"leaves_invariant is {declared!r}; it must be 'noisy data', or None")
    least, left, tried = 1.0, 1.0, 0
    for sampler in _samplers(sampler_class):
        with on_options(configuration(sampler)):
            sigma = float(sampler.sigmas[0])
            data = Signs(sigma) if on_signs(sampler_class) else Real(sigma)
            least = min(least, _stays(sampler, data))
            left = min(left, _left(sampler, data))
            tried += 1
    if not left <= MOST_LEFT:
        raise CheckFailed(
            f"chains that start elsewhere do not come to the noisy data: after {MANY_STEPS} "
            f"evaluations {left:.0%} of the distance is left, at each of {tried} step sizes"
        )
    return Finding(
        f"stays in the noisy data at {tried} step sizes, smallest p-value {least:.1g}; from "
        f"elsewhere {left:.0%} of the distance is left after {MANY_STEPS} evaluations",
        {"summary": "stays in noisy data", "smallest_p_value": least, "left": left},
    )


def _samplers(sampler_class: type[Any]) -> Iterator[Any]:
    """The sampler at one level, with different step sizes."""
    known = option_names(sampler_class)
    level = {"sigma": SIGMA, "sigma_min": SIGMA, "num_levels": 1, "sigma_max": SIGMA}
    built, refusal = 0, ""
    for eta in ETAS if "step_size" in known else ETAS[:1]:
        options = {key: value for key, value in level.items() if key in known}
        if eta is not None:
            options["step_size"] = eta * SIGMA**2
        try:
            sampler = sampler_class(**options)
            sampler.set_timesteps(STEPS)
        except HDZooError as error:
            refusal = str(error)
            continue
        built += 1
        yield sampler
    if not built:
        with on_options(level):
            raise CheckFailed(f"it is refused at one noise level: {refusal}")


def _stays(sampler: Any, data: Real | Signs) -> float:
    """The smallest p-value of chains that start in the law."""
    generator = torch.Generator().manual_seed(0)
    sampler.set_timesteps(STEPS)
    end = walk(sampler, data, data.sample(sampler, generator), generator)
    p_values = list(data.p_values(end))
    said, least = min(p_values, key=lambda pair: pair[1])
    if not least >= LEAST_P_VALUE:
        raise CheckFailed(
            f"chains that start in the noisy data do not stay there: after {STEPS} evaluations "
            f"{said} ({NUM_SAMPLES} chains, p-value {least:.1e})"
        )
    return least


def _left(sampler: Any, data: Real | Signs) -> float:
    """Which part of the distance is left of chains that start elsewhere."""
    generator = torch.Generator().manual_seed(1)
    sampler.set_timesteps(MANY_STEPS)
    start = data.displace(data.sample(sampler, generator))
    return data.distance(walk(sampler, data, start, generator)) / data.distance(start)


def walk(
    sampler: Any, data: Real | Signs, x: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """The last state of a chain whose timesteps are set, on the exact score of the data."""
    asked = {*getattr(sampler, "needs", ()), *getattr(sampler, "uses", ())}
    sampler.set_begin_index(0)
    for t, sigma in zip(sampler.timesteps, sampler.sigmas.tolist(), strict=False):
        extras = {}
        if "energy" in asked:
            extras["energy"] = -data.model.log_density(x, sigma)
        x = sampler.step(
            data.model.score(x, sigma), t, x, generator=generator, return_dict=False, **extras
        )[0]
    return x
