"""Plugins: what a good one brings, and that a bad one harms nobody else."""

import importlib
import json
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from hdzoo import HDZooError, get_sampler, list_samplers, plugins

GOOD = """
from hdzoo import hookimpl

class Good: ...

@hookimpl
def hdzoo_samplers():
    return {"good-lazy": f"{__name__}:Good", "good": Good}

@hookimpl
def hdzoo_targets():
    return {"good": f"{__name__}:Good"}
"""

PLUGIN_OBJECT = """
from hdzoo import hookimpl

class Plugin:
    @hookimpl
    def hdzoo_models(self):
        return {"m": int}

plugin = Plugin()
"""


def hook(body: str, name: str = "hdzoo_samplers") -> str:
    return f"from hdzoo import hookimpl\n@hookimpl\ndef {name}():\n    {body}\n"


BROKEN = {
    "import-error": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_mod"),
    "syntax-error": ("def f(:", "SyntaxError"),
    "exit": ("raise SystemExit('bye')", "SystemExit: bye"),
    "interrupt": ("raise KeyboardInterrupt('not you')", "KeyboardInterrupt: not you"),
    "generator-exit": ("raise GeneratorExit", "GeneratorExit"),
    "own-kind": ("class Own(BaseException): ...\nraise Own('odd')", "Own: odd"),
    "exit-in-a-hook": (hook("raise SystemExit(3)"), "SystemExit: 3"),
    "unprintable": (
        "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
        "E: (its message cannot be read)",
    ),
    "no-hook": ("def hdzoo_samplers(): return {}", "implements no hook"),
    "misspelled-hook": (
        hook("return {}", name="hdzoo_sampler"),
        "unknown hook 'hdzoo_sampler'; did you mean 'hdzoo_samplers'",
    ),
    "argument": (hook("").replace("():", "(x): ..."), "PluginValidationError"),
    "raises": (hook("raise RuntimeError('two\\nlines')"), "RuntimeError: two lines"),
    "no-return": (hook("pass"), "must return a dict, not None"),
    "not-a-dict": (hook("return ['a']"), "must return a dict, not ['a']"),
    "bad-name": (hook("return {'My_Sampler': int}"), "has the name 'My_Sampler'"),
    "bad-reference": (hook("return {'a': 'module.Name'}"), "has 'module.Name' for 'a'"),
    "none": (hook("return {'a': None}"), "has None for 'a'"),
    "asks-while-loading": ("import hdzoo; hdzoo.list_samplers()", "do that inside a function"),
    "taken-pipeline": (
        "from pathlib import Path\n"
        + hook("return {'ncsn-mnist': Path('/tmp')}", name="hdzoo_pipelines"),
        "'ncsn-mnist' of taken-pipeline is already",
    ),
    "path-as-a-name": (
        hook("return {'../ncsn-mnist': int}", name="hdzoo_pipelines"),
        "has the name '../ncsn-mnist'",
    ),
    "folder-as-a-word": (
        hook("return {'mine': '/tmp/mine'}", name="hdzoo_pipelines"),
        "has '/tmp/mine' for 'mine'",
    ),
    "taken-name": (
        hook("return {'mine': int, 'langevin': int}"),
        "'langevin' of taken-name is already",
    ),
}

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Make a distribution called as told, version 1.0, of one module, with one entry point."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("HDZOO_STRICT_PLUGINS", raising=False)
    modules = []

    def install(distribution: str, source: str, attribute: str = "") -> None:
        module = distribution.replace("-", "_")
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        info.joinpath("entry_points.txt").write_text(
            f"[hdzoo]\n{distribution}-entry = {module}{attribute}\n"
        )
        importlib.invalidate_caches()
        plugins._discover.cache_clear()

    yield install
    for module in modules:
        sys.modules.pop(module, None)
    plugins._discover.cache_clear()


def info(distribution: str) -> plugins.PluginInfo:
    (found,) = (p for p in plugins.plugins() if p.distribution == distribution)
    return found


def test_every_kind_has_one_documented_hook() -> None:
    hooks = {k: v for k, v in vars(plugins.HookSpecs).items() if hasattr(v, "hdzoo_spec")}
    assert set(hooks) == {f"hdzoo_{kind}" for kind in plugins.KINDS}
    assert [name for name, spec in hooks.items() if not (spec.__doc__ or "").strip()] == []


def test_builtin_parts_come_through_the_hooks() -> None:
    first = plugins.plugins()[0]
    assert (first.name, first.distribution, first.error) == ("builtin", "hdzoo", None)
    assert {"langevin", "half-denoising", "alpha-half-denoising"} <= set(first.samplers)
    assert {"ncsn", "ncsnv2", "unet"} <= set(first.models)
    assert "digits" in first.datasets


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_builtin_references_resolve(kind: plugins.Kind) -> None:
    for name in getattr(plugins.plugins()[0], kind):
        thing = plugins.get(kind, name)
        assert thing.is_dir() if kind == "pipelines" else callable(thing)


@pytest.mark.parametrize("metadata", [[], [EntryPoint("builtin", "hdzoo.builtin", "hdzoo")]])
def test_builtin_parts_come_once_with_or_without_metadata(
    metadata: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: metadata)
    plugins._discover.cache_clear()
    assert [(info.name, info.error) for info in plugins.plugins()] == [("builtin", None)]
    assert "langevin" in list_samplers()
    assert plugins.plugin_modules() == {"hdzoo"}
    plugins._discover.cache_clear()


def test_good_plugin(install: Install) -> None:
    install("a-good", GOOD)
    assert list_samplers() == sorted(list_samplers())
    assert {"good", "good-lazy", "langevin"} <= set(list_samplers())
    assert get_sampler("good") is get_sampler("good-lazy")
    assert get_sampler("good").__name__ == "Good"
    assert plugins.provider("samplers", "good-lazy") == info("a-good")
    assert info("a-good") == plugins.PluginInfo(
        name="a-good-entry",
        distribution="a-good",
        version="1.0",
        module="a_good",
        samplers=("good", "good-lazy"),
        targets=("good",),
    )
    assert json.loads(json.dumps(asdict(info("a-good"))))["samplers"] == ["good", "good-lazy"]


def test_discovery_happens_once(install: Install) -> None:
    install("counted", hook("calls.append(1); return {}").replace("@", "calls = []\n@", 1))
    for _ in range(3):
        list_samplers()
        plugins.plugins()
    assert sys.modules["counted"].calls == [1]


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plugin_is_left_out_alone(case: str, install: Install) -> None:
    source, error = BROKEN[case]
    install("a-good", GOOD)
    install(case, source)
    install("z-good", GOOD.replace('"good', '"z-good'))
    with pytest.warns(UserWarning, match="is left out") as caught:
        found = list_samplers()
    (message,) = (str(w.message) for w in caught)
    assert message.startswith(f"plugin '{case}-entry' ({case} 1.0) is left out: ")
    assert "\n" not in message
    assert error in str(info(case).error)
    assert info(case).samplers == ()
    assert {"good", "z-good", "langevin"} <= set(found)
    assert "mine" not in found


@pytest.mark.parametrize("case", BROKEN)
def test_strict_mode_raises(case: str, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    source, error = BROKEN[case]
    install(case, source)
    monkeypatch.setenv("HDZOO_STRICT_PLUGINS", "1")
    with pytest.raises(HDZooError, match=re.escape(error)) as caught:
        list_samplers()
    assert f"plugin '{case}-entry' ({case} 1.0)" in str(caught.value)
    monkeypatch.setenv("HDZOO_STRICT_PLUGINS", "0")
    with pytest.warns(UserWarning, match="is left out"):
        assert "langevin" in list_samplers()


def test_second_plugin_with_a_taken_name_is_left_out_whole(install: Install) -> None:
    install("b-second", GOOD.replace('"good-lazy"', '"other"'))
    install("a-first", GOOD)
    with pytest.warns(UserWarning, match="b-second") as caught:
        assert "other" not in list_samplers()
    assert len(caught) == 1
    assert plugins.provider("samplers", "good").distribution == "a-first"
    error = info("b-second").error or ""
    owner = "plugin 'a-first-entry' (a-first 1.0)"
    assert error.startswith(f"sampler 'good' of b-second is already brought by {owner}; rename")
    assert info("b-second").targets == ()


def test_hook_of_a_later_version_may_be_optional(install: Install) -> None:
    source = hook("return {}", name="hdzoo_later").replace("@hookimpl", "@hookimpl(optionalhook=1)")
    install("later", source)
    assert info("later").error is None


def end(number: int, _: object) -> None:
    sys.exit(128 + number)


@pytest.mark.parametrize(
    ("name", "handler", "error"),
    [
        ("SIGINT", signal.default_int_handler, KeyboardInterrupt),
        ("SIGTERM", end, SystemExit),
    ],
)
def test_a_signal_while_plugins_load_ends_the_program(
    name: str, handler: Any, error: type[BaseException], install: Install
) -> None:
    install("slow", f"import os, signal\nos.kill(os.getpid(), signal.{name})\nlen([])")
    # A run in the background of a shell is deaf to Ctrl-C.
    before = signal.signal(signal.Signals[name], handler)
    try:
        with pytest.raises(error):
            list_samplers()
        assert signal.getsignal(signal.Signals[name]) is handler
    finally:
        signal.signal(signal.Signals[name], before)


@pytest.mark.parametrize("again", ["twice-entry = twice", "another = twice"])
def test_what_a_package_lists_twice_is_one_plugin(
    again: str, install: Install, tmp_path: Path
) -> None:
    install("twice", GOOD)
    path = tmp_path / "twice-1.0.dist-info" / "entry_points.txt"
    path.write_text(f"{path.read_text()}{again}\n")
    importlib.invalidate_caches()
    assert info("twice").error is None
    assert info("twice").samplers == ("good", "good-lazy")


def test_a_package_without_metadata_harms_nobody(install: Install, tmp_path: Path) -> None:
    install("bare", GOOD)
    (tmp_path / "bare-1.0.dist-info" / "METADATA").unlink()
    importlib.invalidate_caches()
    assert "langevin" in list_samplers()
    assert [p.error for p in plugins.plugins() if p.module == "bare"] == [None]


def test_unknown_name(install: Install) -> None:
    install("broken", "1 / 0")
    with pytest.warns(UserWarning, match="ZeroDivisionError"), pytest.raises(HDZooError) as caught:
        get_sampler("HALF_DENOISIN")
    message = str(caught.value)
    assert "unknown sampler 'HALF_DENOISIN'; did you mean 'half-denoising'" in message
    assert ", ".join(list_samplers()) in message
    assert "pip install" in message
    assert "`hdzoo plugins`" in message
    assert "broken 1.0" in message
    with pytest.raises(HDZooError, match="unknown feature extractor 'x'"):
        plugins.get("feature_extractors", "x")
    with pytest.raises(HDZooError, match="unknown kind 'sampler'; the kinds are: samplers, "):
        plugins.names("sampler")  # type: ignore[arg-type]


def test_reference_that_cannot_be_imported_names_its_plugin(install: Install) -> None:
    install("hollow", hook("return {'hollow': 'hollow:Missing', 'odd': len}"))
    assert "hollow" in list_samplers()
    with pytest.raises(HDZooError, match=r"sampler 'hollow' of .*\(hollow 1.0\).*AttributeError"):
        get_sampler("hollow")
    with pytest.raises(HDZooError, match=r"sampler 'odd' of .*\(hollow 1.0\).* must be a class"):
        get_sampler("odd")


def test_plugin_modules_imports_nothing(install: Install) -> None:
    install("fatal-at-import", "raise SystemExit")
    assert {"hdzoo", "fatal_at_import"} <= plugins.plugin_modules()
    assert "torch" not in plugins.plugin_modules()
    assert "fatal_at_import" not in sys.modules
    assert plugins.distribution_of("fatal_at_import.deep.module") == "fatal-at-import"
    assert plugins.distribution_of("hdzoo.models.ncsn") == "hdzoo"
    assert plugins.distribution_of("torch.nn") is None


def test_plugin_may_be_an_object(install: Install) -> None:
    install("an-object", PLUGIN_OBJECT, ":plugin")
    assert info("an-object").models == ("m",)
    assert info("an-object").module == "an_object"
    assert plugins.get("models", "m") is int
    assert plugins.distribution_of("an_object") == "an-object"


REPRODUCTION = """
'''What a plugin found.

More of it.'''
from hdzoo import hookimpl
from hdzoo.literature.base import Claim, Reproduction

@hookimpl
def hdzoo_reproductions():
    return {"found": f"{__name__}:run", "nothing": f"{__name__}:nothing", "none": "nowhere:run"}

def run(progress, *, quick=False, folder):
    progress("half", 1, 2)
    claims, page = [Claim("a", "1", "1", True)], f"quick {quick}, in {folder.name}"
    return Reproduction("Title", "Source", claims, {"a": 1}, draw=lambda _: 0, page=page)

def nothing(progress):
    pass
"""


def test_a_plugin_brings_a_reproduction(install: Install, tmp_path: Path) -> None:
    from hdzoo.literature.base import catalogue, reproduce

    install("finder", REPRODUCTION)
    rows = {row["name"]: row["result"] for row in catalogue()}
    assert rows["found"] == "What a plugin found."
    assert "'none' of plugin 'finder-entry' (finder 1.0) cannot be imported" in rows["none"]
    said: list[str] = []
    result = reproduce("found", tmp_path, "reproduce found", lambda text, *_: said.append(text))
    assert (result.title, said) == ("Title", ["half"])
    written = json.loads((tmp_path / "found.json").read_text())
    assert (written["numbers"], written["versions"]["finder"]) == ({"a": 1}, "1.0")
    assert (tmp_path / "found.md").read_text() == "quick False, in found"
    reproduce("found", tmp_path, "", lambda *_: None, {"quick": True})
    assert (tmp_path / "found.md").read_text() == "quick True, in found"
    for name, option, known in (("found", "folder", "quick"), ("nothing", "quick", "none")):
        with pytest.raises(HDZooError, match=f"no option '{option}'; it has {known}$"):
            reproduce(name, tmp_path, "", lambda *_: None, {option: True})
    with pytest.raises(HDZooError, match=r"'nothing' of .*\(finder 1.0\) returns 'NoneType'"):
        reproduce("nothing", tmp_path, "", lambda *_: None)


OBJECTIVE = """
from hdzoo import hookimpl
from hdzoo.training.objectives import Objective

class Mine(Objective):
    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

@hookimpl
def hdzoo_objectives():
    return {"mine": f"{__name__}:Mine", "gone": "nowhere:Mine", "no-class": print}
"""


def test_a_plugin_brings_an_objective(install: Install) -> None:
    from hdzoo.training.objectives import build_objective

    install("taught", OBJECTIVE)
    install("untaught", OBJECTIVE.replace('return {"mine"', 'return {"sliced"'))
    with pytest.warns(UserWarning, match=r"untaught.* is left out: objective 'sliced'"):
        assert build_objective("mine", {"strength": 2.0}).strength == 2.0
    with pytest.raises(HDZooError, match="'mine' has no option strengh; it has strength"):
        build_objective("mine", {"strengh": 2.0})
    with pytest.raises(HDZooError, match=r"'gone' of .*\(taught 1.0\) cannot be imported"):
        build_objective("gone", {})
    with pytest.raises(HDZooError, match=r"'no-class' of .*\(taught 1.0\) is .*must be a class"):
        build_objective("no-class", {})
    # It would take the name of one of ours: it is left out, and they go on working.
    assert "objective 'sliced' of untaught is already" in str(info("untaught").error)
    assert build_objective("sliced", {}).probes == 1
