"""NCSN: the noise-conditional score network of Song and Ermon (2019)."""

from collections.abc import Sequence
from functools import partial

# diffusers' loader looks both mixins up in the module that a pipeline's index names.
from diffusers import ModelMixin as ModelMixin
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor
from torch.nn import functional as F

from hdzoo.checks import checked, floating
from hdzoo.memory import within_memory
from hdzoo.models.inputs import LADDER_RULES
from hdzoo.models.refinenet import (
    CHANNELS,
    ConditionalInstanceNormPlus,
    RefineNetModel,
    Stage,
)
from hdzoo.models.rungs import noise_ladder

STAGES = (
    Stage("res1", "refine4", 1),
    Stage("res2", "refine3", 2, halve=True),
    Stage("res3", "refine2", 2, dilation=2),
    Stage("res4", "refine1", 2, dilation=4),
)


def mean_pool(x: Tensor) -> Tensor:
    """5x5 mean with stride 1; the zeros around the image count."""
    return F.avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=True)


class NCSNModel(RefineNetModel):
    r"""The noise-conditional score network, one norm for each rung of a ladder of noise levels.

    .. math:: s(x, \sigma_i) \approx \nabla_x \log p_{\sigma_i}(x)

    A RefineNet of four stages with widths n, 2n, 2n, 2n: the second halves the image, the third and
    fourth dilate their convolutions by 2 and 4 instead. Every norm, those of the refine blocks
    included, is an instance norm++ with parameters for each noise level, and the pools are means.
    A state dict as published loads once its prefix ``module.`` is off.

    Source: Song, Ermon, "Generative Modeling by Estimating Gradients of the Data Distribution"
    (arXiv 1907.05600), section 4.2 and appendix A. The default ladder is that of all its networks;
    base_channels is 64 for MNIST, 128 for CIFAR-10 and CelebA.

    Args:
        sample_size: height and width in pixels; recorded for samplers, any even size runs.
        in_channels: channels of the image.
        base_channels: channels n of the first stage.
        sigma_max: largest noise level, in the units of ``data_range``.
        sigma_min: smallest noise level.
        num_levels: number of noise levels, in geometric progression.
        sigma_levels: the noise levels themselves, positive and descending; overrides the three.
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

    @checked(base_channels=CHANNELS, **LADDER_RULES)
    @register_to_config
    @within_memory
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 3,
        base_channels: int = 128,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
        num_levels: int = 10,
        sigma_levels: Sequence[float] | None = None,
        centered: bool = False,
        sigma_rounding: str = "strict",
        data_range: Sequence[float] = (0.0, 1.0),
        held_out_loss: dict[str, list[float]] | None = None,
    ) -> None:
        ladder = noise_ladder(sigma_max, sigma_min, num_levels, sigma_levels)
        norm = partial(ConditionalInstanceNormPlus, len(ladder))
        super().__init__(
            in_channels,
            base_channels,
            ladder,
            STAGES,
            norm=norm,
            decoder_norm=norm,
            pool=mean_pool,
            persistent_sigmas=False,
        )

    def forward(
        self, sample: Tensor, timestep: Tensor | float | int, return_dict: bool = True
    ) -> UNet2DOutput | tuple[Tensor]:
        """The score at a noise level.

        Args:
            sample: noisy images ``x0 + sigma z``, shape (batch, in_channels, H, W), in the units of
                ``data_range``.
            timestep: class indices (integers) or noise levels (floating-point), see `rungs`.
            return_dict: whether to return a `UNet2DOutput` or a tuple.

        Returns:
            The score, in the shape and dtype of ``sample``.

        Raises:
            HDZooError: the images or the timestep do not fit.
        """
        labels = self.rungs(timestep, len(floating("sample", sample, "noisy images")))
        score = self._network(sample, labels).to(sample.dtype)
        return UNet2DOutput(sample=score) if return_dict else (score,)
