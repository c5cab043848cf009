"""What every network with an energy shares: the score is its gradient."""

from collections.abc import Sequence
from typing import Any

import torch

from hdzoo.checks import floating, refuse
from hdzoo.errors import HDZooError
from hdzoo.scores.kernels import plain_attention
from hdzoo.scores.output import ScoreOutput


def check_extras(name: str, extras: Any, provides: Sequence[str]) -> None:
    """Refuses to be asked for what a network does not give beside its score.

    Args:
        name: of the network's class.
        extras: what is asked for.
        provides: what it gives.

    Raises:
        HDZooError: they are no list, or something else is asked for.
    """
    if not isinstance(extras, list | tuple):
        refuse("extras", extras, f"a list of some of {', '.join(provides)}")
    unknown = [extra for extra in extras if extra not in provides]
    if unknown:
        raise HDZooError(
            f"{name} is asked for {unknown[0]!r} beside its score; it gives {', '.join(provides)}"
        )


class HasEnergy:
    r"""A network that is an energy, and whose prediction is the score :math:`s = -\nabla_x E`.

    It comes before diffusers' mixin among the bases of a class, which implements `energy`.
    """

    prediction_type = "score"
    provides: tuple[str, ...] = ("energy",)

    def energy(self, sample: torch.Tensor, timestep: Any) -> torch.Tensor:
        r"""The energy of each sample, shape (batch,); a function that `torch.func` can take."""
        raise NotImplementedError

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        return_dict: bool = True,
        extras: Sequence[str] = (),
    ) -> ScoreOutput | tuple[torch.Tensor, ...]:
        r"""The score, as a network gives it.

        Args:
            sample: noisy samples, as `energy` takes them.
            timestep: the noise level: a number, a scalar tensor, or one for each sample.
            return_dict: whether to return a `ScoreOutput` or a tuple.
            extras: what else to give: ``"energy"``, shape (batch,), at no cost.

        Returns:
            The score, in the shape and dtype of ``sample``. Where gradients are on, it and the
            energy have those of the weights.

        Raises:
            HDZooError: the samples or the timestep do not fit, or something else is asked for.
        """
        check_extras(type(self).__name__, extras, self.provides)
        floating("sample", sample, "noisy samples")

        def total(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            each = self.energy(x, timestep)
            return each.sum(), each

        with plain_attention():
            slope, energy = torch.func.grad(total, has_aux=True)(sample)
        output = ScoreOutput(sample=-slope, energy=energy if "energy" in extras else None)
        return output if return_dict else output.to_tuple()
