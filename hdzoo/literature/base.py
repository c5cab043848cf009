"""What a reproduction is, which there are, and how one is run and written down."""

import inspect
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hdzoo import plugins
from hdzoo.errors import HDZooError
from hdzoo.files import check_file, whole_file, write_json
from hdzoo.version import __version__

# What a reproduction is called with that keeps what it has done.
FOLDER = "folder"


@dataclass(frozen=True)
class Claim:
    """One statement, what the source says of it, and what is found.

    Attributes:
        statement: what it is about, one line.
        published: what the source says, in words or numbers; ``"not public"`` where its numbers
            could not be had.
        found: what is found here.
        agrees: whether the two agree; None where there is nothing to compare with.
    """

    statement: str
    published: str
    found: str
    agrees: bool | None = None


@dataclass
class Reproduction:
    """The outcome of a reproduction.

    Attributes:
        title: one line.
        source: authors, arXiv id, place in the paper.
        claims: in the order in which to read them.
        numbers: everything measured, for the JSON; with the settings that gave it.
        draw: draws on an empty `matplotlib.figure.Figure`.
        conclusion: in a few sentences, what to take from it.
        settings: what gave the numbers.
        page: Markdown for ``NAME.md``, where the claims alone do not say it; "" for no such file.
    """

    title: str
    source: str
    claims: list[Claim]
    numbers: dict[str, Any]
    draw: Callable[[Any], None]
    conclusion: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    page: str = ""


class Progress(Protocol):
    """What each function gets, to say now and then how far it is."""

    def __call__(self, text: str, done: int = 0, total: int = 0) -> None:
        """Says it.

        Args:
            text: what is done next, or was found.
            done: how many of the longest steps are done.
            total: how many there are; 0 where that says nothing of the time.
        """


def reproduce(
    name: str,
    output_dir: Path,
    command: str,
    progress: Progress,
    options: Mapping[str, Any] | None = None,
) -> Reproduction:
    """Runs a reproduction and writes ``NAME.json``, ``NAME.png``, and ``NAME.md`` if it has a page.

    Args:
        name: a registered one.
        output_dir: where the files go; one that can go on where it stopped keeps what it has done
            in the folder ``NAME`` there.
        command: what the user typed, for the JSON.
        progress: told how far it is.
        options: of this reproduction, none by default.

    Raises:
        HDZooError: there is no such reproduction, it has no such option, or the files cannot be
            written.
    """
    import torch
    from matplotlib.figure import Figure

    source = plugins.provider("reproductions", name)
    files = [output_dir / f"{name}{ending}" for ending in (".png", ".json", ".md")]
    for path in files:
        check_file(path)
    run = plugins.get("reproductions", name)
    arguments = _arguments(run, name, options or {}, output_dir)
    begin = time.perf_counter()
    # On matrices this small threads cost more than they give, most of all on a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = run(progress, **arguments)
    finally:
        torch.set_num_threads(threads)
    if not isinstance(result, Reproduction):
        raise HDZooError(
            f"reproduction {name!r} of {source} returns {type(result).__name__!r}; it must be a "
            "hdzoo.literature.base.Reproduction"
        )
    figure = Figure(layout="constrained")
    result.draw(figure)
    with whole_file(files[0]) as partial:
        figure.savefig(partial, dpi=150, format="png")
    if result.page:
        with whole_file(files[2]) as partial:
            partial.write_text(result.page)
    write_json(
        files[1],
        {
            "title": result.title,
            "source": result.source,
            "claims": [asdict(claim) for claim in result.claims],
            "conclusion": result.conclusion,
            "settings": result.settings,
            "numbers": result.numbers,
            "command": command,
            "seconds": round(time.perf_counter() - begin, 1),
            "versions": {
                "hdzoo": __version__,
                source.distribution: source.version,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        },
    )
    return result


def _arguments(
    run: Callable[..., Any], name: str, options: Mapping[str, Any], output_dir: Path
) -> dict[str, Any]:
    """What a reproduction is called with, once its options are known to be its own."""
    parameters = inspect.signature(run).parameters.values()
    known = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    for option in options:
        if option not in known - {FOLDER}:
            raise HDZooError(
                f"reproduction {name!r} has no option {option!r}; it has "
                f"{', '.join(sorted(known - {FOLDER})) or 'none'}"
            )
    return {**options, **({FOLDER: output_dir / name} if FOLDER in known else {})}


def catalogue() -> list[dict[str, str]]:
    """One row for each reproduction: its name, and the first line of what its module says."""
    rows = []
    for name in plugins.names("reproductions"):
        try:
            module = inspect.getmodule(plugins.get("reproductions", name))
            said = (getattr(module, "__doc__", None) or "").strip().partition("\n")[0]
        except HDZooError as error:
            said = str(error)
        rows.append({"name": name, "result": said})
    return rows


def claim_rows(result: Reproduction) -> list[dict[str, str]]:
    """One row for each claim."""
    words = {True: "yes", False: "no", None: ""}
    return [asdict(claim) | {"agrees": words[claim.agrees]} for claim in result.claims]
