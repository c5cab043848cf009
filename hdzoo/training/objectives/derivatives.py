"""Derivatives of scores and energies, by `torch.func`."""

from collections.abc import Callable

import torch

from hdzoo.errors import HDZooError

# Of a batch of points, shape (batch, ...): a vector at each, same shape. None depends on another's.
Score = Callable[[torch.Tensor], torch.Tensor]
# A number at each, shape (batch,).
Energy = Callable[[torch.Tensor], torch.Tensor]

# Directions whose derivatives are computed at once.
CHUNK = 64


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
        value, derivative = torch.func.jvp(function, (x,), (direction,))
    except NotImplementedError as error:
        raise HDZooError(
            f"the network has an operation without derivatives in forward mode: {error}; train it "
            "by 'denoising', which needs none"
        ) from error
    return value, derivative


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

    return function(x), torch.func.vmap(slope, chunk_size=CHUNK)(axes).sum(0)
