"""What a score network returns."""

from dataclasses import dataclass

import torch
from diffusers.models.unets.unet_2d import UNet2DOutput


@dataclass
class ScoreOutput(UNet2DOutput):
    r"""The prediction of a network, and what it gives beside it to those who ask.

    Attributes:
        sample: the prediction, in the shape of the network's input.
        energy: :math:`-\log p_\sigma(x)` of each sample up to a constant that depends on
            :math:`\sigma` alone, shape (batch,); None where it was not asked for.
    """

    energy: torch.Tensor | None = None
