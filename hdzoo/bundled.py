"""What travels with hdzoo: pipelines, and the networks of its metrics."""

from pathlib import Path
from typing import Any

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


class LoadedByName:
    """A part of a pipeline whose ``from_pretrained`` knows the bundled names, too.

    It comes before diffusers' mixin among the bases of a class.
    """

    @classmethod
    def from_pretrained(cls, name: str | Path | None = None, /, **kwargs: Any) -> Any:
        """Loads the part from a folder, a bundled name such as ``"ncsn-mnist"``, or a Hub id.

        Args:
            name: which, looked up in this order; diffusers calls it
                ``pretrained_model_name_or_path``.
            **kwargs: what diffusers takes: ``subfolder="scheduler"`` or ``"unet"`` for a part of a
                pipeline, ``revision``, ...

        Raises:
            HDZooError: weights in a folder are damaged: what hdzoo has saved knows its checksum.
        """
        from hdzoo.checksums import check_tensors

        name = kwargs.pop("pretrained_model_name_or_path", name)
        if name is not None and not Path(name).is_dir():
            name = bundled_models().get(str(name), name)
        if name is not None:
            for path in sorted(Path(name, kwargs.get("subfolder") or "").glob("*.safetensors")):
                check_tensors(path)
        return super().from_pretrained(name, **kwargs)  # type: ignore[misc]
