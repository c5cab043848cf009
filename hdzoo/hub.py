"""Where models come from: folders, bundled names, and the Hub."""

import importlib
import json
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import diffusers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

from hdzoo import plugins
from hdzoo.errors import HDZooError

INDEX = "model_index.json"
# In the index: from a module to the distribution that brings it. diffusers drops it on loading.
REQUIRES = "_hdzoo_requires"
DOWNLOADED = ("*.json", "*.safetensors", "README.md")

_PACKAGE = Path(__file__).parent


def bundled_folder() -> Path:
    """The folder of what travels with hdzoo: pipelines, and the networks of its metrics."""
    # In a wheel it lies inside the package, in a source tree beside it.
    inside = _PACKAGE / "model_cards"
    return inside if inside.is_dir() else _PACKAGE.parent / "model_cards"


def bundled_models() -> dict[str, Path]:
    """The models that travel with hdzoo: name to folder."""
    found = sorted(bundled_folder().glob(f"*/{INDEX}"))
    return {path.parent.name: path.parent for path in found}


def resolve_model(name: str | Path, **download: Any) -> Path:
    """Finds a model: an existing folder, a bundled name without a slash, or a Hub id.

    Args:
        name: which.
        **download: `huggingface_hub.snapshot_download`'s ``revision``, ``token``, ``cache_dir``,
            ``local_files_only`` and ``force_download``.

    Returns:
        A local folder.

    Raises:
        HDZooError: it is none of the three.
    """
    path = Path(name)
    bundled = bundled_models()
    if path.is_dir():
        return path
    if str(name) in bundled:
        return bundled[str(name)]
    allowed = (
        f"a model is a folder, a bundled name ({', '.join(bundled) or 'none'}), or a Hub id "
        "such as 'namespace/name'"
    )
    if str(name).count("/") != 1 or path.is_absolute():
        raise HDZooError(f"there is no model {str(name)!r}: {allowed}")
    try:
        return Path(snapshot_download(str(name), allow_patterns=list(DOWNLOADED), **download))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise HDZooError(
            f"there is no model {str(name)!r} on the Hub, or it needs a token=...: {allowed}"
        ) from error
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise HDZooError(
            f"{str(name)!r} is no folder, and the Hub does not give it: {reason}; {allowed}"
        ) from error


def read_index(folder: Path) -> dict[str, Any]:
    """Reads a pipeline folder's index.

    Raises:
        HDZooError: there is none, or it is damaged.
    """
    path = folder / INDEX
    if not path.is_file():
        raise HDZooError(f"{folder} is no pipeline folder: it has no {INDEX}")
    try:
        index = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise HDZooError(
            f"{path} is damaged: {error}; download or save the folder again"
        ) from error
    if not isinstance(index, dict):
        raise HDZooError(
            f"{path} is damaged: it holds no object; download or save the folder again"
        )
    return index


def import_components(index: dict[str, Any], held_back: Collection[str] = ()) -> None:
    """Imports the modules that an index names, if they are hdzoo's or an installed plugin's.

    A repository may name any module, and importing one runs it: nothing else is imported here. Nor
    is anything accepted that is no network and no sampler.

    Args:
        index: the content of a pipeline's index.
        held_back: components that the caller brings, whose modules are not needed.

    Raises:
        HDZooError: a component's module is neither diffusers', nor hdzoo's, nor an installed
            plugin's, nor already imported (the message names the package to install); or it has no
            such network or sampler.
    """
    for name, entry in index.items():
        if name.startswith("_") or name in held_back:
            continue
        match entry:
            case [None, None]:
                continue
            case [str(module_name), str(class_name)]:
                source = f"the {name} of this pipeline, {class_name} of {module_name},"
                own = f"or pass your own with {name}=..."
            case _:
                raise HDZooError(
                    f"the index has {entry!r} for {name}, where a module and a class belong; "
                    "download or save the folder again"
                )
        module = _import_trusted(module_name, source, own, index.get(REQUIRES))
        component = getattr(module, class_name, None)
        bases = component.__mro__ if isinstance(component, type) else ()
        base = next(
            (b for b in bases if b in (diffusers.ModelMixin, diffusers.SchedulerMixin)), None
        )
        if base is None:
            raise HDZooError(
                f"{source} is no network and no sampler that this version of the package has; "
                f"update the package, {own}"
            )
        # diffusers' loader looks the base class up beside the component.
        vars(module).setdefault(base.__name__, base)


def _import_trusted(name: str, source: str, own: str, requires: Any) -> ModuleType:
    if name == "diffusers":
        return diffusers
    if hasattr(diffusers.pipelines, name):
        return getattr(diffusers.pipelines, name)
    if name in sys.modules:
        return sys.modules[name]
    if name.partition(".")[0] not in plugins.plugin_modules():
        package = requires.get(name) if isinstance(requires, dict) else None
        package = package or name.partition(".")[0]
        raise HDZooError(
            f"{source} comes from the package {package!r}, which is not installed as a plugin: "
            f"pip install {package}, {own}"
        )
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise HDZooError(
            f"{source} cannot be imported: {type(error).__name__}: {error}. Update or mend that "
            f"package, {own}"
        ) from error


def required_packages(index: dict[str, Any]) -> dict[str, str]:
    """From each module of an index that a plugin brings, to the distribution to install."""
    required = {}
    for name, entry in index.items():
        if not name.startswith("_") and isinstance(entry, list | tuple) and entry[0]:
            distribution = plugins.distribution_of(entry[0])
            if distribution is not None and distribution != "hdzoo":
                required[entry[0]] = distribution
    return required
