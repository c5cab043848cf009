"""What travels with hdzoo, and with packages: pipelines, and the networks of metrics."""

from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any

from hdzoo import plugins
from hdzoo.errors import HDZooError, UnloadableError
from hdzoo.files import check_folder, named_path, writing

INDEX = "model_index.json"

_PACKAGE = Path(__file__).parent


def bundled_folder() -> Path:
    """The folder of all that travels with hdzoo."""
    # In a wheel it lies inside the package, in a source tree beside it.
    inside = _PACKAGE / "model_cards"
    return inside if inside.is_dir() else _PACKAGE.parent / "model_cards"


def bundled_models() -> dict[str, Path]:
    """The pipelines that travel with hdzoo: name to folder."""
    found = sorted(bundled_folder().glob(f"*/{INDEX}"))
    return {path.parent.name: path.parent for path in found}


def named_model(name: str) -> Path | None:
    """The folder of a pipeline that travels with hdzoo or a package, by its name.

    Returns:
        None where there is none of that name.

    Raises:
        HDZooError: the package that brings it has no such folder.
    """
    from hdzoo.checks import shown

    if name not in plugins.names("pipelines"):
        return None
    folder = plugins.get("pipelines", name)
    if not (isinstance(folder, Path) and folder.is_absolute() and (folder / INDEX).is_file()):
        raise HDZooError(
            f"pipeline {name!r} of {plugins.provider('pipelines', name)} is {shown(folder)}; it "
            f"must be the absolute pathlib.Path of a folder with a {INDEX}. Install the package "
            "again, or tell its authors"
        )
    return folder


def what_a_model_is() -> str:
    """What to say where a model is none."""
    names = ", ".join(plugins.names("pipelines")) or "none"
    return f"a model is a folder, a bundled name ({names}), or a Hub id such as 'namespace/name'"


class LoadedByName:
    """A part of a pipeline that is loaded and saved by a name, the bundled ones too.

    It comes before diffusers' mixin among the bases of a class.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if LoadedByName not in cls.__bases__:
            return

        @wraps(LoadedByName.save_pretrained)
        def save_pretrained(self: Any, save_directory: str | Path, **kwargs: Any) -> None:
            LoadedByName.save_pretrained(self, save_directory, **kwargs)

        # Where a pipeline of diffusers' looks up what of its own options it may pass on.
        inherited = super().save_pretrained  # type: ignore[misc]
        vars(save_pretrained)["__signature__"] = signature(inherited)
        setattr(cls, "save_pretrained", save_pretrained)  # noqa: B010

    @classmethod
    def from_pretrained(cls, name: str | Path | None = None, /, **kwargs: Any) -> Any:
        """Loads the part from a folder, a bundled name such as ``"ncsn-mnist"``, or a Hub id.

        Args:
            name: which, looked up in this order; diffusers calls it
                ``pretrained_model_name_or_path``.
            **kwargs: what diffusers takes: ``subfolder="scheduler"`` or ``"unet"`` for a part of a
                pipeline, ``revision``, ...

        Raises:
            HDZooError: there is no such place, or no such part in it, or its weights are damaged:
                what hdzoo has saved knows its checksum.
        """
        from hdzoo.checksums import check_tensors

        place = named_path(kwargs.pop("pretrained_model_name_or_path", name), "the model")
        if not place.exists():
            place = named_model(str(place)) or place
        if not place.exists() and (str(place).count("/") != 1 or place.is_absolute()):
            raise HDZooError(f"there is no model {str(place)!r}: {what_a_model_is()}")
        try:
            for path in sorted(Path(place, kwargs.get("subfolder") or "").glob("*.safetensors")):
                check_tensors(path)
            return super().from_pretrained(str(place), **kwargs)  # type: ignore[misc]
        except HDZooError:
            raise
        # Whatever diffusers, the Hub's client or the reader of the weights raises.
        except Exception as error:
            raise UnloadableError(
                f"{place} cannot be loaded as {cls.__name__}: {str(error).rstrip('.')}. If a file "
                "is damaged or missing, download or save the folder again; of a pipeline, give "
                "subfolder='unet' or 'scheduler' too"
            ) from error

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Writes the part to a folder, weights with their checksum.

        Args:
            save_directory: the folder, new or not.
            **kwargs: what diffusers takes: ``variant``, ``max_shard_size``, ...

        Raises:
            HDZooError: the folder cannot be written.
        """
        from hdzoo.checksums import add_checksum

        folder = named_path(save_directory, "save_directory")
        check_folder(folder)
        before = _written(folder)
        with writing(folder):
            super().save_pretrained(str(folder), **kwargs)  # type: ignore[misc]
            for path, time in _written(folder).items():
                if before.get(path) != time:
                    add_checksum(path)


def _written(folder: Path) -> dict[Path, int]:
    """The files of weights in a folder, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in sorted(folder.glob("*.safetensors"))}
