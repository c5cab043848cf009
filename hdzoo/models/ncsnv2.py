"""NCSNv2: the score network of Song and Ermon (2020), and its deeper variants."""

from collections.abc import Sequence
from typing import ClassVar

# diffusers' loader looks both mixins up in the module that a pipeline's index names.
from diffusers import ModelMixin as ModelMixin
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor
from torch.nn import functional as F

from hdzoo.checks import OneOf, checked, floating
from hdzoo.memory import within_memory
from hdzoo.models.inputs import LADDER_RULES
from hdzoo.models.ncsn import STAGES
from hdzoo.models.refinenet import CHANNELS, InstanceNormPlus, NoNorm, RefineNetModel, Stage
from hdzoo.models.rungs import noise_ladder

VARIANTS = {
    "standard": STAGES,
    "deeper": (
        Stage("res1", "refine5", 1),
        Stage("res2", "refine4", 2, halve=True),
        Stage("res3", "refine3", 2, halve=True),
        Stage("res4", "refine2", 4, dilation=2),
        Stage("res5", "refine1", 4, dilation=4),
    ),
    "deepest": (
        Stage("res1", "refine5", 1),
        Stage("res2", "refine4", 2, halve=True),
        Stage("res3", "refine3", 2, halve=True),
        Stage("res31", "refine31", 2, halve=True),
        Stage("res4", "refine2", 4, dilation=2),
        Stage("res5", "refine1", 4, dilation=4),
    ),
}


def max_pool(x: Tensor) -> Tensor:
    """5x5 maximum with stride 1."""
    return F.max_pool2d(x, 5, stride=1, padding=2)


class NCSNv2Model(RefineNetModel):
    r"""NCSNv2: one network for all noise levels, whose output is rescaled.

    .. math:: s(x, \sigma_i) = f(x) / \sigma_i

    A RefineNet with widths n, 2n, 2n, 2n: the second stage halves the image, the third and fourth
    dilate their convolutions by 2 and 4. Instance norm++ has one set of parameters for all noise
    levels; the refine blocks have no norms, and their pools are maxima. ``"deeper"`` (LSUN, 128
    pixels) halves in the third stage as well and ends in two dilated stages of width 4n;
    ``"deepest"`` (FFHQ, 256 pixels) has another halving stage before those. A state dict as
    published loads once its prefix ``module.`` is off; it brings the ladder with it.

    Source: Song, Ermon, "Improved Techniques for Training Score-Based Generative Models"
    (arXiv 2006.09011), technique 3 (the rescaling) and appendix B (the architecture). The default
    ladder is that of its CIFAR-10 network.

    Args:
        sample_size: height and width in pixels; recorded for samplers, any even size runs.
        in_channels: channels of the image.
        base_channels: channels n of the first stage.
        sigma_max: largest noise level, in the units of ``data_range``.
        sigma_min: smallest noise level.
        num_levels: number of noise levels, in geometric progression.
        sigma_levels: the noise levels themselves, positive and descending; overrides the three.
        variant: ``"standard"``, ``"deeper"`` or ``"deepest"``.
        centered: whether images come in [-1, 1] already; else the network maps x to 2 x - 1.
        sigma_rounding: ``"strict"``, `check_sigmas` refuses noise levels off the ladder; or
            ``"nearest"``, they go to the nearest rung.
        data_range: lowest and highest value of a pixel of the training data.
        held_out_loss: the denoising loss per dimension, ``E |sigma s + z|^2 / d``, on held-out
            data, as ``{"sigmas": [...], "loss": [...]}``; recorded by the trainer.

    Raises:
        HDZooError: an option is of a wrong type or out of its range, the noise levels are not
            positive and descending, or the network would not fit in memory.
    """

    # The loader casts what a state dict holds; half precision would make rungs coincide.
    _keep_in_fp32_modules: ClassVar[list[str]] = ["sigmas"]

    @checked(base_channels=CHANNELS, variant=OneOf(tuple(VARIANTS)), **LADDER_RULES)
    @register_to_config
    @within_memory
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 3,
        base_channels: int = 128,
        sigma_max: float = 50.0,
        sigma_min: float = 0.01,
        num_levels: int = 232,
        sigma_levels: Sequence[float] | None = None,
        variant: str = "standard",
        centered: bool = False,
        sigma_rounding: str = "strict",
        data_range: Sequence[float] = (0.0, 1.0),
        held_out_loss: dict[str, list[float]] | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            base_channels,
            noise_ladder(sigma_max, sigma_min, num_levels, sigma_levels),
            VARIANTS[variant],
            norm=InstanceNormPlus,
            decoder_norm=NoNorm,
            pool=max_pool,
            persistent_sigmas=True,
        )

    def forward(
        self, sample: Tensor, timestep: Tensor | float | int, return_dict: bool = True
    ) -> UNet2DOutput | tuple[Tensor]:
        """The score at a noise level.

        Args:
            sample: noisy images ``x0 + sigma z``, shape (batch, in_channels, H, W), in the units of
                ``data_range``.
            timestep: class indices (integers) or noise levels (floating-point), see `rungs`. The
                output is divided by the noise level of the rung.
            return_dict: whether to return a `UNet2DOutput` or a tuple.

        Returns:
            The score, in the shape and dtype of ``sample``.

        Raises:
            HDZooError: the images or the timestep do not fit.
        """
        labels = self.rungs(timestep, len(floating("sample", sample, "noisy images")))
        # Divided in the ladder's float32 and cast after, so that half precision rounds once.
        score = self._network(sample, labels) / self.sigmas[labels].view(-1, 1, 1, 1)
        score = score.to(sample.dtype)
        return UNet2DOutput(sample=score) if return_dict else (score,)
