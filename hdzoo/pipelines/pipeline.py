"""`HDPipeline`: a score network and a sampler."""

from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers import ModelMixin as ModelMixin  # diffusers' loader looks them up here
from diffusers import SchedulerMixin as SchedulerMixin
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor
from diffusers.utils.torch_utils import randn_tensor
from huggingface_hub import CommitInfo

from hdzoo.errors import HDZooError
from hdzoo.hub import weights
from hdzoo.hub.index import REQUIRES, import_components, read_index, required_packages
from hdzoo.hub.resolve import resolve_model
from hdzoo.pipelines import foreign
from hdzoo.pipelines.pictures import read_pictures, resize
from hdzoo.samplers.noise import Noise

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
_DOWNLOAD_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
_UPLOAD_OPTIONS = (
    "repo_id",
    "commit_message",
    "private",
    "token",
    "create_pr",
    "revision",
    "tag",
)


def sample_generators(
    seed: int, indices: Iterable[int], device: str | torch.device = "cpu"
) -> list[torch.Generator]:
    """One generator for each sample, a function of (seed, index) alone.

    Args:
        seed: of the whole set, not negative.
        indices: of the samples, not negative.
        device: where the noise is drawn; another device draws other noise.

    Returns:
        As many generators as indices. Sample ``i`` is the same in whatever batch it is drawn.
        PyTorch's generator of a CPU starts from 32 bits of its seed, so that two of n samples have
        the same noise with probability n^2 / 2^33: 1 % at n = 10,000.
    """
    return [
        torch.Generator(device).manual_seed(
            int(
                np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0]
                >> np.uint64(1)
            )
        )
        for index in indices
    ]


class HDPipeline(DiffusionPipeline):
    """Draws samples from a score network with a sampler.

    Args:
        unet: the score network: `hdzoo.models`, or diffusers' `UNet2DModel`. Its pixels' range is
            its config's ``data_range``, (-1, 1) if it says nothing, as in diffusers; None for a
            model of points that are no images (`hdzoo.targets.analytic`).
        scheduler: the sampler: `hdzoo.samplers`, or one that a plugin brings.
    """

    model_cpu_offload_seq = "unet"
    _callback_tensor_inputs = ("latents",)

    def __init__(self, unet: ModelMixin, scheduler: SchedulerMixin) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

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
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        if hasattr(self.unet, "sample_shape"):
            return tuple(self.unet.sample_shape)
        size = self.unet.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config.in_channels, height, width

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        image: PipelineImageInput | None = None,
        sigmas: list[float] | None = None,
        output_type: str | None = None,
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]
        | None = None,
        callback_on_step_end_tensor_inputs: Iterable[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draws samples.

        Args:
            batch_size: how many; 1, or as many as ``latents`` or ``image`` has, by default.
            num_inference_steps: network evaluations, all told; the sampler's own by default.
            generator: one generator, or one for each sample (`sample_generators`): then sample i
                does not depend on the batch it is in.
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
            callback_on_step_end: called as ``f(pipeline, step, timestep, {"latents": ...})`` after
                each step; may return other latents.
            callback_on_step_end_tensor_inputs: what the callback is given; ``"latents"``.

        Returns:
            The samples, as ``.images``.

        Raises:
            HDZooError: an argument is out of its range, the sampler does not go with the network,
                or the samples are not finite.
        """
        device = self._execution_device
        if output_type is None:
            output_type = "latent" if self.data_range is None else "pil"
        clean = None if image is None else self._clean(image)
        batch_size = self._check(
            batch_size,
            generator,
            latents,
            clean,
            output_type,
            callback_on_step_end_tensor_inputs,
        )
        self.scheduler.set_timesteps(
            num_inference_steps, device=device, **({} if sigmas is None else {"sigmas": sigmas})
        )
        self._check_network()
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(0)
        timesteps = self.scheduler.timesteps
        latents = self._first_state(batch_size, generator, latents, clean, timesteps[:1])

        # Networks of ours take the float32 state as it is and round inside, after preconditioning.
        keeps_state = hasattr(self.unet, "prediction_type")
        dtype = latents.dtype if keeps_state else self.unet.dtype
        with self.progress_bar(total=len(timesteps)) as progress:
            for i, t in enumerate(timesteps):
                model_input = self.scheduler.scale_model_input(latents, t).to(dtype)
                prediction = self.unet(model_input, t, return_dict=False)[0]
                latents = self.scheduler.step(
                    prediction, t, latents, generator=generator, return_dict=False
                )[0]
                if callback_on_step_end is not None:
                    returned = callback_on_step_end(self, i, t, {"latents": latents})
                    latents = (returned or {}).get("latents", latents)
                progress.update()

        if not torch.isfinite(latents).all():
            broken = (~torch.isfinite(latents)).flatten(1).any(1).sum().item()
            raise HDZooError(
                f"{broken} of {batch_size} samples are not finite: the chain diverged or the "
                "network returned NaN. Try a smaller step_size, float32 weights, or another sampler"
            )
        images = self.decode(latents, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _check(
        self,
        batch_size: int | None,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        clean: torch.Tensor | None,
        output_type: str,
        tensor_inputs: Iterable[str],
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
        unknown = set(tensor_inputs) - set(self._callback_tensor_inputs)
        if unknown:
            raise HDZooError(
                f"callback_on_step_end_tensor_inputs has {sorted(unknown)[0]!r}; allowed is "
                + ", ".join(self._callback_tensor_inputs)
            )
        if latents is not None and clean is not None:
            raise HDZooError("both latents and image are given; give one of them")
        given = batch_size or 1
        for name, start in (("latents", latents), ("image", clean)):
            if start is not None:
                given = len(start)
                if tuple(start.shape[1:]) != self.sample_shape:
                    raise HDZooError(
                        f"{name} has the shape {tuple(start.shape)}; the network needs "
                        f"(batch_size, {', '.join(map(str, self.sample_shape))})"
                    )
        if batch_size is not None and (batch_size < 1 or batch_size != given):
            raise HDZooError(
                f"batch_size is {batch_size}; it must be at least 1, and the number of latents or "
                "images where they are given"
            )
        if isinstance(generator, list) and len(generator) != given:
            raise HDZooError(
                f"{len(generator)} generators are given for {given} samples; give one generator, "
                "or one for each sample"
            )
        return given

    def _check_network(self) -> None:
        """Refuses a sampler that does not go with the network, which would draw nonsense."""
        predicts = getattr(self.unet, "prediction_type", None)
        expected = self.scheduler.config.get("prediction_type")
        if predicts is not None and expected is not None and predicts != expected:
            name = type(self.scheduler).__name__
            raise HDZooError(
                f"the network predicts {predicts!r} and the sampler takes its output for "
                f"{expected!r}; use {name}.from_config(scheduler.config, "
                f"prediction_type={predicts!r})"
            )
        lives = getattr(self.unet, "coordinates", None)
        coordinates = self.scheduler.config.get("coordinates", "ve")
        if lives is not None and coordinates != lives:
            raise HDZooError(
                f"the network is in {lives!r} coordinates and the sampler in {coordinates!r}: its "
                "options are from the scheduler of another network. Build it from those of this "
                "network's own sampler"
            )
        if hasattr(self.unet, "check_sigmas") and hasattr(self.scheduler, "sigmas"):
            self.unet.check_sigmas(self.scheduler.sigmas[:-1].unique().tolist())

    def _clean(self, image: PipelineImageInput) -> torch.Tensor:
        if self.data_range is None:
            raise HDZooError(
                f"image is given, and the samples of {type(self.unet).__name__} are no images; "
                "give latents, at the noise level scheduler.sigmas[0]"
            )
        channels, height, width = self.sample_shape
        return resize("image", read_pictures("image", image, channels), height, width)

    def _first_state(
        self,
        batch_size: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
        clean: torch.Tensor | None,
        timestep: torch.Tensor,
    ) -> torch.Tensor:
        device = self._execution_device
        if latents is not None:
            return latents.to(device, torch.float32)
        shape, centre = (batch_size, *self.sample_shape), self.data_mean
        if clean is None and hasattr(self.scheduler, "first_state"):
            noise = Noise(generator, device)
            return self.scheduler.first_state(shape, noise, centre, self.data_range)
        z = randn_tensor(shape, generator, device=device, dtype=torch.float32)
        if clean is None:
            return centre + self.scheduler.init_noise_sigma * z
        low, high = self.data_range or (0.0, 0.0)
        clean = clean.to(device, torch.float32)
        return self.scheduler.add_noise(low + (high - low) * clean, z, timestep)

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

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Loads a pipeline from a folder, a bundled name, or a Hub id.

        An unconditional pipeline of diffusers' (`DDPMPipeline`, `DDIMPipeline`,
        `ScoreSdeVePipeline`, `KarrasVePipeline`) comes with consistent annealed sampling between
        the noise levels of its scheduler (`hdzoo.pipelines.foreign`).

        Modules that the pipeline's index names are imported only if they belong to hdzoo or to an
        installed package with an ``hdzoo`` entry point. Weights are safetensors and nothing else.

        Args:
            pretrained_model_name_or_path: which, looked up in this order.
            **kwargs: ``scheduler=`` and ``unet=`` to replace a component; ``dtype``, ``variant``
                (of the weights, such as ``"fp16"``; no other is downloaded) and all else that
                diffusers takes; for the Hub ``revision`` (a branch, tag or commit), ``token``,
                ``cache_dir``, ``local_files_only`` and ``force_download``.

        Raises:
            HDZooError: there is no such model, it is a latent or conditional pipeline of
                diffusers', a package is missing, or a file is damaged.
        """
        download = {key: kwargs.pop(key) for key in _DOWNLOAD_OPTIONS if key in kwargs}
        variant = kwargs.get("variant")
        folder = resolve_model(pretrained_model_name_or_path, variant=variant, **download)
        index = read_index(folder)
        own = foreign.components(folder, index, kwargs)
        weights.check_folder(folder, index, variant, held_back=own)
        # With low_cpu_mem_usage, weights that a file lacks stay on the meta device; without it they
        # would be drawn at random.
        forced: dict[str, Any] = {"use_safetensors": True, "low_cpu_mem_usage": True}
        import_components(index, held_back=own)
        try:
            # diffusers would import a component's module even when the component is given.
            pipe = super().from_pretrained(folder, **kwargs | forced | dict.fromkeys(own))
            missing = [] if pipe.unet is None else _weights_on_meta(pipe.unet)
            if missing and pipe.hf_device_map is None:
                raise ValueError(f"the weights lack {len(missing)} tensors, {missing[0]!r} first")
        except HDZooError:
            raise
        except Exception as error:
            raise HDZooError(
                f"{folder} cannot be loaded: {error}. If a file is damaged or missing, download or "
                "save the folder again; weights must be safetensors"
            ) from error
        pipe.register_modules(**own)
        foreign.record_data_range(pipe.unet, index)
        pipe.register_to_config(_name_or_path=str(pretrained_model_name_or_path))
        return pipe

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> Self:
        """Builds this pipeline from the parts of another, without copying the weights.

        Args:
            pipeline: one with a ``unet`` and a ``scheduler``.
            **kwargs: ``scheduler=`` and ``unet=`` to replace a component; ``dtype``, float32 by
                default.
        """
        # diffusers takes over networks of exactly the annotated class, and any class fits here.
        return super().from_pipe(pipeline, **{"unet": pipeline.unet} | kwargs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Writes the pipeline to a folder, weights as safetensors.

        The index also records which packages bring the components that are not hdzoo's own, so that
        a reader without them is told what to install.

        Args:
            save_directory: the folder.
            **kwargs: what diffusers takes: ``variant``, ``max_shard_size``...; or
                ``push_to_hub=True`` and ``repo_id=...``, and what `push_to_hub` takes, to send the
                folder to the Hub as well.

        Raises:
            HDZooError: the Hub does not take it; the folder is written all the same.
        """
        push = kwargs.pop("push_to_hub", False)
        upload = {key: kwargs.pop(key) for key in _UPLOAD_OPTIONS if key in kwargs}
        if push and "repo_id" not in upload:
            raise HDZooError("push_to_hub is True; give repo_id='NAMESPACE/NAME' too")
        # diffusers' own bookkeeping forgets a component that takes the place of None.
        self.register_modules(unet=self.unet, scheduler=self.scheduler)
        required = required_packages(dict(self.config))
        if required or REQUIRES in self.config:
            self.register_to_config(**{REQUIRES: required})
        super().save_pretrained(str(save_directory), **kwargs | {"safe_serialization": True})
        if push:
            from hdzoo.hub.publishing import push_folder

            push_folder(save_directory, origin=self.config.get("_name_or_path"), **upload)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        *,
        variant: str | None = None,
        revision: str | None = None,
        tag: str | None = None,
    ) -> CommitInfo:
        """Sends the pipeline to the Hub, with a card: `hdzoo.hub.publishing.push_folder`.

        Args:
            repo_id: ``"namespace/name"``; made where it is missing.
            commit_message: of one line.
            private: whether the repository is for its owners alone.
            token: that of ``hf auth login``, or ``HF_TOKEN`` in the environment, by default.
            create_pr: whether to open a pull request instead of changing the branch.
            variant: what the names of the weights' files are to bear, such as ``"fp16"``.
            revision: the branch, made where it is missing; the main one by default.
            tag: a name for the commit.

        Returns:
            The commit; its ``commit_url`` is the address.

        Raises:
            HDZooError: the Hub does not take it.
        """
        from hdzoo.hub.publishing import push_folder

        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, variant=variant)
            return push_folder(
                folder,
                repo_id,
                origin=self.config.get("_name_or_path"),
                commit_message=commit_message,
                private=private,
                token=token,
                create_pr=create_pr,
                revision=revision,
                tag=tag,
            )


def _weights_on_meta(network: torch.nn.Module) -> list[str]:
    return [name for name, weight in network.named_parameters() if weight.is_meta]
