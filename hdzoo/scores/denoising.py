"""What every score network can do for other libraries: denoise."""

from typing import Any

import torch

from hdzoo.checks import POSITIVE, floating, refuse
from hdzoo.scores.conversions import to_score


class Denoises:
    """A network in VE coordinates that says what it predicts.

    The call that k-diffusion, deepinv and others take for a denoiser is `denoise`:
    ``k_diffusion.sampling.sample_euler(model.denoise, x, sigmas)``.
    """

    prediction_type: str

    def denoise(self: Any, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        r"""The denoised images, :math:`E[x_0 | x] = x + \sigma^2 s(x, \sigma)` (Tweedie).

        Args:
            x: noisy images ``x0 + sigma z``, shape (batch, ...), in the network's units.
            sigma: the noise level: a positive number, or a tensor with one for all or one for each
                image. Its values are read, which waits for a device.

        Returns:
            The shape and dtype of ``x``.

        Raises:
            HDZooError: a shape does not fit, or the network does not know the noise level.
        """
        floating("x", x, "noisy images, of shape (batch, ...)")
        if not isinstance(sigma, torch.Tensor):
            sigma = POSITIVE("sigma", sigma)
        elif sigma.dtype == torch.bool or sigma.is_complex():
            refuse("sigma", sigma, "a tensor of real numbers")
        # Integers would be class indices.
        wide = torch.promote_types(x.dtype, torch.float32)
        level = torch.as_tensor(sigma, dtype=wide, device=x.device).reshape(-1)
        if hasattr(self, "check_sigmas"):
            self.check_sigmas(level)
        told = level if level.numel() > 1 else level[0]
        prediction: torch.Tensor = self(x, told, return_dict=False)[0]
        if self.prediction_type == "sample":
            return prediction
        level, state = level.view(-1, *[1] * (x.ndim - 1)), x.to(wide)
        score = to_score(prediction.to(wide), state, level, self.prediction_type)
        return (state + level**2 * score).to(x.dtype)
