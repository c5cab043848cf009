r"""How much a Markov chain's samples are worth, and whether chains agree.

Chains come as tensors or arrays of shape (num_chains, num_steps), or (num_chains, num_steps, d)
for d quantities at once, which are treated one by one. Computed in float64 by arviz-stats.

With :math:`\rho_t` the autocorrelation at lag t, the mean of N steps has the variance
:math:`\tau \sigma^2 / N`, where

.. math:: \tau = 1 + 2 \sum_{t=1}^\infty \rho_t, \qquad ESS = N / \tau

``tau`` is 1 for independent steps, and :math:`(1 + \rho) / (1 - \rho)` for an autoregression of
order 1. Estimates of it can be trusted once the chains are many times as long, 50 times say.
"""

import numpy as np
import numpy.typing as npt

from hdzoo.checks import real_array
from hdzoo.distances.arrays import Array, power_of_two
from hdzoo.errors import HDZooError

# The chains are split in half, and Geyer's sequence starts at lag 2 of at least 5 steps.
MIN_STEPS = 10


def effective_sample_size(chains: Array) -> npt.NDArray[np.float64]:
    """The number of independent samples that would give as good a mean.

    Autocorrelations of the split chains, pooled with the variance between them, are summed by
    Geyer's initial monotone sequence. Chains that disagree make it small. For anticorrelated steps
    it may be above the number of steps N, but is held to N log10 N.

    Source: Geyer (1992), section 3.3; Vehtari et al. (arXiv 1903.08008), section 3.2 (of the mean:
    without rank normalisation).

    Args:
        chains: shape (num_chains, num_steps) or (num_chains, num_steps, d), at least 1 chain and 10
            steps, in stationarity.

    Returns:
        Shape () or (d,).

    Raises:
        HDZooError: the shape does not fit, a value is not finite, or a chain moves less than twice.
    """
    from arviz_stats.base.array import array_stats

    values = _checked(chains, at_least=1)
    for chain, moves in enumerate(_num_moves(values)):
        _refuse_stuck(moves, f"chain {chain}", values)
    values = values / power_of_two(values)
    # Units do not matter, but arviz-stats takes what moves by less than 1e-15 for constant.
    values = values - values.mean((0, 1))
    values /= np.abs(values).max((0, 1))
    # Relative, as splitting drops the middle step of an odd number.
    share = array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean", relative=True)
    return np.asarray(values.shape[0] * values.shape[1] * share, np.float64)


def integrated_autocorrelation_time(chains: Array) -> npt.NDArray[np.float64]:
    """``tau``, the number of steps that are worth one independent sample.

    It is the number of all steps of all chains over `effective_sample_size`; below 1 for
    anticorrelated steps. The standard error of the chains' mean is
    ``std * sqrt(tau / (num_chains * num_steps))``.

    Source, arguments and errors: as for `effective_sample_size`.

    Returns:
        In steps, shape () or (d,).
    """
    sample_size = effective_sample_size(chains)
    num_chains, num_steps = real_array("chains", chains).shape[:2]
    return np.asarray(num_chains * num_steps / sample_size)


def split_rhat(chains: Array) -> npt.NDArray[np.float64]:
    """Split R-hat, rank-normalised: whether chains, and the halves of each, have the same law.

    The larger of the R-hat of the normal scores of the ranks (do locations agree?) and that of the
    ranks of the distances from the median (do scales?). It exists where moments do not. Near 1 for
    chains that agree; above 1.01 they have not mixed. Infinite where the half chains all stand
    still, not all at one value. The two values nearest the median may tie or not, by rounding,
    which moves it by order 1/n.

    Source: Vehtari, Gelman, Simpson, Carpenter and Bürkner (arXiv 1903.08008).

    Args:
        chains: shape (num_chains, num_steps) or (num_chains, num_steps, d), at least 2 chains, best
            started far apart, and 10 steps.

    Returns:
        Shape () or (d,).

    Raises:
        HDZooError: the shape does not fit, a value is not finite, a quantity is constant, or no
            chain moves more than once.
    """
    from arviz_stats.base.array import array_stats

    values = _checked(chains, at_least=2)
    moves = _num_moves(values)
    halves = _halves(values)
    still = (moves == 0).all(0) & (np.ptp(halves, axis=(0, 1, 2)) > 0)
    _refuse_stuck(np.where(still, MIN_STEPS, moves.max(0)), "every chain", values)
    with np.errstate(divide="ignore", invalid="ignore"):
        rhat = array_stats.rhat(values, chain_axis=0, draw_axis=1, method="rank")
    return np.asarray(np.where(still, np.inf, rhat), np.float64)


def _checked(chains: Array, at_least: int) -> npt.NDArray[np.float64]:
    values = real_array("chains", chains)
    if values.ndim not in (2, 3) or values.shape[0] < at_least or values.shape[1] < MIN_STEPS:
        raise HDZooError(
            f"chains have shape {values.shape}; give (num_chains, num_steps) or (num_chains, "
            f"num_steps, d) with at least {at_least} chain(s) and {MIN_STEPS} steps"
        )
    constant = values.max((0, 1)) == values.min((0, 1))
    if constant.any():
        where = f"quantity {int(np.argmax(constant))}" if values.ndim == 3 else "the chain"
        raise HDZooError(f"{where} is constant: nothing can be said of how it mixes; leave it out")
    return values


def _halves(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The halves of each chain, without the middle step of an odd number; one more axis, of 2."""
    half = values.shape[1] // 2
    return np.stack([values[:, :half], values[:, -half:]])


def _num_moves(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """How often each chain moves inside its halves, shape (num_chains,) or (num_chains, d)."""
    halves = _halves(values)
    return np.count_nonzero(halves[:, :, 1:] != halves[:, :, :-1], axis=(0, 2))


def _refuse_stuck(
    num_moves: npt.NDArray[np.int64], where: str, values: npt.NDArray[np.float64]
) -> None:
    """Refuses what hardly moves: an estimate would take its few values for many.

    Args:
        num_moves: of each quantity, shape () or (d,).
        where: of what.
        values: the chains.
    """
    few = np.flatnonzero(np.ravel(num_moves) < 2)
    if len(few):
        quantity = f" in quantity {few[0]}" if values.ndim == 3 else ""
        moves = "moves once" if np.ravel(num_moves)[few[0]] else "stands still"
        raise HDZooError(
            f"{where} {moves}{quantity} within the halves of its {values.shape[1]} steps: nothing "
            "can be said of how it mixes; run it longer, or with another step_size"
        )
