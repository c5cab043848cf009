"""A small convolutional network as an energy of images at one noise level."""

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from hdzoo.bundled import LoadedByName
from hdzoo.checks import COUNT, NOISE_LEVEL, POSITIVE, as_float64, checked
from hdzoo.errors import HDZooError
from hdzoo.memory import within_memory
from hdzoo.models.inputs import IMAGE_RULES, images, noise_levels
from hdzoo.scores.denoising import Denoises
from hdzoo.scores.energies import HasEnergy


class ConvEnergyModel(HasEnergy, Denoises, LoadedByName, ModelMixin, ConfigMixin):
    r"""An energy of images with a little noise, at one level :math:`\sigma` of it alone.

    .. math:: E(x) = \frac{f([x])}{T} + \frac{\| x - [x] \|^2}{2 \sigma^2}

    where brackets clip to the range of the data, in which :math:`f` is trained: beyond it there is
    the noise alone. :math:`f` is four convolutions of stride 2 and two linear layers with SiLU
    between them.

    The temperature :math:`T` is what training by short runs of Langevin steps goes with. Steps
    :math:`x - \lambda \nabla f(x) + \sigma z`, as published, are Langevin steps of
    :math:`e^{-f / T}` with :math:`T = \sigma^2 / 2 \lambda`, and not of :math:`e^{-f}`. So on this
    network `AnnealedLangevinSampler` takes them, at its one level with ``step_size``
    :math:`\sigma^2 / 2`, for :math:`\sigma^2 / 2 \cdot \nabla f / T = \lambda \nabla f`. The
    default is the published :math:`\lambda = 10` and :math:`\sigma = 0.005`.

    Source: Lippe, UvA deep learning tutorial 8 (2020), after Du and Mordatch (arXiv 1903.08689).

    Args:
        sample_size: height and width of the images, in pixels.
        in_channels: channels of the image.
        hidden_channels: channels of the second convolution; the others have half as many, or twice.
        sigma: the noise level.
        temperature: :math:`T`.
        data_range: lowest and highest value of a pixel.
        held_out_loss: the denoising loss per dimension, ``E |sigma s + z|^2 / d``, on held-out
            data, as ``{"sigmas": [...], "loss": [...]}``; recorded by the trainer.

    Raises:
        HDZooError: an option is of a wrong type or out of its range, or the network would not fit
            in memory.
    """

    coordinates = "ve"
    config_name = "config.json"

    @checked(**IMAGE_RULES, hidden_channels=COUNT, sigma=NOISE_LEVEL, temperature=POSITIVE)
    @register_to_config
    @within_memory
    def __init__(
        self,
        sample_size: int = 28,
        in_channels: int = 1,
        hidden_channels: int = 32,
        sigma: float = 0.005,
        temperature: float = 1.25e-6,
        data_range: tuple[float, float] = (-1.0, 1.0),
        held_out_loss: dict[str, list[float]] | None = None,
    ) -> None:
        super().__init__()
        if hidden_channels % 2:
            raise HDZooError(
                f"hidden_channels is {hidden_channels}; half of it must be a whole number"
            )
        # The first padding is wide, as published: 28 pixels become 16.
        side = (sample_size + 3) // 2 + 1
        for _ in range(3):
            side = (side + 1) // 2
        half, full, twice = hidden_channels // 2, hidden_channels, 2 * hidden_channels
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, half, 5, stride=2, padding=4),
            nn.SiLU(),
            nn.Conv2d(half, full, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(full, twice, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(twice, twice, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(twice * side**2, twice),
            nn.SiLU(),
            nn.Linear(twice, 1),
        )

    @property
    def sigmas(self) -> torch.Tensor:
        """The one noise level, shape (1,)."""
        return torch.tensor([self.config["sigma"]])

    def check_sigmas(self, sigmas: Sequence[float] | torch.Tensor) -> None:
        """Refuses noise levels other than the network's.

        Args:
            sigmas: the noise levels that a sampler is about to ask for.

        Raises:
            HDZooError: one of them is another, by more than 0.1 %.
        """
        own = self.config["sigma"]
        others = [s for s in as_float64("sigmas", sigmas).flatten() if abs(s - own) > 1e-3 * own]
        if others:
            raise HDZooError(
                f"the sampler asks for the noise level {others[0]:g}, and this network knows only "
                f"{own:g}; take a sampler at that level (sigma={own:g}, or sigmas=[{own:g}])"
            )

    def energy(self, sample: torch.Tensor, timestep: torch.Tensor | float) -> torch.Tensor:
        """The energy, up to a constant.

        Args:
            sample: images, shape (batch, in_channels, sample_size, sample_size), in the units of
                ``data_range``.
            timestep: the noise level, or 0, its number. Checked, and of no effect.

        Returns:
            Shape (batch,), in the dtype of ``sample``.

        Raises:
            HDZooError: the images or the timestep do not fit.
        """
        config, name = self.config, type(self).__name__
        images(sample, config["in_channels"], 1, name)
        side = config["sample_size"]
        if tuple(sample.shape[2:]) != (side, side):
            raise HDZooError(
                f"sample has the shape {tuple(sample.shape)}; this {name} needs (batch, "
                f"{config['in_channels']}, {side}, {side})"
            )
        noise_levels(timestep, len(sample), sample.device, 1)
        inside = sample.clamp(*config["data_range"])
        values: torch.Tensor = self.layers(inside.to(self.dtype))[:, 0]
        beyond = (sample - inside).square().flatten(1).sum(1)
        return values.to(sample.dtype) / config["temperature"] + beyond / (2 * config["sigma"] ** 2)
