"""diffusers' `UNet2DModel` as a score network that is told the index of a noise level."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers import UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from hdzoo.checks import Many, Whole, checked, refuse
from hdzoo.errors import HDZooError
from hdzoo.memory import within_memory
from hdzoo.models.inputs import LADDER_RULES, MAX_SIDE, images
from hdzoo.models.rungs import LadderModel, noise_ladder

_OWN = ("sigma_max", "sigma_min", "num_levels", "sigma_levels", "sigma_rounding", "data_range")


class NCSNUNetModel(LadderModel):
    """A `UNet2DModel` that is told the index of a rung of a ladder, and whose output is the score.

    The network of the package diffusers-ncsn (``UNet2DModelForNCSN``), whose folders
    `HDPipeline.from_pretrained` loads.

    Args:
        unet_options: those of the `UNet2DModel`.
        sigma_max: largest noise level, in the units of ``data_range``.
        sigma_min: smallest noise level.
        num_levels: number of noise levels, in geometric progression.
        sigma_levels: the noise levels themselves, positive and descending; overrides the three.
        sigma_rounding: ``"strict"``, `check_sigmas` refuses noise levels off the ladder; or
            ``"nearest"``, they go to the nearest rung.
        data_range: lowest and highest value of a pixel of the training data.

    Raises:
        HDZooError: an option is of a wrong type or out of its range, or the network would not fit
            in memory.
    """

    prediction_type = "score"
    coordinates = "ve"
    _supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["ResnetBlock2D"]
    _repeated_blocks: ClassVar[list[str]] = ["ResnetBlock2D"]
    _keep_in_fp32_modules: ClassVar[list[str]] = ["sigmas"]

    @checked(**{name: LADDER_RULES[name] for name in _OWN})
    @register_to_config
    @within_memory
    def __init__(
        self,
        unet_options: Mapping[str, Any] | None = None,
        sigma_max: float = 10.0,
        sigma_min: float = 0.005,
        num_levels: int = 10,
        sigma_levels: Sequence[float] | None = None,
        sigma_rounding: str = "strict",
        data_range: Sequence[float] = (0.0, 1.0),
    ) -> None:
        super().__init__()
        known = inspect.signature(UNet2DModel.__init__).parameters
        defaults = {"sample_size": 32, "in_channels": 1, "out_channels": 1}
        if not isinstance(unet_options, Mapping | None):
            refuse("unet_options", unet_options, "a dict of options of UNet2DModel, or None")
        options = defaults | dict(unet_options or {})
        for name in ("sample_size", "in_channels", "out_channels"):
            size = options[name] if isinstance(options[name], list | tuple) else [options[name]]
            Many(Whole(1, MAX_SIDE), 1, 2)(f"unet_options[{name!r}]", size)
        options = {name: value for name, value in options.items() if name in known}
        try:
            self.unet = UNet2DModel(**options)
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            raise HDZooError(
                f"diffusers makes no UNet2DModel of {options}: {error}; correct unet_options"
            ) from error
        # accelerate asks each ModelMixin inside for device_map="auto".
        self.unet._no_split_modules = self._no_split_modules
        self._set_ladder(noise_ladder(sigma_max, sigma_min, num_levels, sigma_levels), True)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one image."""
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config.in_channels, height, width

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
        multiple = 2 ** (len(self.unet.config.block_out_channels) - 1)
        images(sample, self.unet.config.in_channels, multiple, type(self).__name__)
        labels = self.rungs(timestep, len(sample))
        score = self.unet(sample.to(self.dtype), labels, return_dict=False)[0].to(sample.dtype)
        return UNet2DOutput(sample=score) if return_dict else (score,)
