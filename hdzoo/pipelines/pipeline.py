"""`HDPipeline`: a score network and a sampler."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from threading import Lock
from typing import Any

import torch
from diffusers import ImagePipelineOutput
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor

from hdzoo.checks import NOISE_LEVEL, Flag, floating
from hdzoo.errors import HDZooError
from hdzoo.generators import check_generator
from hdzoo.pipelines import checks
from hdzoo.pipelines.denoiser import NetworkDenoiser
from hdzoo.pipelines.labels import check_class_labels
from hdzoo.pipelines.pictures import read_pictures, resize
from hdzoo.pipelines.sigma_space import SigmaSpaceChain
from hdzoo.pipelines.stored import StoredPipeline
from hdzoo.pipelines.walk import TENSOR_INPUTS, Callback, Walk, check_finite, evaluating
from hdzoo.samplers.ladders import whole_number
from hdzoo.samplers.noise import Generator, Noise

_SETTING = Lock()
OUTPUT_TYPES = ("pil", "np", "pt", "latent")


class HDPipeline(StoredPipeline):
    """Draws samples from a score network with a sampler.

    Args:
        unet: the score network: `hdzoo.models`, or diffusers' `UNet2DModel`. Its pixels' range is
            its config's ``data_range``, (-1, 1) if it says nothing, as in diffusers; None for a
            model of points that are no images (`hdzoo.targets.analytic`).
        scheduler: the sampler: `hdzoo.samplers`, or one that a plugin brings.

    Attributes:
        starter: the sampler that makes what a sampler at a single noise level starts from: the
            model's own, as `from_pretrained` has loaded it; None for a pipeline put together from
            its parts.
    """

    model_cpu_offload_seq = "unet"
    _callback_tensor_inputs = TENSOR_INPUTS

    def __init__(self, unet: ModelMixin, scheduler: SchedulerMixin) -> None:
        super().__init__()
        for name, part in (("unet", unet), ("scheduler", scheduler)):
            if part is not None:
                checks.check_part(name, part)
        self.register_modules(unet=unet, scheduler=scheduler)
        self.starter: Any = None
        self._num_timesteps, self._interrupt = 0, False

    def __setattr__(self, name: str, value: Any) -> None:
        # None is one that is left out for now, as in diffusers.
        if name in ("unet", "scheduler") and value is not None:
            checks.check_part(name, value)
        super().__setattr__(name, value)

    @property
    def image_processor(self) -> VaeImageProcessor:
        """What turns pictures into tensors in [0, 1], of the network's channels, and back."""
        channels = self.sample_shape[0]
        return VaeImageProcessor(
            vae_scale_factor=1,
            do_normalize=False,
            do_convert_rgb=channels == 3,
            do_convert_grayscale=channels == 1,
        )

    @property
    def data_range(self) -> tuple[float, float] | None:
        """The lowest and the highest value of a pixel, in the network's units; None where the
        samples are no images."""
        data_range = self.unet.config.get("data_range", (-1.0, 1.0))
        return None if data_range is None else (data_range[0], data_range[1])

    @property
    def data_mean(self) -> float:
        """The mean of the data, in the network's units, about which chains start."""
        low, high = self.data_range or (0.0, 0.0)
        return float(self.unet.config.get("data_mean", (low + high) / 2))

    @property
    def data_std(self) -> float | None:
        """The standard deviation of the data, in the network's units; None if it records none."""
        found = self.unet.config.get("data_std")
        return None if found is None else float(found)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        if hasattr(self.unet, "sample_shape"):
            return tuple(self.unet.sample_shape)
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config.in_channels, height, width

    @property
    def num_timesteps(self) -> int:
        """Network evaluations of the last call."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Whether a callback has asked to stop, by ``pipe._interrupt = True``."""
        return self._interrupt

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int | None = None,
        num_inference_steps: int | None = None,
        generator: Generator = None,
        latents: torch.Tensor | None = None,
        image: PipelineImageInput | None = None,
        sigmas: list[float] | None = None,
        output_type: str | None = None,
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Iterable[str] = ("latents",),
        samples_every: int | None = None,
        class_labels: int | Sequence[int] | torch.Tensor | None = None,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draws samples.

        Each call works on a copy of the scheduler, so that several may run at once. A sampler at a
        single noise level has to start from samples: where no ``latents`` or ``image`` are given,
        `starter` makes them first, at the cost of its own default number of network evaluations,
        on top of ``num_inference_steps``.

        Args:
            batch_size: how many; 1, or as many as ``latents`` or ``image`` has, by default.
            num_inference_steps: network evaluations, all told; the sampler's own by default.
            generator: one generator, or one for each sample (`sample_generators`): then sample i
                does not depend on the batch it is in. A `GreatCircle` is one too
                (`interpolated_generators`): then samples turn into one another.
            latents: the chain's first state, shape (batch_size, *sample_shape), in the network's
                units and coordinates and at the noise level ``scheduler.sigmas[0]``; drawn by
                default.
            image: clean images to start from instead: noise of that level is added to them. PIL
                images, turned as their EXIF orientation says, or arrays or tensors in [0, 1];
                resized, with a warning, if the network's size is another.
            sigmas: the noise level of each evaluation, instead of the sampler's ladder.
            output_type: ``"pil"``, ``"np"`` (batch, height, width, channels) or ``"pt"`` (batch,
                channels, height, width), both in [0, 1], or ``"latent"``: the raw state, float32,
                in the network's units. ``"pil"`` by default, and ``"latent"`` for a model whose
                samples are no images.
            return_dict: whether to return an `ImagePipelineOutput` or a tuple.
            callback_on_step_end: called as ``f(pipeline, step, timestep, tensors)`` after each
                step; may return other ``latents``, and set ``pipeline._interrupt`` to end there.
            callback_on_step_end_tensor_inputs: what the callback is given, by name: ``"latents"``,
                the next state; ``"denoised"``, the denoised state, in the network's units, and
                ``"score"``, in VE coordinates, both at the state that the network was asked at.
            samples_every: return, instead of the last state, the denoised state after each so many
                evaluations: many samples of one walk, as in walk-jump sampling. Those of one chain
                follow one another: ``batch_size * (num_inference_steps // samples_every)`` of them.
            class_labels: for a class-conditional network, one class for all samples or one for
                each: whole numbers below the network's ``num_class_embeds``.

        Returns:
            The samples, as ``.images``.

        Raises:
            HDZooError: an argument is out of its range, the sampler does not go with the network,
                or the samples are not finite.
        """
        checks.check_part("unet", self.unet)
        checks.check_part("scheduler", self.scheduler)
        return_dict = Flag()("return_dict", return_dict)
        if output_type is None:
            output_type = "latent" if self.data_range is None else "pil"
        clean = None if image is None else self._clean(image)
        batch_size = self._check(batch_size, generator, latents, clean, output_type)
        # It goes through all modules.
        device = self._execution_device
        labels = check_class_labels(self.unet, class_labels, batch_size, device)
        scheduler = self._ready_scheduler(num_inference_steps, sigmas, device)
        walk = Walk(
            self,
            scheduler,
            callback_on_step_end,
            callback_on_step_end_tensor_inputs,
            samples_every,
            labels,
        )
        if latents is None and clean is None and not getattr(scheduler, "starts_from_noise", True):
            clean = self._starting_samples(
                HDPipeline, batch_size=batch_size, generator=generator, class_labels=labels
            )
        first = self._first_state(scheduler, batch_size, generator, latents, clean, device)
        states = walk.run(first, generator)
        images = self.decode(check_finite(states), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _check(
        self,
        batch_size: int | None,
        generator: Generator,
        latents: torch.Tensor | None,
        clean: torch.Tensor | None,
        output_type: str,
    ) -> int:
        """Refuses what cannot work before anything is computed; returns the batch size."""
        if output_type not in OUTPUT_TYPES:
            raise HDZooError(
                f"unknown output_type {output_type!r}; allowed are {', '.join(OUTPUT_TYPES)}"
            )
        if output_type != "latent" and self.data_range is None:
            raise HDZooError(
                f"output_type is {output_type!r}, and the samples of {type(self.unet).__name__} "
                "are no images; use 'latent'"
            )
        if latents is not None and clean is not None:
            raise HDZooError("both latents and image are given; give one of them")
        given = 1 if batch_size is None else whole_number(batch_size, "batch_size")
        for name, start in (("latents", latents), ("image", clean)):
            if start is not None:
                shape = ", ".join(map(str, self.sample_shape))
                floating(name, start, f"of shape (batch_size, {shape})")
                given = len(start) if start.ndim else 0
                if not given or tuple(start.shape[1:]) != self.sample_shape:
                    raise HDZooError(
                        f"{name} has the shape {tuple(start.shape)}; the network needs "
                        f"(batch_size, {shape})"
                    )
        if batch_size is not None and batch_size != given:
            raise HDZooError(
                f"batch_size is {batch_size}, and {given} latents or images are given; leave one "
                "of them out"
            )
        check_generator(generator, given)
        return given

    def check_chain(self, num_inference_steps: int | None = None) -> None:
        """Refuses a scheduler that does not go with the network, as a call would, at no cost.

        Args:
            num_inference_steps: of the call.

        Raises:
            HDZooError: it does not, or has no chain of that length.
        """
        self._ready_scheduler(num_inference_steps, None, self._execution_device)

    def _ready_scheduler(
        self, num_inference_steps: int | None, sigmas: list[float] | None, device: torch.device
    ) -> Any:
        """A copy of the scheduler with its chain fixed, once it is known to go with the network."""
        starter = () if self.starter is None else (self.starter.config,)
        told = checks.network_options(self.unet, *starter)
        if checks.diffusers_names(self.scheduler):
            told = told or checks.network_options(self.unet, self.scheduler.config)
            if checks.check_diffusers_scheduler(self.scheduler, self.unet, told):
                translated = SigmaSpaceChain(
                    self.scheduler, self.unet, told, num_inference_steps, sigmas, device
                )
                checks.check_sigmas(translated, self.unet)
                return translated
        # The pipeline's own shows the chain of the last call; it is never stepped.
        with _SETTING:
            checks.set_timesteps(self.scheduler, num_inference_steps, sigmas, device)
            scheduler = deepcopy(self.scheduler)
        checks.check_options(scheduler, self.unet, told)
        checks.check_extras(scheduler, self.unet)
        checks.check_precision(scheduler, self.unet)
        checks.check_sigmas(scheduler, self.unet)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(0)
        return scheduler

    def _clean(self, image: PipelineImageInput) -> torch.Tensor:
        if self.data_range is None:
            raise HDZooError(
                f"image is given, and the samples of {type(self.unet).__name__} are no images; "
                "give latents, at the noise level scheduler.sigmas[0]"
            )
        low, high = self.data_range
        channels, height, width = self.sample_shape
        pixels = read_pictures("image", image, channels)
        return low + (high - low) * resize("image", pixels, height, width)

    def _starting_samples(self, pipeline: type["HDPipeline"], **arguments: Any) -> torch.Tensor:
        """Samples for a sampler that has to start from some, in the network's units.

        Args:
            pipeline: the class that draws them.
            **arguments: of its call.
        """
        own = self.starter
        if own is None or not getattr(own, "starts_from_noise", True):
            raise HDZooError(
                f"{type(self.scheduler).__name__} walks at one noise level and starts from states "
                "there, not from noise; give clean samples to add noise to, or latents, or an "
                "annealed sampler as the pipeline's starter"
            )
        first = pipeline(self.unet, own)
        bar = getattr(self, "_progress_bar_config", {}) | {"desc": "samples to start from"}
        first.set_progress_bar_config(**bar)
        (states,) = first(**arguments, output_type="latent", return_dict=False)
        return states if self.data_range is None else states.clamp(*self.data_range)

    def _first_state(
        self,
        scheduler: Any,
        batch_size: int,
        generator: Generator,
        latents: torch.Tensor | None,
        clean: torch.Tensor | None,
        device: torch.device,
    ) -> torch.Tensor:
        """Where the chain starts; ``clean`` in the network's units."""
        if latents is not None:
            return latents.to(device, torch.float32)
        shape, centre = (batch_size, *self.sample_shape), self.data_mean
        noise = Noise(generator, device)
        if clean is not None:
            clean = clean.to(device, torch.float32)
            return scheduler.add_noise(clean, noise.normal(shape), scheduler.timesteps[:1])
        if hasattr(scheduler, "first_state"):
            checks.check_first_state(scheduler)
            return scheduler.first_state(shape, noise, centre, self.data_range, self.data_std)
        return centre + scheduler.init_noise_sigma * noise.normal(shape)

    def denoise(
        self,
        x: torch.Tensor,
        sigma: float,
        class_labels: int | Sequence[int] | torch.Tensor | None = None,
    ) -> torch.Tensor:
        r"""The denoised states :math:`E[x_0 | x]`, whatever the network predicts.

        `torch.autograd` goes through it. `PosteriorCovariance` takes it.

        Args:
            x: noisy states :math:`x_0 + \sigma z`, in VE coordinates also where the network is in
                VP coordinates, and in its units; shape (batch, *sample_shape).
            sigma: the noise level of all.
            class_labels: as in `__call__`.

        Returns:
            The shape and dtype of ``x``.

        Raises:
            HDZooError: the states do not fit, the network does not know the noise level, or nothing
                says what it predicts.
        """
        shape = ", ".join(map(str, self.sample_shape))
        floating("x", x, f"of shape (batch, {shape})")
        if tuple(x.shape[1:]) != self.sample_shape or not len(x):
            raise HDZooError(
                f"x has the shape {tuple(x.shape)}; the network needs (batch, {shape})"
            )
        sigma = NOISE_LEVEL("sigma", sigma)
        labels = check_class_labels(self.unet, class_labels, len(x), x.device)
        with evaluating(self.unet):
            if hasattr(self.unet, "denoise"):
                return self.unet.denoise(x, sigma)
            return NetworkDenoiser(self.unet, self.network_options(), labels)(x, sigma)

    def network_options(self) -> dict[str, Any]:
        """What the network predicts and how it is asked, by the names of a sampler's options.

        Nothing where nobody says it: for a network of diffusers' with its own scheduler.
        """
        samplers = [part for part in (self.starter, self.scheduler) if part is not None]
        told = checks.network_options(self.unet, *(sampler.config for sampler in samplers))
        for sampler in samplers:
            if told and "variance_type" in sampler.config:
                told.setdefault("variance_type", sampler.config["variance_type"])
        return told

    def decode(self, latents: torch.Tensor, output_type: str) -> Any:
        """Turns raw states into an output type, clipped to the data range.

        Args:
            latents: shape (batch, *sample_shape), in the network's units.
            output_type: as in `__call__`.
        """
        if output_type == "latent" or self.data_range is None:
            return latents
        low, high = self.data_range
        pixels = ((latents - low) / (high - low)).clamp(0, 1)
        return self.image_processor.postprocess(
            pixels, output_type, do_denormalize=[False] * len(pixels)
        )
