"""Laws and transition matrices on all points of {-1, 1}^d, for d up to about 10.

A matrix has a row for each point that a walk comes from. All in float64.
"""

from itertools import product
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from hdzoo import HDZooError
from hdzoo_binary.one_stage import log_acceptance
from hdzoo_binary.signs import log_odds_of_noise, signs_score

# 4096 points; a matrix of 128 MB.
MOST_SIGNS = 12


def states(dimension: int) -> torch.Tensor:
    """All points, shape (2^d, d): from all -1 to all 1, the last sign changes first.

    Raises:
        HDZooError: there are too many.
    """
    if not 1 <= dimension <= MOST_SIGNS:
        raise HDZooError(f"the dimension is {dimension}; points are listed for 1 to {MOST_SIGNS}")
    return torch.tensor(list(product((-1.0, 1.0), repeat=dimension)), dtype=torch.float64)


def independent(logits: torch.Tensor) -> torch.Tensor:
    """The law of independent signs on all points.

    Args:
        logits: of 1, shape (n, d).

    Returns:
        Shape (n, 2^d).
    """
    up = (states(logits.shape[1]).T + 1) / 2
    return (logsigmoid(logits) @ up + logsigmoid(-logits) @ (1 - up)).exp()


def flips(dimension: int, sigma: float) -> torch.Tensor:
    """The matrix of bit-flip noise."""
    return independent(log_odds_of_noise(states(dimension), sigma))


def noisy_law(model: Any, sigma: float) -> torch.Tensor:
    """The law of the noisy signs of a target, from its density.

    Args:
        model: such as `hdzoo_binary.targets.SignsMixtureScore`.
        sigma: the noise level.
    """
    law: torch.Tensor = model.log_density(states(model.dimension), sigma).softmax(0)
    return law


def scores(model: Any, sigma: float, kind: str) -> torch.Tensor:
    """The score of the noisy signs at all points, shape (2^d, d); ``kind`` as in `signs_score`."""
    points = states(model.dimension)
    return signs_score(points, model.denoise(points, sigma), sigma, kind)


def one_stage(scores: torch.Tensor, step_size: float) -> torch.Tensor:
    """The matrix of a step of `DiscreteLangevinSampler`.

    Args:
        scores: at all points, shape (2^d, d).
        step_size: alpha.
    """
    return independent(scores + states(scores.shape[1]) / step_size)


def two_stage(scores: torch.Tensor, step_size: float) -> torch.Tensor:
    """The matrix of a step of `TwoStageDiscreteLangevinSampler`, from signs to signs."""
    pull = states(scores.shape[1]) / step_size
    return independent(pull) @ independent(2 * scores + pull)


def metropolis(scores: torch.Tensor, log_law: torch.Tensor, step_size: float) -> torch.Tensor:
    """The matrix of a step of `DiscreteMALASampler`.

    Args:
        scores: at all points, shape (2^d, d).
        log_law: the logarithm of the law there, up to a constant, shape (2^d,).
        step_size: alpha.
    """
    points = states(scores.shape[1])
    accepted = []
    for x, score, log_p in zip(points, scores, log_law, strict=True):
        old = {"x": x.expand_as(points), "score": score.expand_as(points), "energy": -log_p}
        new = {"x": points, "score": scores, "energy": -log_law}
        accepted.append(log_acceptance(old, new, step_size).clamp(max=0).exp())
    matrix = one_stage(scores, step_size) * torch.stack(accepted)
    return matrix + (1 - matrix.sum(1)).diag()


def stationary(matrix: torch.Tensor) -> torch.Tensor:
    """The law that a transition matrix leaves as it is."""
    count = len(matrix)
    system = (matrix - torch.eye(count, dtype=matrix.dtype)).T.clone()
    system[-1] = 1
    law: torch.Tensor = torch.linalg.solve(system, torch.eye(count, dtype=matrix.dtype)[-1])
    return law


def total_variation(law: torch.Tensor, other: torch.Tensor) -> float:
    """Half the sum of absolute differences."""
    return float((law - other).abs().sum() / 2)


def relaxation_time(matrix: torch.Tensor) -> float:
    """The steps in which the slowest part of a start falls by e, from the second eigenvalue."""
    second = torch.linalg.eigvals(matrix).abs().sort().values[-2]
    return float(-1 / second.log())
