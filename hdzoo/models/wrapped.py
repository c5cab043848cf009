"""Denoisers of other libraries as score networks."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers import SchedulerMixin as SchedulerMixin  # diffusers' loader looks it up here
from diffusers.configuration_utils import register_to_config
from diffusers.models.unets.unet_2d import UNet2DOutput

from hdzoo.checks import (
    COUNT,
    POSITIVE,
    Interval,
    Many,
    Maybe,
    Number,
    OneOf,
    checked,
    floating,
    shown,
)
from hdzoo.errors import HDZooError
from hdzoo.models.inputs import noise_levels
from hdzoo.models.ranges import check_range
from hdzoo.scores.conversions import PREDICTION_TYPES
from hdzoo.scores.denoising import Denoises


class WrappedModel(Denoises, ModelMixin, ConfigMixin):
    """A function of a state and a noise level as a score network; made by `wrap`.

    Its weights, if it has any, move with it. It is not saved, for code cannot be.
    """

    coordinates = "ve"
    ignore_for_config: ClassVar[list[str]] = ["denoiser"]

    @checked(
        sigma_min=POSITIVE,
        sigma_max=POSITIVE,
        sample_shape=Many(COUNT, most=16),
        predicts=OneOf(PREDICTION_TYPES),
        data_range=Maybe(Interval()),
        data_mean=Maybe(Number()),
    )
    @register_to_config
    def __init__(
        self,
        denoiser: Callable[..., Any],
        sigma_min: float,
        sigma_max: float,
        sample_shape: Sequence[int],
        predicts: str = "sample",
        data_range: Sequence[float] | None = None,
        data_mean: float | None = None,
    ) -> None:
        super().__init__()
        if not callable(denoiser):
            raise HDZooError(
                f"denoiser is {shown(denoiser)}; it must be a function or a module, called as "
                "denoiser(x, sigma)"
            )
        if not sigma_min <= sigma_max:
            raise HDZooError(
                f"sigma_min is {sigma_min:g} and sigma_max is {sigma_max:g}; the smallest noise "
                "level is not above the largest"
            )
        self.denoiser = denoiser
        schedule = getattr(denoiser, "schedule", None)
        self.schedule = schedule if callable(schedule) else None
        self.prediction_type = predicts
        if data_mean is None:
            low, high = data_range or (0.0, 0.0)
            self.register_to_config(data_mean=(low + high) / 2)
        # So that the device and the dtype of one without weights are known.
        self.register_buffer("anchor", torch.zeros(()), persistent=False)
        if self.schedule is not None:
            self._check_schedule()

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return tuple(self.config["sample_shape"])

    def check_sigmas(self, sigmas: Any) -> None:
        """Refuses noise levels outside ``[sigma_min, sigma_max]``."""
        check_range(sigmas, self.config["sigma_min"], self.config["sigma_max"])

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor | float, return_dict: bool = True
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        """What the denoiser predicts.

        Args:
            sample: noisy states ``x0 + sigma z``, shape (batch, *sample_shape).
            timestep: the noise level sigma: a number, a scalar tensor, or one for each sample.
            return_dict: whether to return a `UNet2DOutput` or a tuple.

        Raises:
            HDZooError: the states do not fit, or the denoiser returns no such tensor.
        """
        floating("sample", sample, "noisy states")
        if tuple(sample.shape[1:]) != self.sample_shape:
            raise HDZooError(
                f"sample has the shape {tuple(sample.shape)}; this denoiser needs "
                f"(batch, {', '.join(map(str, self.sample_shape))})"
            )
        sigma = noise_levels(timestep, len(sample), sample.device).expand(len(sample))
        weights = self.parameters() if isinstance(self.denoiser, torch.nn.Module) else ()
        dtype = next((w.dtype for w in weights if w.is_floating_point()), sample.dtype)
        scale, told = torch.ones_like(sigma), sigma
        if self.schedule is not None:
            told = self._time_of(sigma)
            scale = self.schedule(told)[0]
        scale = scale.view(-1, *[1] * (sample.ndim - 1)).to(sample.dtype)
        output = self.denoiser((scale * sample).to(dtype), told.to(dtype))
        for name in ("mean", "sample"):
            if not isinstance(output, torch.Tensor):
                output = getattr(output, name, output)
        shape = getattr(output, "shape", None)
        if not isinstance(output, torch.Tensor) or shape != sample.shape:
            raise HDZooError(
                f"the denoiser returns {shown(output)} for states of the shape "
                f"{tuple(sample.shape)}; it must return a tensor of that shape, or an object that "
                "has one as its mean or sample"
            )
        output = output.to(sample.dtype)
        return UNet2DOutput(sample=output) if return_dict else (output,)

    def _noise_over_signal(self, time: torch.Tensor) -> torch.Tensor:
        assert self.schedule is not None
        alpha, sigma = self.schedule(time)
        return sigma / alpha

    def _time_of(self, sigma: torch.Tensor) -> torch.Tensor:
        """The time at which a schedule's noise is ``sigma`` times its signal, by bisection."""
        low = torch.zeros_like(sigma, dtype=torch.float64)
        high = torch.ones_like(low)
        for _ in range(50):
            middle = (low + high) / 2
            below = self._noise_over_signal(middle) < sigma
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def _check_schedule(self) -> None:
        config = self.config
        if config["predicts"] != "sample":
            raise HDZooError(
                f"predicts is {config['predicts']!r}, and a denoiser with a schedule predicts "
                "'sample'"
            )
        ends = self._noise_over_signal(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        check_range([config["sigma_max"], config["sigma_min"]], *ends)

    def save_pretrained(self, save_directory: Any, **_: Any) -> NoReturn:
        """Refuses: the denoiser is code."""
        raise HDZooError(
            f"a wrapped {type(self.denoiser).__name__} cannot be saved, for it is code; save its "
            "weights by its own library, and wrap it again"
        )


def wrap(
    denoiser: Callable[..., Any],
    *,
    sigma_min: float,
    sigma_max: float,
    sample_shape: Sequence[int],
    predicts: str = "sample",
    data_range: Sequence[float] | None = (-1.0, 1.0),
    data_mean: float | None = None,
) -> WrappedModel:
    r"""A denoiser, or a score, as a network for `HDPipeline`.

    .. code-block:: python

        model = hdzoo.wrap(denoiser, sigma_min=0.01, sigma_max=80.0, sample_shape=(3, 32, 32))
        pipe = HDPipeline(model, AnnealedLangevinSampler(80.0, 0.01, prediction_type="sample"))

    It is called as ``denoiser(x, sigma)``, ``x`` being :math:`x_0 + \sigma z` of shape (batch,
    *sample_shape) and ``sigma`` of shape (batch,): k-diffusion's and deepinv's denoisers are such,
    a function and a `torch.nn.Module` may be. It returns a tensor of the shape of ``x``, or an
    object that has one as its ``mean`` or its ``sample``. One of azula, which has a ``schedule`` of
    signal and noise, is called as ``denoiser(x_t, t)`` with the time at which
    :math:`\sigma_t / \alpha_t` is the noise level, and :math:`x_t = \alpha_t x`.

    The way out is ``model.denoise(x, sigma)``, which every network of hdzoo has.

    Args:
        denoiser: what is called.
        sigma_min: the smallest noise level that it knows, in the units of ``x``.
        sigma_max: the largest one.
        sample_shape: the shape of one sample, such as (channels, height, width).
        predicts: what it returns, one of `hdzoo.scores.conversions.PREDICTION_TYPES`: ``"sample"``,
            the denoised state; ``"epsilon"``, the noise; ``"score"``...
        data_range: the lowest and the highest value of a pixel; None for samples that are no
            images. Without effect where ``sample_shape`` is none of an image.
        data_mean: the mean of the data, about which chains start; the middle of ``data_range``, or
            0, by default.

    Returns:
        A network that `HDPipeline` takes. It cannot be saved.

    Raises:
        HDZooError: an argument is out of its range.
    """
    if len(tuple(sample_shape)) != 3:
        data_range = None
    # By name: diffusers miscounts positions where an argument is not recorded.
    return WrappedModel(
        denoiser=denoiser,
        sigma_min=sigma_min,
        sigma_max=sigma_max,
        sample_shape=sample_shape,
        predicts=predicts,
        data_range=data_range,
        data_mean=data_mean,
    )
