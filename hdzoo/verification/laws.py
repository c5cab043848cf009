r"""The exact law of a sampler on Gaussian data, for any configuration, with nothing simulated.

On data :math:`N(m, C)` the score is affine, so a sampler whose update is affine in the state, the
network's output and its noises maps its first state and its noises affinely to its last state. The
map is found by unit impulses through the sampler's public ``step``, in float64: one row of the
batch for each coordinate of the first state and of each noise, with that coordinate at 1 and the
rest at 0. The output's mean and covariance follow.

The sampler is a black box: whatever it draws through torch is replaced, wherever it does so.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from hdzoo.errors import HDZooError
from hdzoo.samplers.gaussian import GaussianLaw
from hdzoo.scores.conversions import state_scale
from hdzoo.verification.draws import Draws, NotAffineError

Score = Callable[[torch.Tensor, float], torch.Tensor]


class Gaussian(NamedTuple):
    """A normal law.

    Attributes:
        mean: shape (d,), float64.
        covariance: shape (d, d); may be singular.
    """

    mean: np.ndarray
    covariance: np.ndarray

    @classmethod
    def of(cls, mean: Any, covariance: Any) -> "Gaussian":
        """From arrays or numbers; a covariance of shape (d,) or () is diagonal."""
        mean = np.atleast_1d(np.asarray(mean, dtype=float))
        covariance = np.asarray(covariance, dtype=float)
        if covariance.ndim < 2:
            covariance = np.diag(np.broadcast_to(covariance, mean.shape))
        return cls(mean, covariance)

    def noisy(self, sigma: float) -> "Gaussian":
        """The law with noise added."""
        return self._replace(covariance=self.covariance + sigma**2 * np.eye(len(self.mean)))

    def scaled(self, factor: float) -> "Gaussian":
        """The law of a multiple."""
        return Gaussian(factor * self.mean, factor**2 * self.covariance)

    def score(self) -> Score:
        """The exact score of the noisy law at every noise level."""
        mean = torch.from_numpy(self.mean)
        values, vectors = map(torch.from_numpy, np.linalg.eigh(self.covariance))
        values = values.clamp(min=0)

        def score(x: torch.Tensor, sigma: float) -> torch.Tensor:
            return -(((x - mean) @ vectors) / (values + sigma**2)) @ vectors.T

        return score


@dataclass(frozen=True)
class AffineMap:
    """What a chain does to its first state and its noises: ``b + x_0 A + sum_k z_k B_k``.

    Attributes:
        offset: ``b``, shape (d,).
        state: ``A``, shape (d, d); row j is where coordinate j of the first state goes.
        noises: ``B``, shape (numbers drawn for a sample, d); those of one draw follow one another.
    """

    offset: np.ndarray
    state: np.ndarray
    noises: np.ndarray

    def law(self, start: Gaussian) -> Gaussian:
        """The law of the last state, given that of the first."""
        covariance = self.state.T @ start.covariance @ self.state
        covariance = covariance + self.noises.T @ self.noises
        return Gaussian(self.offset + start.mean @ self.state, covariance)


def exact_law(
    sampler: Any, target: Gaussian, start: Gaussian | None = None, impulse: float = 1.0
) -> Gaussian:
    """The exact law of a sampler's output on Gaussian data.

    Args:
        sampler: a scheduler whose chain is fixed (`set_timesteps`).
        target: the law of the data.
        start: the law of the first state; `natural_start` by default.
        impulse: the size of the impulses. With a small one and data of mean 0, a chain that is
            affine within a bound is taken as if it had none.

    Raises:
        NotAffineError: the sampler's update is not affine.
    """
    start = natural_start(sampler, target) if start is None else start
    return affine_map(sampler, target, impulse).law(start)


def natural_start(sampler: Any, target: Gaussian) -> Gaussian:
    """Where `HDPipeline` lets a chain start: noise of the first level about 0, or for a sampler at
    a single level the noisy data; in the coordinates of the sampler's state."""
    if getattr(sampler, "starts_from_noise", True):
        return Gaussian.of(0 * target.mean, float(sampler.init_noise_sigma) ** 2)
    sigma = float(sampler.sigmas[0])
    return target.noisy(sigma).scaled(1 / scale_of(sampler, sigma))


def scale_of(sampler: Any, sigma: float) -> float:
    """What a sampler's state at a noise level is multiplied by to be in VE coordinates."""
    return state_scale(sigma, sampler.config.get("coordinates", "ve"))


def declared_law(sampler: Any, target: Gaussian, start: Gaussian) -> Gaussian | None:
    """The law by the closed form that the sampler declares (`Sampler.closed_form`).

    Args:
        sampler: a scheduler whose chain is fixed.
        target: the law of the data.
        start: the law of the first state, in the coordinates of the sampler's; its covariance must
            have the eigenvectors of the target's, for the closed forms hold in each
            eigen-direction.

    Returns:
        None if it declares none.
    """
    closed_form = getattr(sampler, "closed_form", None)
    if closed_form is None:
        return None
    start = start.scaled(scale_of(sampler, float(sampler.sigmas[0])))
    values, vectors = np.linalg.eigh(target.covariance)
    start_covariance = vectors.T @ start.covariance @ vectors
    variances = np.diag(start_covariance)
    if np.abs(start_covariance - np.diag(variances)).max() > 1e-12 * variances.max():
        raise HDZooError(
            "the first state's covariance has other eigenvectors than the data's, where the closed "
            "forms do not hold; take noise of one variance, or the noisy data"
        )
    # A singular covariance's eigenvalue of 0 comes out as a rounding, of which a closed form may
    # take the root.
    values = np.where(values > 1e-14 * values.max(), values, 0.0)
    law = closed_form(GaussianLaw(target.mean @ vectors, values, start.mean @ vectors, variances))
    if law is None:
        return None
    ones = np.ones_like(values)
    return Gaussian(vectors @ (law.mean * ones), vectors * (law.variance * ones) @ vectors.T)


def deviation(law: Gaussian, expected: Gaussian) -> float:
    """The largest relative deviation between two laws, of the covariance and of the mean.

    That of the covariance is in the spectral norm, that of the mean in units of the expected
    root-mean-square.
    """
    scale = np.linalg.norm(expected.covariance, 2)
    size = math.sqrt(expected.mean @ expected.mean + np.trace(expected.covariance))
    if not (np.isfinite(law.covariance).all() and np.isfinite(law.mean).all()):
        return math.inf
    return max(
        float(np.linalg.norm(law.covariance - expected.covariance, 2) / scale),
        float(np.linalg.norm(law.mean - expected.mean) / size),
    )


# ---- impulses -------------------------------------------------------------------------------


def affine_map(sampler: Any, target: Gaussian, impulse: float = 1.0) -> AffineMap:
    """Finds the affine map that a chain is on Gaussian data.

    Args:
        sampler: a scheduler whose chain is fixed.
        target: the law of the data, of dimension d.
        impulse: the size of the impulses.

    Returns:
        The map. Its cost is a batch of 1 + d + (numbers drawn for a sample) rows through the chain.

    Raises:
        NotAffineError: the sampler draws other than normal noise, shares its noise among samples,
            is not affine, or needs more of a network than its prediction.
    """
    # Of the maps up to each state one is kept: all would be the square of the chain's length.
    (found,) = deque(_affine_maps(sampler, target, impulse), maxlen=1)
    return found


def laws_along(sampler: Any, target: Gaussian, start: Gaussian | None = None) -> list[Gaussian]:
    """The exact laws of all states of a chain on Gaussian data, the first one included.

    Args:
        sampler: a scheduler whose chain is fixed.
        target: the law of the data.
        start: the law of the first state; `natural_start` by default.

    Raises:
        NotAffineError: as for `exact_law`.
    """
    start = natural_start(sampler, target) if start is None else start
    return [start, *(found.law(start) for found in _affine_maps(sampler, target))]


def _affine_maps(sampler: Any, target: Gaussian, size: float = 1.0) -> Iterator[AffineMap]:
    """What the chain does up to each of its states, from one run of impulses of this size."""
    name, space = type(sampler).__name__, getattr(sampler, "state_space", "real")
    needs = ", ".join(getattr(sampler, "needs", ()))
    if needs or space != "real":
        why = f"needs the network's {needs}" if needs else f"has states in the space of {space}"
        raise NotAffineError(f"{name} {why}, where no exact law is found by impulses")
    # At random points: how many numbers are drawn shows only in a run.
    dimension, score = len(target.mean), target.score()
    rng = np.random.default_rng(0)
    points = 3 * size * rng.standard_normal((3, dimension))
    noises: list[np.ndarray] = []

    def noise(_: int, shape: torch.Size) -> torch.Tensor:
        noises.append(3 * size * rng.standard_normal(each(name, shape, len(points))))
        return torch.from_numpy(noises[-1])

    ends = run_chain(sampler, score, torch.from_numpy(points), Draws(noise)).numpy()
    begins = 1 + dimension + np.cumsum([0, *(noise.shape[1] for noise in noises)])

    rows = int(begins[-1])
    start = torch.zeros(rows, dimension, dtype=torch.float64)
    start[1 : 1 + dimension] = size * torch.eye(dimension, dtype=torch.float64)

    def impulse(draw: int, shape: torch.Size) -> torch.Tensor:
        drawn = torch.zeros(each(name, shape, rows), dtype=torch.float64)
        if draw >= len(noises) or drawn.shape[1] != noises[draw].shape[1]:
            raise NotAffineError(f"{name} draws now {len(noises)} times, now more or other noise")
        drawn[begins[draw] : begins[draw + 1]] = size * torch.eye(drawn.shape[1]).double()
        return drawn

    for state in chain_states(sampler, score, start, Draws(impulse)):
        reached = state.numpy()
        images = (reached[1:] - reached[0]) / size
        found = AffineMap(reached[0].copy(), images[:dimension], images[dimension:])
        yield found
    _check_affine(name, found, points, np.concatenate([points[:, :0], *noises], 1), ends)


def each(name: str, shape: torch.Size, rows: int) -> tuple[int, int]:
    """The shape of a draw with all that is each sample's own in one axis."""
    numbers = math.prod(shape)
    if numbers % rows:
        raise NotAffineError(
            f"{name} draws noise of the shape {tuple(shape)} for {rows} samples; each sample needs "
            "its own"
        )
    return rows, numbers // rows


def _check_affine(
    name: str, found: AffineMap, points: np.ndarray, noises: np.ndarray, ends: np.ndarray
) -> None:
    """Compares the map with the chain itself, at other points and in another batch."""
    if not np.isfinite(ends).all():
        raise HDZooError(f"{name} diverges on Gaussian data: its states are not finite in the end")
    expected = found.offset + points @ found.state
    # A map that is off by a rounding is off by 1e-16 times the largest number met on the way.
    size = np.abs(points).max() * (1 + np.abs(found.state).max()) + np.abs(found.offset).max()
    if noises.size:
        expected = expected + noises @ found.noises
        size += np.abs(found.noises).sum() * np.abs(noises).max()
    gap = np.abs(ends - expected).max()
    if not gap <= 1e-8 * size:
        raise NotAffineError(
            f"{name} is not affine on Gaussian data, or its samples depend on one another: at a "
            f"random point its end is off by {gap:.2g} from what its response to unit impulses "
            "says, so it has no exact law here"
        )


def run_chain(sampler: Any, score: Score, state: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Runs a chain from its beginning with draws of one's own; arguments as in `chain_states`.

    Returns:
        The last state.
    """
    for moved in chain_states(sampler, score, state, draws):
        state = moved
    return state


def chain_states(
    sampler: Any, score: Score, state: torch.Tensor, draws: Draws
) -> Iterator[torch.Tensor]:
    """The states of a chain after its first one, with draws of one's own.

    Args:
        sampler: a scheduler; its chain is set up anew, with as many evaluations as it has.
        score: the exact score.
        state: the first state, shape (n, d).
        draws: what its draws are replaced by.
    """
    sampler.set_timesteps(sampler.num_inference_steps)
    if hasattr(sampler, "set_begin_index"):
        sampler.set_begin_index(0)
    levels = sampler.sigmas.tolist()
    # A sampler that wants a generator gets one; what it would draw is replaced.
    generator = torch.Generator()
    for t, sigma in zip(sampler.timesteps, levels, strict=False):
        state = next_state(sampler, score, state, (t, sigma), draws, generator)
        yield state


def next_state(
    sampler: Any,
    score: Score,
    state: torch.Tensor,
    at: tuple[torch.Tensor, float],
    draws: Draws,
    generator: torch.Generator,
) -> torch.Tensor:
    """One evaluation of `chain_states`, at a timestep and its noise level."""
    t, sigma = at
    # Only around the sampler's own work, for what is inside costs several times as much.
    with draws:
        given = sampler.scale_model_input(state, t)
    output = network_output(sampler, score, given, sigma)
    with draws:
        moved: torch.Tensor = sampler.step(
            output, t, state, generator=generator, return_dict=False
        )[0]
    return moved


def network_output(sampler: Any, score: Score, given: torch.Tensor, sigma: float) -> torch.Tensor:
    """What a perfect network of the kind that the sampler's options name would return.

    Written out here apart from `hdzoo.scores.conversions`, so that a wrong factor there shows.

    Args:
        sampler: with ``prediction_type``, ``sigma_data`` and ``coordinates`` in its configuration.
        score: the exact score, in VE coordinates.
        given: the network's input.
        sigma: the noise level.
    """
    sigma_data = sampler.config.get("sigma_data")
    # With sigma_data the input is divided by the root of `total`, Karras et al. (arXiv 2206.00364).
    total = 1.0 if sigma_data is None else sigma**2 + sigma_data**2
    scale = scale_of(sampler, sigma)
    factor = math.sqrt(total) * scale
    x = given if factor == 1 else given * factor
    s = score(x, sigma)
    match sampler.config.get("prediction_type", "score"), sigma_data:
        case "score", None:
            # The gradient by the state.
            return scale * s
        case "scaled_score", None:
            return sigma * s
        case "sample", None:
            return x + sigma**2 * s
        case "epsilon", None:
            return -sigma * s
        case "v_prediction", None:
            return (-sigma * s - sigma * (x + sigma**2 * s)) / math.hypot(1, sigma)
        case "epsilon" | "v_prediction" as kind, _:
            # F in D = c_skip x + c_out F of the same, table 1.
            skipped = x + sigma**2 * s - sigma_data**2 / total * x
            inner = skipped * math.sqrt(total) / (sigma * sigma_data)
            return inner if kind == "epsilon" else -inner
        case kind, _:
            raise HDZooError(
                f"prediction_type is {kind!r} with sigma_data {sigma_data}; the harness knows "
                "score, scaled_score, sample, epsilon and v_prediction, the last two also with "
                "sigma_data"
            )
