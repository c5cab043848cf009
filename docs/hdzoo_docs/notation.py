"""What docstrings say in reStructuredText, for Markdown: formulas, as MathML, and simple tables."""

import re
from itertools import pairwise
from typing import Any

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor

BLOCK = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*|[ \t]*(?=\n\1 +\S)))*)", re.MULTILINE)
INLINE = re.compile(r":math:`([^`]+)`")
RULE = re.compile(r"^ *=+(?: +=+)+ *$")


class Notation(Extension):
    """After fenced code is out of the way, before HTML is looked for."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        md.preprocessors.register(_Formulas(md), "hdzoo-formulas", 22)


class _Formulas(Preprocessor):
    def run(self, lines: list[str]) -> list[str]:
        def block(found: re.Match[str]) -> str:
            html = f'<div class="formula">{mathml(found[2], "block")}</div>'
            return f"\n{found[1]}{self.md.htmlStash.store(html)}\n"

        def inline(found: re.Match[str]) -> str:
            return self.md.htmlStash.store(mathml(found[1]))

        text = BLOCK.sub(block, "\n".join(tables(lines)))
        return INLINE.sub(inline, text).split("\n")


def mathml(formula: str, display: str = "inline") -> str:
    """A formula of LaTeX's; several lines of it are aligned at ``&``."""
    formula = " ".join(formula.split())
    if "\\\\" in formula or "&" in formula:
        formula = rf"\begin{{split}}{formula}\end{{split}}"
    return convert(formula, display=display)


def tables(lines: list[str]) -> list[str]:
    """The lines, with simple tables (columns under ``===``) as Markdown's."""
    made: list[str] = []
    rules = [i for i, line in enumerate(lines) if RULE.match(line)]
    begin = 0
    for top, middle, bottom in zip(rules[::3], rules[1::3], rules[2::3], strict=False):
        edges = [found.start() for found in re.finditer(r"=+", lines[top])] + [None]
        made += [*lines[begin:top], ""]
        made += _row(_cells(lines[top + 1], edges))
        made += ["|" + " --- |" * (len(edges) - 1)]
        row: list[str] = []
        for line in lines[middle + 1 : bottom]:
            cells = _cells(line, edges)
            if cells[0]:
                made += _row(row) if row else []
                row = cells
            else:
                row = [f"{one} {more}".strip() for one, more in zip(row, cells, strict=True)]
        made += [*_row(row), ""]
        begin = bottom + 1
    return made + lines[begin:]


def _cells(line: str, edges: list[Any]) -> list[str]:
    return [line[a:b].strip() for a, b in pairwise(edges)]


def _row(cells: list[str]) -> list[str]:
    return ["| " + " | ".join(cells) + " |"]
