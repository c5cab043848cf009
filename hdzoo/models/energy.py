"""A U-Net as an energy, whose gradient is the score."""

import torch

# diffusers' loader looks both mixins up in the module that a pipeline's index names.
from diffusers import ModelMixin as ModelMixin
from diffusers import SchedulerMixin as SchedulerMixin

from hdzoo.models.unet import UNetScoreModel
from hdzoo.scores.energies import HasEnergy


class EnergyModel(HasEnergy, UNetScoreModel):
    r"""An energy :math:`E(x, \sigma) \approx -\log p_\sigma(x)`, over a range of noise levels.

    .. math:: E(x, \sigma) = \frac{\| x - D(x, \sigma) \|^2}{2 \sigma^2}

    :math:`D` is a U-Net as in `UNetScoreModel`, whose options it has. What the norm is of is the
    noise that a denoiser would find; its scale does not depend on :math:`\sigma`. Of data
    spread evenly over a subspace it is the energy exactly, with :math:`D` their denoiser. For other
    data :math:`D` is trained to be something else, but the weights of a `UNetScoreModel` are a good
    start (``hdzoo train --model energy --init-from MODEL``).

    Its prediction is the score, :math:`s = -\nabla_x E`, so that the field is conservative: it
    costs a backward pass at each evaluation. `torch.func` computes it, also where gradients are
    off, and it can be differentiated again.

    Source: Salimans and Ho (2021), "Should EBMs model the energy or the score?", section 3.

    The options are those of `UNetScoreModel`.
    """

    # A checkpointed block cannot be differentiated inside `torch.func`.
    _supports_gradient_checkpointing = False

    def energy(self, sample: torch.Tensor, timestep: torch.Tensor | float) -> torch.Tensor:
        r"""The energy, :math:`-\log p_\sigma(x)` up to a constant that depends on :math:`\sigma`.

        Args:
            sample: noisy images ``x0 + sigma z``, shape (batch, in_channels, sample_size,
                sample_size), in the units of ``data_range``.
            timestep: the noise level sigma: a number, a scalar tensor, or one for each sample.

        Returns:
            Shape (batch,), in the dtype of ``sample``.

        Raises:
            HDZooError: the images or the timestep do not fit.
        """
        centred, scale, sigma, output = self._evaluate(sample, timestep)
        # (x - D) / sigma, without the difference of the two, which are close to each other.
        residual = scale * (sigma * scale * centred - self.config.data_std * output)
        return residual.square().flatten(1).sum(1) / 2
