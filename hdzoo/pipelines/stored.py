"""Pipelines in folders and on the Hub: loading, saving, pushing."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline, ModelMixin
from huggingface_hub import CommitInfo

from hdzoo.errors import HDZooError
from hdzoo.files import named_path
from hdzoo.hub import weights
from hdzoo.hub.index import (
    REQUIRES,
    import_components,
    read_index,
    required_packages,
    stable_entry,
    with_new_names,
)
from hdzoo.hub.publishing import push_folder
from hdzoo.hub.resolve import resolve_model
from hdzoo.pipelines import foreign, saving

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


class StoredPipeline(DiffusionPipeline):
    """A network, ``unet``, and a sampler, ``scheduler``, as they are kept.

    Attributes:
        starter: the scheduler that was loaded with the network, if any.
    """

    unet: Any
    scheduler: Any
    starter: Any

    @property
    def _execution_device(self) -> torch.device:
        # What diffusers' own comes to for one network that no hook of accelerate's moves; it goes
        # through all modules three times, in the time of some evaluations' arithmetic.
        if isinstance(self.unet, ModelMixin) and not hasattr(self.unet, "_hf_hook"):
            return self.unet.device
        return super()._execution_device

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
            if len(own) == 2 and isinstance(index.get("_class_name"), list):
                # diffusers would look for the file of code that is named there.
                pipe = cls(**own)
            else:
                pipe = super().from_pretrained(folder, **kwargs | forced | dict.fromkeys(own))
            missing = [] if pipe.unet is None else _weights_on_meta(pipe.unet)
            if missing and pipe.hf_device_map is None:
                raise ValueError(f"the weights lack {len(missing)} tensors, {missing[0]!r} first")
        except HDZooError:
            raise
        except Exception as error:
            raise HDZooError(
                f"{folder} cannot be loaded: {str(error).rstrip('.')}. If a file is damaged or "
                "missing, download or save the folder again; weights must be safetensors"
            ) from error
        pipe.register_modules(**own)
        foreign.record_data_range(pipe.unet, index)
        pipe.register_to_config(_name_or_path=str(pretrained_model_name_or_path))
        pipe.starter = None if "scheduler" in kwargs else pipe.scheduler
        return pipe

    @classmethod
    def extract_init_dict(
        cls, config_dict: dict[str, Any], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        # diffusers reads the index itself.
        return super().extract_init_dict(with_new_names(config_dict), **kwargs)

    def register_to_config(self, **kwargs: Any) -> None:
        super().register_to_config(**{key: stable_entry(value) for key, value in kwargs.items()})

    @classmethod
    def from_pipe(cls, pipeline: DiffusionPipeline, **kwargs: Any) -> Self:
        """Builds this pipeline from the parts of another, without copying the weights.

        Args:
            pipeline: one with a ``unet`` and a ``scheduler``.
            **kwargs: ``scheduler=`` and ``unet=`` to replace a component; ``dtype``, float32 by
                default.
        """
        # diffusers takes over networks of exactly the annotated class, and any class fits here.
        pipe = super().from_pipe(pipeline, **{"unet": pipeline.unet} | kwargs)
        pipe.starter = getattr(pipeline, "starter", None)
        return pipe

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Writes the pipeline to a folder, weights as safetensors with their checksum.

        It replaces what it saves: weights of the same variant that are there, in however many
        files, and no others. The index also records which packages bring the components that are
        not hdzoo's own, so that a reader without them is told what to install.

        Args:
            save_directory: the folder; links in it are not followed.
            **kwargs: what diffusers takes: ``variant``, ``max_shard_size``...; or
                ``push_to_hub=True`` and ``repo_id=...``, and what `push_to_hub` takes, to send the
                folder to the Hub as well.

        Raises:
            HDZooError: the folder cannot be written; or the Hub does not take it, and the folder is
                written all the same.
        """
        save_directory = named_path(save_directory, "save_directory")
        push = kwargs.pop("push_to_hub", False)
        upload = {key: kwargs.pop(key) for key in _UPLOAD_OPTIONS if key in kwargs}
        if push and "repo_id" not in upload:
            raise HDZooError("push_to_hub is True; give repo_id='NAMESPACE/NAME' too")
        # diffusers' own bookkeeping forgets a component that takes the place of None.
        self.register_modules(unet=self.unet, scheduler=self.scheduler)
        required = required_packages(dict(self.config))
        if required or REQUIRES in self.config:
            self.register_to_config(**{REQUIRES: required})
        with saving.replacing(Path(save_directory)) as partial:
            super().save_pretrained(str(partial), **kwargs | {"safe_serialization": True})
        if push:
            push_folder(
                save_directory,
                load=type(self).from_pretrained,
                origin=self.config.get("_name_or_path"),
                **upload,
            )

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
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, variant=variant)
            return push_folder(
                folder,
                repo_id,
                load=type(self).from_pretrained,
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
