"""What it takes to write a sampler: few lines, and no private names."""

import ast
import re
from pathlib import Path

import pytest

from hdzoo.samplers import averaged_noise, dpm_solver, heun, predictor_corrector, underdamped, unipc

ROOT = Path(__file__).parents[2]
OWN = [Path(m.__file__) for m in (averaged_noise, dpm_solver, heun)]
OWN += [Path(m.__file__) for m in (predictor_corrector, underdamped, unipc)]
TEMPLATES = sorted((ROOT / "hdzoo" / "scaffold" / "template").glob("sampler_*.py.txt"))
PLUGINS = sorted((ROOT / "plugins").glob("*/src/*/*.py"))
# Six evaluations a step, a rest of the budget, and two refusals: its package's README says so.
LONGER = {"ProbabilityFlowRK45Sampler": 38}
# Not how a sampler moves: its options, and the law that `hdzoo verify` compares it with.
BESIDE = ("__init__", "closed_form")


def samplers(source: str) -> list[str]:
    """The names of the sampler classes of a file."""
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    return [one.name for one in classes if one.name.endswith("Sampler")]


def methods(source: str, name: str | None = None) -> list[ast.FunctionDef]:
    """Those that say how the samplers of a file move, or one of them."""
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    classes = [one for one in classes if name in (None, one.name)]
    functions = [f for one in classes for f in one.body if isinstance(f, ast.FunctionDef)]
    return [f for f in functions if f.name not in BESIDE]


def length(source: str, name: str | None = None) -> int:
    """Lines of code, without docstrings, comments and blank lines."""
    code = 0
    for function in methods(source, name):
        first = min(d.lineno for d in [*function.decorator_list, function])
        documented = function.body[0] if ast.get_docstring(function) else None
        for number in range(first, (function.end_lineno or first) + 1):
            text = source.splitlines()[number - 1].strip()
            inside = documented and documented.lineno <= number <= (documented.end_lineno or 0)
            code += bool(text) and not text.startswith("#") and not inside
    return code


def private(source: str) -> set[str]:
    """Names with an underscore in front that the methods use of others; `_replace` is public."""
    used = [n for f in methods(source) for n in ast.walk(f) if isinstance(n, ast.Attribute)]
    return {n.attr for n in used if re.match(r"_(?!_)", n.attr)} - {"_replace"}


def test_what_is_counted() -> None:
    source = '''
class S:
    """Not this."""

    source = "nor this"

    def __init__(self):
        self.set_timesteps()

    @property
    def own(self):
        """Nor this,
        nor this."""

        # Nor this.
        return self._hidden._replace(
            a=1
        )
'''
    assert (length(source), private(source)) == (5, {"_hidden"})


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_own_samplers(path: Path) -> None:
    source = path.read_text()
    assert methods(source)
    assert length(source) <= 25
    assert not private(source)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_what_new_sampler_writes(path: Path) -> None:
    source = re.sub(r"\$\{(\w+)\}", r"\1", path.read_text())
    assert methods(source)
    assert length(source) <= 30
    assert not private(source)


def test_packages() -> None:
    sources = {path: path.read_text() for path in PLUGINS}
    found = {name: length(source, name) for source in sources.values() for name in samplers(source)}
    assert {"ExampleDDIMSampler", "WalkJumpSampler", *LONGER} <= set(found)
    assert {name: lines for name, lines in found.items() if lines > 30} == LONGER
    assert [path for path, source in sources.items() if samplers(source) and private(source)] == []
