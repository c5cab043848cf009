"""``<!-- made: KIND ARGUMENT -->`` on a handwritten page is replaced by what code makes."""

import html
import inspect
import re
from collections.abc import Callable
from pathlib import Path

from hdzoo.markdown import prose
from hdzoo.plugins import HookSpecs
from hdzoo.text import plain

from . import pictures, samplers

ROOT = Path(__file__).parents[2]
MARK = re.compile(r"^<!-- made: (\w+) ?(.*?) -->$", re.MULTILINE)


def expand(text: str) -> tuple[str, list[Path]]:
    """A page with what it asks for, and the pictures that came with it.

    Raises:
        KeyError: it asks for what there is not.
    """
    shown: list[Path] = []

    def made(mark: re.Match[str]) -> str:
        return KINDS[mark[1]](mark[2], shown)

    return MARK.sub(made, text), shown


def _samplers(_: str, __: list[Path]) -> str:
    return samplers.table()


def _hooks(_: str, __: list[Path]) -> str:
    hooks = [name for name in vars(HookSpecs) if name.startswith("hdzoo_")]
    said = [inspect.getdoc(getattr(HookSpecs, name)) or "" for name in hooks]
    return "\n\n".join(f"**`{name}`** {text}" for name, text in zip(hooks, said, strict=True))


def _reproductions(_: str, __: list[Path]) -> str:
    from hdzoo.literature.base import catalogue

    rows = [f"| `{row['name']}` | {prose(row['result'])} |" for row in catalogue()]
    return "\n".join(["| name | result |", "| --- | --- |", *rows])


def _reproduction(name: str, shown: list[Path]) -> str:
    try:
        picture, found = pictures.reproduction(name)
    except pictures.Left as reason:
        return f"`hdzoo reproduce {name}` makes the figure. {reason}"
    shown.append(picture)
    words = {True: "It agrees.", False: "It does not agree.", None: ""}
    claims = [
        f"{number}. **{_sentence(one['statement'])}.** {words[one['agrees']]}".rstrip() + "\n\n"
        f"    - Published: {_sentence(one['published'])}\n"
        f"    - Found: {_sentence(one['found'])}\n"
        for number, one in enumerate(found["claims"], 1)
    ]
    return (
        f"![{found['title']}]({picture.name})\n\n```bash\nhdzoo reproduce {name}\n```\n\n"
        + "\n".join(claims)
        + f"\n{_sentence(found['conclusion'])}"
    )


def _sentence(value: object) -> str:
    """What a reproduction says, as it is: its signs mean nothing to Markdown."""
    return re.sub(r"([\\`*_\[\]])", r"\\\1", html.escape(plain(value), quote=False))


def _section(argument: str, _: list[Path]) -> str:
    """A section of another page of the repository, without its heading: ``FILE#Heading``."""
    file, _, heading = argument.partition("#")
    text = (ROOT / file).read_text()
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    if found is None:
        raise KeyError(f"{file} has no heading {heading!r}")
    end = re.search(rf"^#{{1,{len(found[1])}}} ", text[found.end() :], re.MULTILINE)
    section = text[found.end() : found.end() + end.start() if end else None].strip()
    # Its links are relative to its own folder.
    folder = Path(file).parent.as_posix()
    return re.sub(r"\]\((?![a-z]+:|#)", f"](../{folder}/", section)


KINDS: dict[str, Callable[[str, list[Path]], str]] = {
    "samplers": _samplers,
    "hooks": _hooks,
    "reproductions": _reproductions,
    "reproduction": _reproduction,
    "section": _section,
}
