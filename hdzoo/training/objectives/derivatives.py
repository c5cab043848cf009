"""Derivatives of scores and energies, by `torch.func`."""

from collections.abc import Callable

import torch

from hdzoo.errors import HDZooError
from hdzoo.scores.kernels import forward_mode

# Of a batch of points, shape (batch, ...): a vector at each, same shape. None depends on another's.
Score = Callable[[torch.Tensor], torch.Tensor]
# A number at each, shape (batch,).
Energy = Callable[[torch.Tensor], torch.Tensor]

# Directions whose derivatives are computed at once.
CHUNK = 64
PROBES = ("rademacher", "gaussian")


def energy_score(energy: Energy) -> Score:
    r"""The score of a density :math:`e^{-E(x)} / Z`, which is :math:`-\nabla E(x)`.

    Args:
        energy: ``E``.
    """

    def total(x: torch.Tensor) -> torch.Tensor:
        return energy(x).sum()

    return lambda x: -torch.func.grad(total)(x)


def along(
    function: Score, x: torch.Tensor, direction: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""The values of a function, and its derivatives along directions, :math:`\nabla f(x)\, u`.

    Args:
        function: ``f``.
        x: shape (batch, ...).
        direction: ``u``, same shape.

    Returns:
        Two tensors of that shape.

    Raises:
        HDZooError: there are no such derivatives of it in torch.
    """
    try:
        with forward_mode():
            # It refuses what is expanded.
            points, directions = x.contiguous(), direction.contiguous()
            pair = torch.func.jvp(function, (points,), (directions,))
    except NotImplementedError as error:
        raise HDZooError(
            "the network has an operation without derivatives in forward mode "
            f"({str(error).splitlines()[0]}); train it by 'denoising', which needs none"
        ) from error
    return pair[0], pair[1]


def divergence(function: Score, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""The values of a function, and its divergence :math:`\mathrm{tr} \nabla f(x)`, exactly.

    Costs as many derivatives as a point has coordinates.

    Args:
        function: ``f``.
        x: shape (batch, ...).

    Returns:
        The values, of the shape of ``x``, and the divergence, shape (batch,).
    """
    dimension = x[0].numel()
    axes = torch.eye(dimension, dtype=x.dtype, device=x.device).view(dimension, *x.shape[1:])

    def slope(axis: torch.Tensor) -> torch.Tensor:
        derivative = along(function, x, axis.expand_as(x))[1]
        return (derivative * axis).flatten(1).sum(1)

    return function(x), torch.func.vmap(slope, chunk_size=CHUNK, randomness="same")(axes).sum(0)


def estimated_divergence(
    function: Score, x: torch.Tensor, probes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""The values of a function, and the mean of :math:`u^T \nabla f(x)\, u` over probes ``u``.

    Source: Hutchinson (1990), "A stochastic estimator of the trace of the influence matrix".

    Args:
        function: ``f``.
        x: shape (batch, ...).
        probes: shape (batch, number, ...).

    Returns:
        As `divergence`.
    """
    traces = []
    for probe in probes.unbind(1):
        value, slope = along(function, x, probe)
        traces.append((probe * slope).flatten(1).sum(1))
    return value, torch.stack(traces).mean(0)


def draw_probes(x: torch.Tensor, number: int, law: str) -> torch.Tensor:
    """Random directions of mean 0 and covariance I, from torch's global generator.

    Args:
        x: points, shape (batch, ...).
        number: how many for each.
        law: ``"rademacher"``, signs, or ``"gaussian"``.

    Returns:
        Shape (batch, number, ...).
    """
    normal = torch.randn(len(x), number, *x.shape[1:], dtype=x.dtype, device=x.device)
    return normal if law == "gaussian" else torch.where(normal < 0, -1, 1).to(x.dtype)
