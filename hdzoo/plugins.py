"""Where the zoo's parts come from: hook specifications, discovery, and look-up by name.

A package joins the zoo by an entry point in the group ``hdzoo`` that names a module (or an object)
with hook implementations:

.. code-block:: toml

    [project.entry-points.hdzoo]
    my-sampler = "my_package"

.. code-block:: python

    from hdzoo import hookimpl

    @hookimpl
    def hdzoo_samplers():
        return {"my-sampler": "my_package.sampler:MySampler"}

hdzoo's own parts come through the same hooks (``hdzoo.builtin``), and first, so that no package can
take their names. A plugin counts whole or not at all: one that is broken, or that brings a name
already taken, is left out with one warning, kept in `plugins` with its error, and the others go on
working. With ``HDZOO_STRICT_PLUGINS=1`` in the environment it raises an `HDZooError` instead.
"""

from __future__ import annotations

import difflib
import os
import pkgutil
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, Protocol, TypeVar, get_args

import pluggy

from hdzoo.errors import HDZooError
from hdzoo.text import plain
from hdzoo.version import __version__

__all__ = [
    "KINDS",
    "HookSpecs",
    "Kind",
    "PluginInfo",
    "call_foreign",
    "describe",
    "distribution_of",
    "get",
    "get_sampler",
    "hookimpl",
    "list_samplers",
    "names",
    "plugin_modules",
    "plugins",
    "provider",
]

Kind = Literal[
    "samplers",
    "models",
    "objectives",
    "pipelines",
    "datasets",
    "feature_extractors",
    "targets",
    "reproductions",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

hookimpl = pluggy.HookimplMarker("hdzoo")
hookspec = pluggy.HookspecMarker("hdzoo")


class HookSpecs(Protocol):
    """The hooks that a plugin may implement, each a function without arguments.

    Each returns a dict from public names (lower case, digits, dashes) to objects, or to strings
    ``"package.module:Name"`` that are imported only when someone asks for the name. Prefer strings:
    they keep ``hdzoo samplers`` quick and free of torch.
    """

    @hookspec
    def hdzoo_samplers(self) -> dict[str, object]:
        """Samplers: classes that are both diffusers' ``SchedulerMixin`` and ``ConfigMixin``.

        The name is what `get_sampler` takes and what tables, plots and cards print.
        """

    @hookspec
    def hdzoo_models(self) -> dict[str, object]:
        """Score models: classes that are both diffusers' ``ModelMixin`` and ``ConfigMixin``."""

    @hookspec
    def hdzoo_objectives(self) -> dict[str, object]:
        """Training objectives, for ``hdzoo train --objective NAME``.

        Classes that derive from `hdzoo.training.objectives.Objective`.
        """

    @hookspec
    def hdzoo_pipelines(self) -> dict[str, object]:
        """Trained pipelines that travel with a package, to be loaded by a name.

        Folders that ``save_pretrained`` has written, as an absolute `pathlib.Path` (``Path(__file__
        ).parent / "my-mnist"``): what ``hdzoo sample my-mnist`` and ``from_pretrained`` then take.
        """

    @hookspec
    def hdzoo_datasets(self) -> dict[str, object]:
        """Data sets: functions from a split (``"train"``, ...) to a ``datasets.Dataset``."""

    @hookspec
    def hdzoo_feature_extractors(self) -> dict[str, object]:
        """Feature extractors: classes that are torch-fidelity's ``FeatureExtractorBase``.

        They also have a ``label`` and say which ``weights_file`` they load: see
        `hdzoo.metrics.image_features.ImageFeatures`, the class to derive from.
        """

    @hookspec
    def hdzoo_targets(self) -> dict[str, object]:
        """Analytic targets: callables that return a score model whose law is known exactly."""

    @hookspec
    def hdzoo_reproductions(self) -> dict[str, object]:
        """Published results, found anew by ``hdzoo reproduce NAME``.

        Functions that are given a `hdzoo.literature.base.Progress` and return a
        `hdzoo.literature.base.Reproduction`; the first line of their module says what of. Their
        keyword-only arguments are options, ``quick`` for ``--quick``; ``folder``, a `pathlib.Path`,
        is where they may keep what they have done, to go on with.
        """


@dataclass(frozen=True)
class PluginInfo:
    """One plugin: where it comes from and what it brings, or why it was left out."""

    name: str
    distribution: str
    version: str
    module: str
    samplers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    pipelines: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    feature_extractors: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    reproductions: tuple[str, ...] = ()
    error: str | None = None

    def __str__(self) -> str:
        return plain(f"plugin {self.name!r} ({self.distribution} {self.version})")


def list_samplers() -> list[str]:
    """The names of all samplers, sorted."""
    return names("samplers")


def get_sampler(name: str) -> type[Any]:
    """The sampler class called `name`.

    Raises:
        HDZooError: if no loaded plugin brings it, or if it cannot be imported.
    """
    sampler = get("samplers", name)
    if not isinstance(sampler, type):
        source = provider("samplers", name)
        raise HDZooError(f"sampler {name!r} of {source} is {sampler!r}; it must be a class")
    return sampler


def names(kind: Kind) -> list[str]:
    """The sorted public names of one kind, one of `KINDS`."""
    return sorted(_registry().things[_known(kind)])


def get(kind: Kind, name: str) -> Any:
    """The object called `name`, imported now if its plugin gave a lazy reference.

    Raises:
        HDZooError: if no loaded plugin brings it, or if it cannot be imported.
    """
    source, thing = _look_up(kind, name)
    if not isinstance(thing, str):
        return thing
    at_hand = _at_hand(thing)
    if at_hand is not None:
        return at_hand
    try:
        return call_foreign(partial(pkgutil.resolve_name, thing))
    except Exception as error:
        raise HDZooError(
            f"{_singular(kind)} {name!r} of {source} cannot be imported from {thing!r}: "
            f"{describe(error)}"
        ) from error


def _at_hand(reference: str) -> Any:
    """What a lazy reference leads to, if its module is imported; nothing of it is run."""
    module, _, name = reference.partition(":")
    return getattr(sys.modules.get(module), "__dict__", {}).get(name)


def provider(kind: Kind, name: str) -> PluginInfo:
    """The plugin that brings `name`; nothing is imported."""
    return _look_up(kind, name)[0]


def plugins() -> list[PluginInfo]:
    """Every plugin found, the built-in one first, those left out (`error` is set) included."""
    return list(_registry().plugins)


def plugin_modules() -> set[str]:
    """The top-level modules of hdzoo and of installed packages with an ``hdzoo`` entry point.

    Nothing is imported: this is what decides whether a module that a downloaded file names may be.
    """
    return {_top_level(entry_point.value) for entry_point in _entry_points()}


def distribution_of(module: str) -> str | None:
    """The distribution (what ``pip install`` takes) of a module in `plugin_modules`, else None."""
    for entry_point in _entry_points():
        if _top_level(entry_point.value) == _top_level(module):
            return _info(entry_point).distribution
    return None


def call_foreign(function: Callable[[], _Result]) -> _Result:
    """Calls a function of somebody else, which must not end the program.

    What it raises that is no `Exception` (SystemExit, KeyboardInterrupt, GeneratorExit...) comes
    out as an `HDZooError` that says so. Only what a signal raises that comes meanwhile, Ctrl-C or
    the wish that the program end, remains what it is.
    """
    came: list[int] = []
    ours: dict[int, tuple[Any, Any]] = {}
    # Only there is a signal heard, and only there a handler may be set.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if callable(before):
                ours[number] = before, _noting(came, before)
                signal.signal(number, ours[number][1])
    try:
        return function()
    except Exception:
        raise
    except BaseException as error:
        if came:
            raise
        raise HDZooError(describe(error)) from error
    finally:
        for which, (before, noting) in ours.items():
            if signal.getsignal(which) is noting:
                signal.signal(which, before)


def _noting(came: list[int], handler: Callable[[int, Any], Any]) -> Callable[[int, Any], Any]:
    """A handler of a signal that notes that it has come, and does what another one does."""

    def note(number: int, frame: Any) -> Any:
        came.append(number)
        return handler(number, frame)

    return note


def describe(error: BaseException) -> str:
    """An error in one line that is safe to print; an `HDZooError` speaks for itself."""
    try:
        text = plain(" ".join(str(error).split()))
    except Exception:
        text = "(its message cannot be read)"
    if isinstance(error, HDZooError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_Result = TypeVar("_Result")
_BUILTIN = EntryPoint(name="builtin", value="hdzoo.builtin", group="hdzoo")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_REFERENCE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_STRICT = "HDZOO_STRICT_PLUGINS"

_Things = dict[Kind, dict[str, tuple[PluginInfo, object]]]


@dataclass
class _Registry:
    plugins: list[PluginInfo] = field(default_factory=list)
    things: _Things = field(default_factory=lambda: {kind: {} for kind in KINDS})


_lock = threading.RLock()
_loading: list[PluginInfo] = []


def _registry() -> _Registry:
    with _lock:
        # The lock lets only its own thread in twice, so this is a plugin asking during its import,
        # when the answer would depend on the order of loading.
        if _loading:
            raise HDZooError(
                f"{_loading[-1]} asked for registered names while plugins were being loaded; "
                "do that inside a function"
            )
        return _discover()


@cache
def _discover() -> _Registry:
    registry = _Registry()
    for entry_point in _entry_points():
        info = _info(entry_point)
        _loading.append(info)
        try:
            brought = call_foreign(partial(_brought, entry_point))
            _refuse_duplicates(registry, info, brought)
        except Exception as error:
            info = replace(info, error=describe(error))
            if os.environ.get(_STRICT, "0") not in ("", "0"):
                raise HDZooError(f"{info} is broken ({_STRICT} is set): {info.error}") from error
            warnings.warn(f"{info} is left out: {info.error}", stacklevel=2)
        else:
            contributed: dict[str, Any] = {kind: tuple(sorted(brought[kind])) for kind in KINDS}
            info = replace(info, **contributed)
            for kind in KINDS:
                registry.things[kind].update({k: (info, v) for k, v in brought[kind].items()})
        finally:
            _loading.pop()
        registry.plugins.append(info)
    return registry


def _entry_points() -> list[EntryPoint]:
    """The built-in one, whether or not hdzoo is installed, then all others in a fixed order."""
    found = [e for e in entry_points(group="hdzoo") if e.value != _BUILTIN.value]
    found.sort(key=lambda e: (_info(e).distribution.lower(), e.name))
    # What a package lists twice is one plugin all the same.
    once = {(_info(e).distribution.lower(), e.value): e for e in reversed(found)}
    return [_BUILTIN, *reversed(once.values())]


def _info(entry_point: EntryPoint) -> PluginInfo:
    dist = entry_point.dist
    try:
        distribution, version = (dist.name, dist.version) if dist else ("hdzoo", __version__)
    # A package whose metadata are damaged.
    except Exception:
        distribution, version = "unknown", "unknown"
    module = entry_point.value.partition(":")[0].strip()
    return PluginInfo(entry_point.name, distribution or "unknown", version or "unknown", module)


def _brought(entry_point: EntryPoint) -> dict[Kind, dict[str, object]]:
    """What one plugin brings, all of it checked."""
    # A manager for each plugin: a bad one leaves nothing behind.
    manager = pluggy.PluginManager("hdzoo")
    manager.add_hookspecs(HookSpecs)
    plugin = entry_point.load()
    manager.register(plugin, entry_point.name)
    callers = {caller.name: caller for caller in manager.get_hookcallers(plugin) or ()}
    hooks: dict[str, Kind] = {f"hdzoo_{kind}": kind for kind in KINDS}
    if not callers:
        raise HDZooError(
            f"{entry_point.value!r} implements no hook; mark with @hdzoo.hookimpl one of: "
            + ", ".join(hooks)
        )
    brought: dict[Kind, dict[str, object]] = {kind: {} for kind in KINDS}
    for hook, caller in callers.items():
        for impl in caller.get_hookimpls():
            if hook in hooks:
                # pluggy's own call drops None, and a forgotten `return` should be heard of.
                brought[hooks[hook]].update(_checked(hook, impl.function()))
            elif not impl.optionalhook:
                raise HDZooError(
                    f"unknown hook {hook!r}{_close(hook, hooks)} The hooks are: {', '.join(hooks)}"
                )
    return brought


def _checked(hook: str, returned: object) -> Iterator[tuple[str, object]]:
    if not isinstance(returned, dict):
        raise HDZooError(f"{hook}() must return a dict, not {returned!r}")
    for name, thing in returned.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise HDZooError(
                f"{hook}() has the name {name!r}; a name has lower-case letters, digits and dashes"
            )
        if thing is None or (isinstance(thing, str) and not _REFERENCE.fullmatch(thing)):
            raise HDZooError(
                f"{hook}() has {thing!r} for {name!r}; "
                "it must be an object or a string 'package.module:Name'"
            )
        yield name, thing


def _refuse_duplicates(
    registry: _Registry, info: PluginInfo, brought: dict[Kind, dict[str, object]]
) -> None:
    for kind in KINDS:
        for name in brought[kind]:
            if name in registry.things[kind]:
                owner = registry.things[kind][name][0]
                raise HDZooError(
                    f"{_singular(kind)} {name!r} of {info.distribution} is already brought by "
                    f"{owner}; rename it, or pip uninstall one of the two"
                )


def _look_up(kind: Kind, name: str) -> tuple[PluginInfo, object]:
    known = _registry().things[_known(kind)]
    if name in known:
        return known[name]
    message = (
        f"unknown {_singular(kind)} {name!r}{_close(name.lower().replace('_', '-'), known)} "
        f"The names are: {', '.join(sorted(known)) or 'none yet'}. For another one, pip install "
        "the package that brings it; `hdzoo plugins` lists what is loaded"
    )
    broken = ", ".join(str(info) for info in plugins() if info.error)
    raise HDZooError(message + (f". Left out, because broken: {broken}" if broken else ""))


def _known(kind: Kind) -> Kind:
    if kind not in KINDS:
        raise HDZooError(f"unknown kind {kind!r}; the kinds are: {', '.join(KINDS)}")
    return kind


def _close(name: str, known: dict[str, Any]) -> str:
    matches = difflib.get_close_matches(name, known)
    return f"; did you mean {' or '.join(map(repr, matches))}?" if matches else "."


def _singular(kind: Kind) -> str:
    return kind.removesuffix("s").replace("_", " ")


def _top_level(module: str) -> str:
    return re.split(r"[.:]", module.strip(), maxsplit=1)[0]
