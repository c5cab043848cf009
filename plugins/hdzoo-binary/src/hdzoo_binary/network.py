"""A U-Net that denoises binary images."""

from typing import ClassVar

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers import SchedulerMixin as SchedulerMixin  # diffusers' loader looks it up here
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch.nn import functional as F

from hdzoo import HDZooError
from hdzoo.checks import COUNT, NOISE_LEVEL, Many, Whole, checked
from hdzoo.memory import within_memory
from hdzoo.models.inputs import images, noise_levels
from hdzoo.models.ranges import check_range
from hdzoo.scores.denoising import Denoises


class BinaryUNetModel(Denoises, ModelMixin, ConfigMixin):
    r"""`UNet2DModel` behind a pixel-unshuffle, as the posterior mean of signs.

    What a noisy image tells of each sign :math:`x_{0,i}` is half its log odds, :math:`\ell = x /
    \sigma^2`, whatever the noise level and the number of measurements that :math:`x` is the mean
    of; the posterior depends on nothing else. So the network is given that, and no noise level:

    .. math:: E[x_0 | x] = \tanh(\ell + F(\tanh \ell)).

    It is the exact denoiser of independent signs where ``F`` is constant, and
    :math:`2 (\ell + F)` are the log odds that cross-entropy trains.

    Args:
        sample_size: height and width in pixels; a multiple of ``patch_size`` times
            ``2 ** (len(block_out_channels) - 1)``.
        in_channels: channels of the image.
        patch_size: side of the blocks that the pixel-unshuffle folds into channels.
        block_out_channels: width at each resolution.
        layers_per_block: residual blocks at each resolution.
        norm_num_groups: groups of the group norms.
        sigma_min: smallest noise level that the network is trained for.
        sigma_max: largest one.

    Raises:
        HDZooError: an option is out of its range, or sizes do not go together.
    """

    prediction_type = "sample"
    coordinates = "ve"
    config_name = "config.json"
    _no_split_modules: ClassVar[list[str]] = ["ResnetBlock2D"]

    @checked(
        sample_size=COUNT,
        in_channels=COUNT,
        patch_size=COUNT,
        block_out_channels=Many(COUNT, most=16),
        layers_per_block=Whole(1, 256),
        norm_num_groups=COUNT,
        sigma_min=NOISE_LEVEL,
        sigma_max=NOISE_LEVEL,
    )
    @register_to_config
    @within_memory
    def __init__(
        self,
        sample_size: int = 28,
        in_channels: int = 1,
        patch_size: int = 2,
        block_out_channels: tuple[int, ...] = (24, 48),
        layers_per_block: int = 1,
        norm_num_groups: int = 8,
        sigma_min: float = 0.4,
        sigma_max: float = 3.0,
        data_range: tuple[float, float] = (-1.0, 1.0),
    ) -> None:
        super().__init__()
        factor = patch_size * 2 ** (len(block_out_channels) - 1)
        uneven = [width for width in block_out_channels if width % norm_num_groups]
        if sample_size % factor or uneven:
            raise HDZooError(
                f"sample_size is {sample_size}, which must be a multiple of {factor} (patch_size "
                "times a halving for each width but the first), and block_out_channels is "
                f"{list(block_out_channels)}, all multiples of norm_num_groups, {norm_num_groups}"
            )
        if not sigma_min < sigma_max:
            raise HDZooError(f"sigma_min is {sigma_min:g}; it must be below sigma_max, {sigma_max}")
        channels = in_channels * patch_size**2
        self.unet = UNet2DModel(
            sample_size=sample_size // patch_size,
            in_channels=channels,
            out_channels=channels,
            layers_per_block=layers_per_block,
            block_out_channels=tuple(block_out_channels),
            down_block_types=("DownBlock2D",) * len(block_out_channels),
            up_block_types=("UpBlock2D",) * len(block_out_channels),
            norm_num_groups=norm_num_groups,
            add_attention=False,
        )

    def check_sigmas(self, sigmas: list[float] | torch.Tensor) -> None:
        """Refuses noise levels outside ``[sigma_min, sigma_max]``."""
        check_range(sigmas, self.config.sigma_min, self.config.sigma_max)

    def half_log_odds(self, sample: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        r"""Half the posterior log odds of each sign, :math:`\operatorname{artanh} E[x_0 | x]`.

        Args:
            sample: noisy signs, or means of several, shape (batch, channels, height, width).
            sigma: the noise level, shape (1,) or (batch,).
        """
        told = sample / sigma.to(sample.dtype).view(-1, 1, 1, 1) ** 2
        folded = F.pixel_unshuffle(told.tanh().to(self.dtype), self.config.patch_size)
        output = self.unet(folded, 0, return_dict=False)[0]
        return told + F.pixel_shuffle(output, self.config.patch_size).to(sample.dtype)

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor | float, return_dict: bool = True
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        """The posterior mean of the signs.

        Args:
            sample: noisy signs, or means of several, shape (batch, in_channels, sample_size,
                sample_size).
            timestep: the noise level sigma: a number, a scalar tensor, or one for each sample.
            return_dict: whether to return a `UNet2DOutput` or a tuple.

        Returns:
            In (-1, 1), in the shape and dtype of ``sample``.

        Raises:
            HDZooError: the images or the timestep do not fit.
        """
        config = self.config
        multiple = config.patch_size * 2 ** (len(config.block_out_channels) - 1)
        images(sample, config.in_channels, multiple, type(self).__name__)
        sigma = noise_levels(timestep, len(sample), sample.device)
        denoised = self.half_log_odds(sample, sigma).tanh()
        return UNet2DOutput(sample=denoised) if return_dict else (denoised,)
