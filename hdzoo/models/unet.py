"""A preconditioned U-Net denoiser: diffusers' `UNet2DModel` as a score network."""

from typing import ClassVar

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers import SchedulerMixin as SchedulerMixin  # diffusers' loader looks it up here
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch.nn import functional as F

from hdzoo.bundled import LoadedByName
from hdzoo.checks import (
    COUNT,
    NOISE_LEVEL,
    Flag,
    Interval,
    Many,
    Maybe,
    Number,
    Whole,
    checked,
    shown,
)
from hdzoo.errors import HDZooError
from hdzoo.memory import within_memory
from hdzoo.models.inputs import IMAGE_RULES, images, noise_levels
from hdzoo.models.ranges import check_range
from hdzoo.scores.denoising import Denoises

# Channels of an attention head, which diffusers chooses.
HEAD = 8

RULES = IMAGE_RULES | {
    "patch_size": COUNT,
    "block_out_channels": Many(COUNT, most=16),
    "layers_per_block": Whole(1, 256),
    "norm_num_groups": COUNT,
    "add_attention": Flag(),
    "dropout": Number(low=0, below=1),
    "guide_block_out_channels": Maybe(Many(COUNT, most=16)),
    "guidance_scale": Number(low=1),
    "guidance_interval": Interval(),
    "data_mean": Number(),
    "data_std": NOISE_LEVEL,
    "sigma_min": NOISE_LEVEL,
    "sigma_max": NOISE_LEVEL,
}


class UNetScoreModel(Denoises, LoadedByName, ModelMixin, ConfigMixin):
    r"""`UNet2DModel` behind a pixel-unshuffle, preconditioned over a continuous range of noise.

    .. math::
        D(x, \sigma) = \mu + c_{skip} (x - \mu) + c_{out} F(c_{in} (x - \mu), t(\sigma)), \quad
        c_{skip} = \frac{\sigma_d^2}{\sigma^2 + \sigma_d^2}, \quad
        c_{out} = \frac{\sigma \sigma_d}{\sqrt{\sigma^2 + \sigma_d^2}}, \quad
        c_{in} = \frac{1}{\sqrt{\sigma^2 + \sigma_d^2}}

    with the data's mean :math:`\mu` and standard deviation :math:`\sigma_d`: :math:`D` is the
    exact denoiser of :math:`N(\mu, \sigma_d^2)` when ``F = 0``. :math:`t = \log(\sigma) / 4`.
    The preconditioning is computed in the dtype of the
    input, so that a half-precision network does not round the state.

    With a guide, a lesser network that makes the same errors and more of them, :math:`F` is

    .. math:: F_{guide} + w (F - F_{guide})

    at noise levels in ``guidance_interval``, with :math:`w` the ``guidance_scale``. It is not the
    denoiser of any data then: it leads to likelier samples than the network's own, and to fewer
    kinds of them. `hdzoo.autoguide` puts the two together.

    Source: Karras, Aittala, Aila, Laine (arXiv 2206.00364), table 1, column "Ours", with the mean
    subtracted. Guidance: Karras et al., "Guiding a diffusion model with a bad version of itself"
    (arXiv 2406.02507); its interval: Kynkäänniemi et al. (arXiv 2404.07724).

    Args:
        sample_size: height and width in pixels; a multiple of ``patch_size`` times
            ``2 ** (len(block_out_channels) - 1)``.
        in_channels: channels of the image.
        patch_size: side of the blocks that the pixel-unshuffle folds into channels; 1 for none.
        block_out_channels: width at each resolution.
        layers_per_block: residual blocks at each resolution.
        norm_num_groups: groups of the group norms.
        add_attention: self-attention in the middle block.
        dropout: dropout probability in the residual blocks.
        data_mean: mean of the pixels, in the units of ``data_range``.
        data_std: their standard deviation.
        sigma_min: smallest noise level that the network is trained for.
        sigma_max: largest one; the same for a network of a single level.
        data_range: lowest and highest value of a pixel.
        held_out_loss: the denoising loss per dimension, ``E |sigma s + z|^2 / d``, on held-out
            data, as ``{"sigmas": [...], "loss": [...]}``; recorded by the trainer.
        guide_block_out_channels: width of the guide at each resolution; it has one residual block
            at each, and no attention. None for no guide.
        guidance_scale: 1, which leaves the guide out, or more.
        guidance_interval: the lowest and the highest noise level with guidance.

    Raises:
        HDZooError: an option is of a wrong type or out of its range, or the network would not fit
            in memory.
    """

    prediction_type = "sample"
    coordinates = "ve"
    config_name = "config.json"
    _supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["ResnetBlock2D"]
    _repeated_blocks: ClassVar[list[str]] = ["ResnetBlock2D"]

    @checked(**RULES)
    @register_to_config
    @within_memory
    def __init__(
        self,
        sample_size: int = 28,
        in_channels: int = 1,
        patch_size: int = 2,
        block_out_channels: tuple[int, ...] = (64, 128),
        layers_per_block: int = 1,
        norm_num_groups: int = 8,
        add_attention: bool = False,
        dropout: float = 0.0,
        data_mean: float = 0.5,
        data_std: float = 0.5,
        sigma_min: float = 0.01,
        sigma_max: float = 10.0,
        data_range: tuple[float, float] = (0.0, 1.0),
        held_out_loss: dict[str, list[float]] | None = None,
        guide_block_out_channels: tuple[int, ...] | None = None,
        guidance_scale: float = 1.0,
        guidance_interval: tuple[float, float] = (0.1, 5.0),
    ) -> None:
        super().__init__()
        if not sigma_min <= sigma_max:
            raise HDZooError(
                f"sigma_min is {sigma_min:g} and sigma_max is {sigma_max:g}; the smallest noise "
                "level is not above the largest"
            )
        self.unet = self._inner("block_out_channels", layers_per_block, add_attention, dropout)
        self.guide = None
        if guide_block_out_channels is None and guidance_scale > 1:
            raise HDZooError(
                f"guidance_scale is {guidance_scale:g}, and there is no guide; give "
                "guide_block_out_channels too, or put two networks together by hdzoo.autoguide"
            )
        if guide_block_out_channels is not None:
            if self.prediction_type != "sample":
                raise HDZooError(
                    f"guide_block_out_channels is {shown(guide_block_out_channels)}, and "
                    f"{type(self).__name__} is no denoiser that could be guided; leave it out, or "
                    "take UNetScoreModel"
                )
            self.guide = self._inner("guide_block_out_channels")

    def _inner(
        self, widths: str, layers: int = 1, attention: bool = False, dropout: float = 0.0
    ) -> UNet2DModel:
        """A U-Net behind the pixel-unshuffle, of the widths in an option of that name."""
        config = self.config
        channels, groups = config[widths], config.norm_num_groups
        factor = config.patch_size * 2 ** (len(channels) - 1)
        if config.sample_size % factor:
            raise HDZooError(
                f"sample_size {config.sample_size} is no multiple of {factor}, which is patch_size "
                f"{config.patch_size} times a halving for each of {widths} but the last; choose "
                f"another sample_size or patch_size, or fewer {widths}"
            )
        uneven = [width for width in channels if width % groups]
        if uneven:
            raise HDZooError(
                f"{widths} has {uneven[0]}, no multiple of norm_num_groups, {groups}; choose others"
            )
        if attention and channels[-1] < HEAD:
            raise HDZooError(
                f"{widths} ends with {channels[-1]}; for attention it must end "
                f"with at least {HEAD}, the channels of a head"
            )
        folded = config.in_channels * config.patch_size**2
        unet = UNet2DModel(
            sample_size=config.sample_size // config.patch_size,
            in_channels=folded,
            out_channels=folded,
            block_out_channels=tuple(channels),
            down_block_types=("DownBlock2D",) * len(channels),
            up_block_types=("UpBlock2D",) * len(channels),
            layers_per_block=layers,
            norm_num_groups=groups,
            add_attention=attention,
            dropout=dropout,
        )
        # accelerate asks each ModelMixin inside for device_map="auto".
        unet._no_split_modules = self._no_split_modules
        return unet

    @property
    def guided(self) -> bool:
        """Whether a guide has a say, so that it is the denoiser of no data."""
        return self.guide is not None and self.config.guidance_scale > 1

    def check_sigmas(self, sigmas: list[float]) -> None:
        """Refuses noise levels outside the range that the network was trained for.

        Args:
            sigmas: the noise levels that a sampler is about to ask for.

        Raises:
            HDZooError: one of them is outside ``[sigma_min, sigma_max]``.
        """
        check_range(sigmas, self.config.sigma_min, self.config.sigma_max)

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor | float, return_dict: bool = True
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        """Denoises.

        Args:
            sample: noisy images ``x0 + sigma z``, shape (batch, in_channels, sample_size,
                sample_size), in the units of ``data_range``.
            timestep: the noise level sigma: a number, a scalar tensor, or one for each sample.
            return_dict: whether to return a `UNet2DOutput` or a tuple.

        Returns:
            The denoised images, in the shape and dtype of ``sample``.

        Raises:
            HDZooError: the images or the timestep do not fit.
        """
        centred, scale, sigma, output = self._evaluate(sample, timestep)
        sigma_data = self.config.data_std
        denoised = self.config.data_mean + (sigma_data * scale) ** 2 * centred
        denoised = denoised + (sigma * sigma_data * scale) * output
        return UNet2DOutput(sample=denoised) if return_dict else (denoised,)

    def _evaluate(
        self, sample: torch.Tensor, timestep: torch.Tensor | float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """``x - mu``, ``c_in``, ``sigma`` and ``F(c_in (x - mu), t)``."""
        config = self.config
        multiple = config.patch_size * 2 ** (len(config.block_out_channels) - 1)
        images(sample, config.in_channels, multiple, type(self).__name__)
        sigma = noise_levels(timestep, len(sample), sample.device)
        sigma = sigma.to(sample.dtype).view(-1, 1, 1, 1)
        scale = torch.rsqrt(sigma**2 + config.data_std**2)
        centred = sample - config.data_mean
        time = sigma.flatten().log() / 4
        folded = F.pixel_unshuffle((centred * scale).to(self.dtype), config.patch_size)
        # One noise level for the whole batch is embedded once for each sample by UNet2DModel.
        time = time if time.numel() > 1 else time[0]
        output = self.unet(folded, time, return_dict=False)[0]
        if self.guided:
            output = self._guided(output, folded, time, sigma)
        output = F.pixel_shuffle(output, config.patch_size).to(sample.dtype)
        return centred, scale, sigma, output

    def _guided(
        self, output: torch.Tensor, folded: torch.Tensor, time: torch.Tensor, sigma: torch.Tensor
    ) -> torch.Tensor:
        """The output away from that of the guide, at noise levels of the interval."""
        if self.training and torch.is_grad_enabled():
            raise HDZooError(
                "a network and its guide are trained each by itself, and this one has a guide; "
                "train one without, then put them together by hdzoo.autoguide"
            )
        assert self.guide is not None
        low, high = self.config.guidance_interval
        inside = (sigma >= low) & (sigma <= high)
        # On another device they are not read, for that would wait for it.
        if sigma.is_cpu and not inside.any():
            return output
        weight = torch.where(inside, self.config.guidance_scale - 1, 0.0).to(output.dtype)
        lesser = self.guide(folded, time, return_dict=False)[0]
        return output + weight * (output - lesser)
