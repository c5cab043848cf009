"""A U-Net as an energy, whose gradient is the score."""

import torch

# diffusers' loader looks both mixins up in the module that a pipeline's index names.
from diffusers import ModelMixin as ModelMixin
from diffusers import SchedulerMixin as SchedulerMixin

from hdzoo.models.unet import UNetScoreModel
from hdzoo.scores.energies import HasEnergy


class EnergyModel(HasEnergy, UNetScoreModel):
    r"""An energy :math:`E(x, \sigma) \approx -\log p_\sigma(x)`, over a range of noise levels.

    .. math::
        E(x, \sigma) = \frac12 \| u - \cos\theta\, F(u, t(\sigma)) \|^2, \quad
        u = \frac{x - \mu}{\sqrt{\sigma^2 + \sigma_d^2}}, \quad
        \cos\theta = \frac{\sigma_d}{\sqrt{\sigma^2 + \sigma_d^2}}

    with the data's mean :math:`\mu` and standard deviation :math:`\sigma_d`, and :math:`F` and
    :math:`t` as in `UNetScoreModel`, whose options it has. With ``F = 0`` it is the energy of
    :math:`N(\mu, \sigma_d^2)`, exactly. What the norm is of is, where the noise is small, the
    noise itself, and its scale does not depend on :math:`\sigma`.

    Its prediction is the score, :math:`s = -\nabla_x E`, so that the field is conservative: it
    costs a backward pass at each evaluation. `torch.func` computes it, also where gradients are
    off, and it can be differentiated again.

    Source: the squared norm of a residual: Salimans and Ho (2021), "Should EBMs model the energy or
    the score?"; the scaling of the input: Karras et al. (arXiv 2206.00364), table 1.

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
        centred, scale, _, output = self._evaluate(sample, timestep)
        residual = centred * scale - self.config.data_std * scale * output
        return residual.square().flatten(1).sum(1) / 2
