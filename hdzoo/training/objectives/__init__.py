"""Training objectives, as pure functions, and what makes one of them a run's.

A score network is a function of a batch of points, shape (batch, ...), that gives a vector at each;
a noise-conditional one is that at given levels: ``lambda x: network(x, sigmas)``. An energy comes
in by its score (`derivatives.energy_score`). Each function gives the loss of each sample, shape
(batch,), summed over its coordinates: whoever trains takes the mean, weighted as he likes.
"""

from hdzoo.training.objectives.base import Network, NoisyObjective, Objective, build_objective
from hdzoo.training.objectives.contrastive import contrastive_divergence
from hdzoo.training.objectives.denoising import denoising_score_matching, loss_per_dimension
from hdzoo.training.objectives.derivatives import (
    along,
    divergence,
    draw_probes,
    energy_score,
    estimated_divergence,
)
from hdzoo.training.objectives.explicit import explicit_score_matching
from hdzoo.training.objectives.generalised import generalised_score_matching
from hdzoo.training.objectives.implicit import implicit_score_matching, sliced_score_matching
from hdzoo.training.objectives.levels import (
    LOSS_WEIGHTINGS,
    SIGMA_DISTRIBUTIONS,
    draw_sigmas,
    karras_weight,
    song_ermon_weight,
)
from hdzoo.training.objectives.signs import bit_flip_cross_entropy
from hdzoo.training.objectives.sure import stein_unbiased_risk

__all__ = [
    "LOSS_WEIGHTINGS",
    "SIGMA_DISTRIBUTIONS",
    "Network",
    "NoisyObjective",
    "Objective",
    "along",
    "bit_flip_cross_entropy",
    "build_objective",
    "contrastive_divergence",
    "denoising_score_matching",
    "divergence",
    "draw_probes",
    "draw_sigmas",
    "energy_score",
    "estimated_divergence",
    "explicit_score_matching",
    "generalised_score_matching",
    "implicit_score_matching",
    "karras_weight",
    "loss_per_dimension",
    "sliced_score_matching",
    "song_ermon_weight",
    "stein_unbiased_risk",
]
