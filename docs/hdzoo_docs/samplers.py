"""The page of a sampler, and the table of all."""

import inspect
import re
from pathlib import Path
from typing import Any

from hdzoo import plugins
from hdzoo.markdown import code, prose
from hdzoo.verification.small import fewest, watched

from . import docstrings, pictures

NAME = re.compile(r"(?<![`\w:])`(\w+)`(?!`)")


def pages() -> dict[str, tuple[str, list[Path]]]:
    """For each sampler its page, in Markdown, and the pictures on it."""
    return {name: page(name) for name in plugins.list_samplers()}


def page(name: str) -> tuple[str, list[Path]]:
    """The page of one sampler."""
    sampler = plugins.get_sampler(name)
    said = docstrings.parts(sampler)
    shown: list[Path] = []
    parts = [f"# {name}", said.summary, _facts(name, sampler, said), said.text]
    parts += ["## Options", _options(sampler), said.remark]
    parts += ["## Exact law", _law(name, shown)]
    parts += ["## In the plane", _plane(name, shown)]
    parts += ["## On digits", _digits(name, shown)]
    parts += ["## Cost", _cost(sampler)]
    parts += ["## Source", said.source, _code(sampler)]
    linked = (_linked(part, name) if not part.startswith("???") else part for part in parts)
    return "\n\n".join(part for part in linked if part) + "\n", shown


def table() -> str:
    """All samplers, with their axes, as Markdown."""
    rows = ["| sampler | axes | source | package |", "| --- | --- | --- | --- |"]
    for name in plugins.list_samplers():
        sampler, package = plugins.get_sampler(name), plugins.provider("samplers", name)
        axes = _linked(docstrings.parts(sampler).axes, "", "samplers/")
        source = prose(str(getattr(sampler, "source", "")))
        rows.append(
            f"| [`{name}`](samplers/{name}.md) | {axes} | {source} | {package.distribution} |"
        )
    return "\n".join(rows)


def _facts(name: str, sampler: type[Any], said: docstrings.Parts) -> str:
    package = plugins.provider("samplers", name)
    from_noise = getattr(sampler, "starts_from_noise", True)
    facts = {
        "axes": said.axes,
        "starts from": "noise" if from_noise else "states at its noise level",
        "needs of the network": ", ".join(map(str, getattr(sampler, "needs", ()))) or "its score",
        "class": f"`{sampler.__module__}.{sampler.__name__}`",
        "package": f"{package.distribution} {package.version}",
        "source": prose(str(getattr(sampler, "source", ""))),
    }
    rows = [f"| {fact} | {value} |" for fact, value in facts.items() if value]
    return "\n".join(["| | |", "| --- | --- |", *rows])


def _options(sampler: type[Any]) -> str:
    rows = ["| option | default | |", "| --- | --- | --- |"]
    for option, (default, text) in docstrings.options(sampler).items():
        rows.append(f"| `{option}` | {code(default)} | {text} |")
    return "\n".join(rows)


def _law(name: str, shown: list[Path]) -> str:
    try:
        shown.append(pictures.bias(name))
    except pictures.Left as reason:
        return f"{reason} `hdzoo verify {name}` says what is checked instead."
    return (
        f"![exact distance to Gaussian data]({shown[-1].name})\n\nThe exact Wasserstein distance "
        "of its output to Gaussian data (standard deviations 0.25, 0.05 and 0), with its defaults "
        "but for what varies: no sample is drawn. Settings that it refuses have no point. "
        f"`hdzoo verify {name}` prints these numbers and compares the law with its closed form."
    )


def _plane(name: str, shown: list[Path]) -> str:
    command = f"hdzoo demo-2d -s {name} -n {pictures.CHAINS} -t {pictures.PLANE_EVALUATIONS}"
    try:
        shown.append(pictures.plane(name))
    except pictures.Left as reason:
        return str(reason)
    return f"![chains in the plane]({shown[-1].name})\n\n```bash\n{command}\n```"


def _digits(name: str, shown: list[Path]) -> str:
    try:
        picture, made_by = pictures.digits(name)
    except pictures.Left as reason:
        return str(reason)
    shown.append(picture)
    start = (
        "" if made_by["started_from"] == "noise" else f" from those of {made_by['started_from']}"
    )
    return (
        f"![digits by {name}]({picture.name})\n\n{pictures.IMAGES} digits of "
        f"`{made_by['model']}`{start}, with the model's own noise levels where the sampler has "
        f"such options:\n\n```bash\nhdzoo sample {made_by['model']} -s {name} "
        f"-n {pictures.IMAGES} -t {pictures.EVALUATIONS}\n```"
    )


def _cost(sampler: type[Any]) -> str:
    own = sampler()
    said = (
        "One step is one evaluation of the network. "
        f"{own.default_num_inference_steps:,} by default, with these options; at least "
        f"{fewest(watched(sampler)):,} on the short ladder that `hdzoo verify` tries."
    )
    if not getattr(sampler, "starts_from_noise", True):
        said += " The images that it starts from come on top, unless they are given."
    if "update" in vars(sampler) or any("update" in vars(c) for c in _own_bases(sampler)):
        said += " The chain remembers more than its state: `memory`."
    return said


def _own_bases(sampler: type[Any]) -> list[type[Any]]:
    return [
        cls
        for cls in sampler.__mro__
        if cls.__module__.startswith("hdzoo") and not cls.__module__.endswith("samplers.base")
    ]


def _code(sampler: type[Any]) -> str:
    lines = inspect.getsource(sampler).rstrip().splitlines()
    body = "\n".join(f"    {line}".rstrip() for line in lines)
    return f'??? quote "{sampler.__module__}"\n\n    ```python\n{body}\n    ```'


def _linked(text: str, here: str, folder: str = "") -> str:
    """Text in which the classes of samplers are links to their pages."""
    known = _by_class()

    def link(found: re.Match[str]) -> str:
        name = known.get(found[1])
        if name is None or name == here:
            return found[0]
        return f"[`{found[1]}`]({folder}{name}.md)"

    return NAME.sub(link, text)


def _by_class() -> dict[str, str]:
    return {plugins.get_sampler(name).__name__: name for name in plugins.list_samplers()}
