"""The pictures of the site: made once, kept in ``docs/.cache`` under what they depend on."""

import hashlib
import inspect
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hdzoo
from hdzoo import plugins
from hdzoo.errors import HDZooError
from hdzoo.hub.resolve import resolve_model
from hdzoo.version import __version__

CACHE = Path(__file__).parents[1] / ".cache"
# With it nothing is made: what is not in the cache is left out.
QUICK = "HDZOO_DOCS_QUICK"
TARGET, CHAINS, PLANE_EVALUATIONS = "eight-gaussians", 300, 200
# The first that a sampler runs on is shown; by the space that its states are in.
MODELS = {
    "real": ("ncsn-mnist", "energy-mnist", "energy-mnist-cd"),
    "signs": ("binary-mnist",),
}
IMAGES, EVALUATIONS, SCALE = 8, 100, 3
# What a picture of a sampler depends on, besides its own package.
ROOMS = ("samplers", "scores", "demo", "verification")

log = logging.getLogger("mkdocs.hdzoo")


class Left(Exception):  # noqa: N818
    """There is no such picture, for a reason."""


def bias(name: str) -> Path:
    """The exact distance to Gaussian data against cost, step size and noise level."""
    return kept(f"{name}-bias", ".png", _sources(name), lambda path: _draw_bias(name, path))


def plane(name: str) -> Path:
    """Chains on a target in the plane."""
    return kept(f"{name}-plane", ".png", _sources(name), lambda path: _draw_plane(name, path))


def digits(name: str) -> tuple[Path, dict[str, Any]]:
    """Digits, and what made them."""
    weights = [_folder(resolve_model(model)) for model in _models(name)]
    depends = [_sources(name), *weights]
    note = kept(f"{name}-digits", ".json", depends, lambda path: _draw_digits(name, path))
    return note.with_suffix(".png"), json.loads(note.read_text())


def reproduction(name: str) -> tuple[Path, dict[str, Any]]:
    """The figure of a published result found anew, and the rest of it."""
    module = inspect.getsourcefile(plugins.get("reproductions", name))
    depends = [_file(Path(str(module))), *map(room, ROOMS)]

    def make(path: Path) -> None:
        from hdzoo.literature.base import reproduce

        folder = path.parent / f"{path.stem}.made"
        reproduce(name, folder, f"hdzoo reproduce {name}", lambda *_, **__: None)
        (folder / f"{name}.png").replace(path.with_suffix(".png"))
        (folder / f"{name}.json").replace(path)
        shutil.rmtree(folder)

    note = kept(f"reproduce-{name}", ".json", depends, make)
    return note.with_suffix(".png"), json.loads(note.read_text())


# ---- the cache ------------------------------------------------------------------------------


def kept(name: str, ending: str, depends: Any, make: Callable[[Path], None]) -> Path:
    """The file of a name, made now if what it depends on has changed.

    Args:
        name: of the file, without its ending.
        ending: of it.
        depends: what JSON can hold.
        make: writes the file.

    Raises:
        Left: it cannot be made; the reason is kept as well.
    """
    key = hashlib.sha256(json.dumps([__version__, _file(Path(__file__)), depends]).encode())
    path = CACHE / f"{name}-{key.hexdigest()[:12]}{ending}"
    reason = path.with_suffix(".txt")
    if not path.exists() and not reason.exists():
        if os.environ.get(QUICK):
            raise Left("Left out of this build, which makes no pictures.")
        CACHE.mkdir(parents=True, exist_ok=True)
        begin = time.perf_counter()
        try:
            make(path)
        except Left as left:
            reason.write_text(str(left))
        for old in CACHE.glob(f"{name}-{'?' * 12}.*"):
            if not old.name.startswith(path.stem):
                old.unlink()
        log.info("%s: %.1f s", name, time.perf_counter() - begin)
    if reason.exists():
        raise Left(reason.read_text())
    return path


def _sources(name: str) -> Any:
    """What a sampler's pictures depend on."""
    package = plugins.provider("samplers", name).module.partition(".")[0]
    own = [] if package == "hdzoo" else [_package(package)]
    return [*map(room, ROOMS), *own]


def room(name: str) -> str:
    """The sources of a room of hdzoo, as one hash."""
    return _folder(Path(hdzoo.__file__).parent / name, "*.py")


@cache
def _package(name: str) -> str:
    spec = find_spec(name)
    assert spec is not None
    return _folder(Path(str(spec.origin)).parent, "*.py")


@cache
def _folder(folder: Path, pattern: str = "*") -> str:
    files = sorted(path for path in folder.rglob(pattern) if path.is_file())
    return hashlib.sha256("".join(map(_file, files)).encode()).hexdigest()


def _file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- the pictures ---------------------------------------------------------------------------


def _draw_bias(name: str, path: Path) -> None:
    from matplotlib.figure import Figure

    from hdzoo.plots import save_figure, style
    from hdzoo.verification.bias import BUDGET, bias_curves
    from hdzoo.verification.draws import NotAffineError

    try:
        curves = bias_curves(plugins.get_sampler(name))
    except NotAffineError as reason:
        raise Left(f"{str(reason)[0].upper()}{str(reason)[1:].rstrip('.')}.") from reason
    curves = {option: curve for option, curve in curves.items() if curve}
    if not curves:
        raise Left("The sampler refuses every number of network evaluations tried.")
    figure = Figure(figsize=(3.4 * len(curves), 3.0), layout="constrained")
    all_axes: Any = figure.subplots(1, len(curves), sharey=True, squeeze=False)
    for number, (axes, (option, curve)) in enumerate(zip(all_axes[0], curves.items(), strict=True)):
        values = sorted(curve)
        axes.plot(values, [curve[value] for value in values], **style(number))
        axes.set(xscale="log", yscale="log")
        if option == "num_inference_steps":
            axes.set(xlabel="network evaluations", ylabel="exact W2 to the data")
        else:
            axes.set_xlabel(f"{option}, at {BUDGET} evaluations")
        axes.set_xticks(values, [f"{value:.3g}" for value in values])
        axes.tick_params(axis="x", labelsize=7)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    save_figure(figure, path)


def _draw_plane(name: str, path: Path) -> None:
    from hdzoo.demo.demo import demo_2d

    if _space(name) == "signs":
        raise Left("Its states are vectors of signs, and the plane has four of them.")
    try:
        demo = demo_2d(
            TARGET,
            [name],
            num_samples=CHAINS,
            num_inference_steps=PLANE_EVALUATIONS,
            num_frames=2,
        )
    except HDZooError as reason:
        raise Left(f"{str(reason)[0].upper()}{str(reason)[1:].rstrip('.')}.") from reason
    demo.save_last_frame(path)


def _draw_digits(name: str, path: Path) -> None:
    from hdzoo.sampling import image_grid, protocol, save_png

    refused = HDZooError("none is installed")
    for model in _models(name):
        try:
            pipe, images, start = _digits_of(name, model)
        except HDZooError as reason:
            refused = reason
            continue
        made_by = protocol(pipe, model, seed=0, start=start)
        save_png(image_grid(images, SCALE, columns=8), path.with_suffix(".png"), made_by)
        path.write_text(json.dumps(made_by, default=str))
        return
    said = str(refused).rstrip(".")
    raise Left(f"It runs on none of the bundled models. The last refusal: {said}.")


def _digits_of(name: str, model: str) -> Any:
    from hdzoo import sampling

    pipe = sampling.load_pipeline(model, name)
    pipe.set_progress_bar_config(disable=True)
    start = sampling.start_of(pipe, model)
    pipe.check_chain(EVALUATIONS)
    generator = hdzoo.sample_generators(0, range(IMAGES))
    clean = _clean(model) if start is not None else None
    return pipe, pipe(IMAGES, EVALUATIONS, generator=generator, image=clean).images, start


@cache
def _clean(model: str) -> Any:
    """Images of a model's own sampler, for those that start from some."""
    from hdzoo import sampling

    pipe = sampling.load_pipeline(model)
    pipe.set_progress_bar_config(disable=True)
    generator = hdzoo.sample_generators(0, range(IMAGES))
    return pipe(IMAGES, generator=generator, output_type="pt").images


def _models(name: str) -> list[str]:
    return [model for model in MODELS[_space(name)] if model in plugins.names("pipelines")]


def _space(name: str) -> str:
    return str(getattr(plugins.get_sampler(name), "state_space", "real"))
