"""What the README and the handwritten pages show is right: code runs, commands are, links lead on.

In the place of ``ncsn-mnist`` is a folder of that name with a tiny network, which takes precedence.
Code below ``<!-- needs the network -->`` is parsed alone.
"""

import ast
import re
import shlex
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer
from PIL import Image

from hdzoo import HDPipeline, cli, get_sampler, list_samplers
from hdzoo.models.unet import UNetScoreModel

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"^(<!-- needs the network -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEREDOC = re.compile(r"<<'END'\n(.*?)^END$", re.MULTILINE | re.DOTALL)
# Those that are run, on the tiny network; what the others do is tested where they are.
RUN = ("samplers", "plugins", "info", "sample", "inpaint", "posterior", "reproduce", "new-sampler")
SHELL = ("python3", ".", "mkdir", "apt-get", "dpkg", "towncrier")


class Block(NamedTuple):
    """A fenced block: whether it needs the network, its language, its text."""

    needs_network: bool
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    return [Block(bool(a), b, c) for a, b, c in FENCE.findall(page.read_text())]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the blocks name: a model, an image, a mask."""
    folder = tmp_path_factory.mktemp("place")
    torch.manual_seed(0)
    network = UNetScoreModel(sample_size=8, block_out_channels=(8, 16), norm_num_groups=4)
    sampler = get_sampler("consistent-annealed-sampling")(
        sigma_max=2.0, num_levels=4, steps_per_level=3, prediction_type="sample"
    )
    HDPipeline(network, sampler).save_pretrained(folder / "ncsn-mnist")
    picture = Image.radial_gradient("L").resize((8, 8))
    picture.save(folder / "IMAGE.png")
    picture.point(lambda grey: 255 * (grey > 128)).save(folder / "MASK.png")
    return folder


@pytest.fixture
def there(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the current folder."""
    monkeypatch.chdir(place)
    return place


def by_name(pages: list[Path]) -> Any:
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.stem)


@by_name([page for page in PAGES if any(b.language == "python" for b in blocks(page))])
def test_the_code_of_a_page_runs(page: Path, there: Path) -> None:
    """One block after the other, as a reader types them."""
    names: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page):
        if block.language == "python":
            tree = ast.parse(block.text, page.name)
            if not block.needs_network:
                exec(compile(tree, page.name, "exec"), names)


def test_every_block_has_a_language_that_is_checked() -> None:
    found = {block.language for page in PAGES for block in blocks(page)}
    assert found <= {"python", "bash", "text"}


@by_name([page for page in PAGES if any(b.language == "bash" for b in blocks(page))])
def test_the_commands_of_a_page_are_commands(page: Path, there: Path, capsys: Any) -> None:
    for block in blocks(page):
        if block.language != "bash":
            continue
        for code in HEREDOC.findall(block.text):
            ast.parse(code)
        lines = HEREDOC.sub("", block.text).replace("\\\n", " ").splitlines()
        for line in lines:
            words = shlex.split(line, comments=True)
            while words:
                cut = words.index("&&") if "&&" in words else len(words)
                check_command(words[:cut], there)
                words = words[cut + 1 :]


def check_command(words: list[str], there: Path) -> None:
    """Fails where a command, an option or a file of it is none."""
    program, *rest = words
    script = next((word for word in words if word.startswith("benchmarks/")), None)
    if script is not None:
        source = (ROOT / script).read_text()
        for word in words[words.index(script) :]:
            assert not word.startswith("--") or f'"{word}"' in source, f"{script} has no {word}"
    elif program == "hdzoo" or ("-m" in words and "hdzoo" in words):
        check_hdzoo(words[words.index("hdzoo") + 1 :], there)
    elif program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for word in rest:
            assert not word.startswith("./plugins") or (ROOT / word / "pyproject.toml").exists()
            wanted = re.fullmatch(r"\.\[(.+)\]", word)
            assert wanted is None or wanted[1] in extras["optional-dependencies"]
    elif program not in ("pytest", "python", *SHELL):
        pytest.fail(f"no check knows the command {program!r}")


def check_hdzoo(words: list[str], there: Path) -> None:
    command = typer.main.get_command(cli.app).commands[words[0]]  # type: ignore[attr-defined]
    given = command.make_context(words[0], list(words[1:])).params
    wanted = given.get("sampler") or []
    wanted = [wanted] if isinstance(wanted, str) else list(wanted)
    # "my-sampler" is what new-sampler makes.
    assert set(wanted) <= {*list_samplers(), "my-sampler"}
    is_known = given.get("model", "ncsn-mnist") == "ncsn-mnist" and given.get("name") is None
    if words[0] in RUN and (is_known or words[0] == "new-sampler"):
        few = ["-n", "4"] if "num_images" in given and given["num_images"] is None else []
        run_once(("hdzoo", *words, *few))


@cache
def run_once(words: tuple[str, ...]) -> None:
    """Runs a command that several pages may show."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(words))
        with pytest.raises(SystemExit) as end:
            cli.main()
    # Two pages make the same package, in two ways.
    assert not end.value.code or words[1] == "new-sampler", words


# ---- links ----------------------------------------------------------------------------------


def made_pages() -> set[Path]:
    """Those that are not in the repository, as `docs/hooks.py` places them."""
    docs = ROOT / "docs"
    return {
        docs / "command-line.md",
        docs / "api/contract.md",
        *(docs / f"samplers/{name}.md" for name in list_samplers()),
        *(path.with_suffix(".md") for path in (docs / "tutorials").glob("*.py")),
    }


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub and mkdocs make them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


@by_name(PAGES)
def test_links_lead_to_something(page: Path) -> None:
    made = made_pages() if page.parent.name == "docs" else set()
    text = FENCE.sub("", page.read_text())
    for link in LINK.findall(text):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target in made or target.exists(), f"{page.name}: {link}"
        if anchor and target not in made:
            assert anchor in anchors(target), f"{page.name}: {link}"


def test_every_page_is_in_the_contents() -> None:
    contents = (ROOT / "mkdocs.yml").read_text()
    names = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]]
    names += [f"tutorials/{path.stem}.md" for path in (ROOT / "docs/tutorials").glob("*.py")]
    assert [name for name in names if f" {name}\n" not in contents] == []
