"""What code makes for the site says all there is: samplers, options, hooks, commands, formulas."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from hdzoo_docs import api, blocks, commands, docstrings, pictures, samplers, tutorials
from hdzoo_docs.notation import Notation
from markdown import Markdown

import hdzoo
from hdzoo import HDPipeline, get_sampler, list_samplers
from hdzoo.cli import app
from hdzoo.models.unet import UNetScoreModel
from hdzoo.plugins import HookSpecs, names
from hdzoo.verification.small import option_names

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(pictures.QUICK, "1")


@pytest.mark.parametrize("name", list_samplers())
def test_a_sampler_has_a_page(name: str) -> None:
    page, _ = samplers.page(name)
    assert page.startswith(f"# {name}\n")
    assert "math::" in page or ":math:" in page
    said = docstrings.parts(get_sampler(name))
    assert said.axes
    assert said.source
    rows = dict(re.findall(r"^\| `(\w+)` \| .*? \| (.*) \|$", page, re.MULTILINE))
    assert list(rows) == option_names(get_sampler(name))
    assert [option for option, text in rows.items() if not text] == []


def test_every_sampler_is_in_the_table() -> None:
    table = samplers.table()
    assert [
        name for name in list_samplers() if f"[`{name}`](samplers/{name}.md)" not in table
    ] == []


def test_the_formulas_of_every_page_are_mathml() -> None:
    """No backslash is left of LaTeX's, but for the line ends of aligned formulas."""
    md = Markdown(extensions=["tables", Notation()])
    for name in list_samplers():
        html = md.reset().convert(samplers.page(name)[0].partition("??? quote")[0])
        assert "<math" in html
        assert ":math:" not in html
        assert ".. math::" not in html
        left = re.findall(r"\\\w+", re.sub(r"<code>.*?</code>", "", html, flags=re.DOTALL))
        assert left == [], name


def test_a_formula_and_a_table_of_a_docstring() -> None:
    text = (
        "Of :math:`x^2`:\n\n.. math::\n    a &= 1 \\\\\n    b &= 2\n\nthen\n\n"
        "====  ======\nname  text\n====  ======\n"
        "one   a long\n      text\ntwo   short\n====  ======\n"
    )
    html = Markdown(extensions=["tables", Notation()]).convert(text)
    assert html.count("<math") == 2
    assert html.count("<mtr>") == 2
    assert re.findall(r"<td>(.*?)</td>", html) == ["one", "a long text", "two", "short"]


def test_every_hook_is_on_the_page_about_packages() -> None:
    page, _ = blocks.expand((ROOT / "docs/write-a-sampler.md").read_text())
    hooks = [name for name in vars(HookSpecs) if name.startswith("hdzoo_")]
    assert hooks
    assert [hook for hook in hooks if f"**`{hook}`**" not in page] == []


def test_every_command_and_option_is_in_the_reference() -> None:
    sections = dict(
        re.findall(r"^## `hdzoo ([\w-]+)`\n(.*?)(?=^## |\Z)", commands.page(), re.M | re.S)
    )
    found: Any = typer.main.get_command(app)
    assert set(sections) == set(found.commands)
    for name, command in found.commands.items():
        for option in command.params:
            is_option = option.param_type_name == "option"
            for word in option.opts if is_option else [option.metavar or option.name]:
                assert re.search(rf"^\* `[^`]*{re.escape(word)}", sections[name], re.M), (
                    name,
                    word,
                )


def test_every_public_name_is_in_the_reference() -> None:
    pages = api.pages()
    for room in ("", "models", "targets", "distances", "verification"):
        module = __import__(f"hdzoo.{room}", fromlist=["x"]) if room else hdzoo
        title = f"hdzoo.{room}" if room else "hdzoo"
        shown = {line.rpartition(".")[2] for line in pages[title].splitlines() if line[:3] == ":::"}
        elsewhere = {"models", "targets", "distances", "verification", "named", "__version__"}
        if not room:
            elsewhere |= {n for r in ("models", "targets") for n in pages_of(pages, r)}
        assert set(module.__all__) - elsewhere == shown


def pages_of(pages: dict[str, str], room: str) -> set[str]:
    lines = pages[f"hdzoo.{room}"].splitlines()
    return {line.rpartition(".")[2] for line in lines if line.startswith(":::")}


def test_every_mark_of_a_page_is_replaced() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        text, _ = blocks.expand(page.read_text())
        assert "<!-- made:" not in text, page.name


def test_every_reproduction_is_on_the_page_about_evaluation() -> None:
    page, _ = blocks.expand((ROOT / "docs/evaluate.md").read_text())
    assert [name for name in names("reproductions") if f"| `{name}` |" not in page] == []


# ---- tutorials ------------------------------------------------------------------------------


@pytest.fixture
def tiny_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny network in the place of ``ncsn-mnist``."""
    network = UNetScoreModel(sample_size=8, block_out_channels=(8, 16), norm_num_groups=4)
    sampler = get_sampler("consistent-annealed-sampling")(prediction_type="sample")
    HDPipeline(network, sampler).save_pretrained(tmp_path / "model")
    load = HDPipeline.from_pretrained

    def from_pretrained(name: Any, **more: Any) -> Any:
        return load(tmp_path / "model" if name == "ncsn-mnist" else name, **more)

    monkeypatch.setattr(HDPipeline, "from_pretrained", from_pretrained)


@pytest.mark.parametrize("path", tutorials.scripts(), ids=lambda path: path.stem)
def test_a_tutorial_runs(path: Path, tiny_digits: None) -> None:
    made = tutorials.run(path)
    assert made[0].source.startswith("# ")
    assert any(cell.printed or cell.picture for cell in made)
    kinds = [cell["cell_type"] for cell in json.loads(tutorials.notebook(made))["cells"]]
    assert kinds == [cell.kind for cell in made]
