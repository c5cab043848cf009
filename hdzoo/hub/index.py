"""The index of a pipeline folder, and whose code it may name."""

import importlib
import json
import re
import sys
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import diffusers

from hdzoo import plugins
from hdzoo.bundled import INDEX
from hdzoo.errors import HDZooError

# In the index: from a module to the distribution that brings it. diffusers drops it on loading.
REQUIRES = "_hdzoo_requires"
# A distribution's name (PEP 508), of ASCII letters alone and of a length that a person reads.
DISTRIBUTION = re.compile(r"(?!.{65})[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
# hdzoo's components are recorded by their names at its top. Folders saved before that name files,
# and these are gone: from the old module to the one that has its classes now.
MOVED = {
    "hdzoo.models.analytic": "hdzoo",
    "hdzoo.models.empirical": "hdzoo",
    "hdzoo.models.laplace": "hdzoo",
    "hdzoo.models.manifold": "hdzoo",
    "hdzoo.models.mixture": "hdzoo",
}


def read_index(folder: Path) -> dict[str, Any]:
    """Reads a pipeline folder's index, with today's names of hdzoo's modules.

    Raises:
        HDZooError: there is none, or it is damaged.
    """
    path = folder / INDEX
    if not path.is_file():
        raise no_index(str(folder), bare=(folder / "config.json").is_file())
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
    for name in index:
        # The name of a component is that of its folder too.
        if not name.isidentifier():
            raise HDZooError(f"{path} has {name!r} for a component; do not trust this folder")
    return with_new_names(index)


def with_new_names(index: dict[str, Any]) -> dict[str, Any]:
    """An index with today's names of the modules that were moved."""

    def renamed(entry: Any) -> Any:
        match entry:
            case [str(module), name]:
                return [MOVED.get(module, module), name]
        return entry

    return {name: renamed(entry) for name, entry in index.items()}


def stable_entry(entry: Any) -> Any:
    """What an index records of a component: hdzoo's own are known by their name at its top.

    Args:
        entry: the module and the name of a class, or anything else, which comes back as it is.
    """
    match entry:
        case (str(module), str(name)) if module.startswith("hdzoo."):
            component = getattr(importlib.import_module("hdzoo"), name, None)
            if getattr(component, "__module__", None) == module:
                return "hdzoo", name
    return entry


def no_index(source: str, bare: bool) -> HDZooError:
    """What to say of a folder without an index; ``bare`` if a network alone seems to be in it."""
    advice = (
        ". It seems to be a network alone: load it with its class's from_pretrained and put it "
        "together with a sampler, HDPipeline(network, sampler)"
    )
    return HDZooError(f"{source} is no pipeline folder: it has no {INDEX}{advice if bare else ''}")


def pipeline_of_diffusers(index: dict[str, Any]) -> str | None:
    """The class of a pipeline that diffusers saved; None for one of ours."""
    name = index.get("_class_name")
    known = isinstance(name, str) and name.endswith("Pipeline") and hasattr(diffusers, name)
    return name if known else None


def check_unconditional(index: dict[str, Any], source: str) -> None:
    """Refuses a pipeline of diffusers whose network needs more than a state and a noise level.

    Args:
        index: of the pipeline.
        source: of the index, for the message.

    Raises:
        HDZooError: it is conditional or latent.
    """
    name = pipeline_of_diffusers(index)
    parts = {key for key, entry in index.items() if isinstance(entry, list) and any(entry)}
    if name is not None and parts != {"unet", "scheduler"}:
        more = ", ".join(sorted(parts - {"unet", "scheduler"})) or "it has no unet"
        raise HDZooError(
            f"{source} is a {name}, whose network needs more than a state and a noise level "
            f"({more}); load it with diffusers.{name}.from_pretrained, and put the sampler there: "
            "pipe.scheduler = get_sampler(...).from_config(pipe.scheduler.config)"
        )


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
            case [str(module_name), str(class_name)] if all(
                part.isidentifier() for part in (*module_name.split("."), class_name)
            ):
                source = f"the {name} of this pipeline, {class_name} of {module_name},"
                own = f"or pass your own with {name}=..."
            case _:
                raise HDZooError(
                    f"the index has {entry!r} for {name}, where a module and a class belong; "
                    "download or save the folder again"
                )
        module = _import_trusted(module_name, source, own, index.get(REQUIRES))
        component = getattr(module, class_name, None)
        bases = component.__mro__[1:] if isinstance(component, type) else ()
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
    if "__main__" in name.split("."):
        raise HDZooError(
            f"{source} would be imported from a module that is a program; do not trust this "
            f"index, {own}"
        )
    if name.partition(".")[0] not in plugins.plugin_modules():
        package = requires.get(name) if isinstance(requires, dict) else None
        package = package or name.partition(".")[0]
        # Whoever wrote the index must not choose a command that people type.
        if not isinstance(package, str) or not DISTRIBUTION.fullmatch(package):
            raise HDZooError(
                f"{source} comes from {package!r}, which is no name of a package; do not trust "
                f"this index, {own}"
            )
        raise HDZooError(
            f"{source} comes from the package {package!r}, which is not installed as a plugin: "
            f"pip install {package}, {own}"
        )
    try:
        return plugins.call_foreign(lambda: importlib.import_module(name))
    except Exception as error:
        raise HDZooError(
            f"{source} cannot be imported: {plugins.describe(error)}. Update or mend that "
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
