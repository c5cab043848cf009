"""The denoiser of any network: in VE or VP coordinates, whatever it predicts."""

from collections.abc import Mapping
from typing import Any

import torch

from hdzoo.errors import HDZooError
from hdzoo.samplers.coordinates import NetworkCoordinates


class NetworkDenoiser(NetworkCoordinates):
    """A network as ``denoise(x, sigma)`` in VE coordinates, asked as a sampler of hdzoo asks it.

    Args:
        network: one that has no such method itself.
        told: what it predicts and how it is told the noise level, as in a sampler's configuration.
        class_labels: of each sample, or one for all; None for a network that takes none.

    Raises:
        HDZooError: nobody says what the network predicts.
    """

    def __init__(
        self, network: Any, told: Mapping[str, Any], class_labels: torch.Tensor | None = None
    ) -> None:
        if not told:
            raise HDZooError(
                f"nothing says what {type(network).__name__} predicts and how it is told the noise "
                "level; give the pipeline a sampler of hdzoo, as in pipe.scheduler = "
                "hdzoo.get_sampler('consistent-annealed-sampling').from_config("
                "pipe.scheduler.config)"
            )
        self.config = dict(told)
        self.network = network
        self.asked_with = {} if class_labels is None else {"class_labels": class_labels}

    def __call__(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """The denoised states, the shape and dtype of ``x``.

        Args:
            x: noisy states ``x0 + sigma z``, shape (batch, ...).
            sigma: the noise level.
        """
        timestep = self._timesteps_of([sigma], x.device)[0]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        state = self.from_ve(wide, sigma)
        model_input = self.scale_model_input(state, timestep).to(self.network.dtype)
        output = self.network(model_input, timestep, return_dict=False, **self.asked_with)[0]
        prediction, _ = self._parts(output, state)
        return self._edge(sigma, 0.0).denoised(state, prediction.to(wide.dtype)).to(x.dtype)
