"""Cards and pages on names that mean harm: they are shown, and mean nothing."""

import dataclasses
import html
import json

import pytest
from huggingface_hub import DatasetCard, ModelCard
from markdown_it import MarkdownIt
from matplotlib import mathtext

from hdzoo import HDPipeline
from hdzoo.cards import write_card
from hdzoo.conversion.card import write_conversion_card
from hdzoo.generation.dataset_card import write_dataset_card
from hdzoo.hub.publishing import new_card
from hdzoo.leaderboard.board import Entry, Leaderboard
from hdzoo.leaderboard.pages import markdown, quality_figure
from hdzoo.markdown import code, fenced, prose, table
from hdzoo.metrics.comparison import EqualSize, Result
from hdzoo.metrics.report import Report
from hdzoo.metrics.results_card import write_results

# Folders are called so: without a slash.
NAME = (
    "x\n\n# Mine\n---\nlicense: evil\n---\n```\n<script>alert(1)<!-- ![p](x.png) `a`` | \\| __b__"
)
HOSTILE = (
    NAME + " <img src=https://example.org/x.png> [l](https://example.org) ![p](//example.org/p) "
    "www.example.org https://example.org &lt; $x$ ~~s~~ </code></pre> \x1b[2J \u202e"
)


def rendered(text):
    """HTML of a card's Markdown, where raw HTML counts as such."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)


def check(text, headings):
    """Nothing of a hostile name has a meaning, and what it says can be read."""
    found = rendered(text)
    for tag in ("<script", "<img", "<a ", "<!--", "<del", "<strong"):
        assert tag not in found.replace('<a href="https://github', "").replace(
            '<a href="https://arxiv', ""
        ), found
    assert [found.count(f"<h{level}>") for level in (1, 2)] == headings
    assert "alert(1)" in html.unescape(found)
    assert "\x1b" not in text
    assert "\u202e" not in text


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    """The tiny model, in a folder of a hostile name."""
    folder = tmp_path_factory.mktemp("hostile") / NAME
    HDPipeline.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


# ---- the parts ------------------------------------------------------------------------------

HARMLESS = ["ncsn-mnist", "snake_case_name", "2.9.0+cu128", "Hyvärinen (2025), eq. 4", "a=1e-05"]
STRANGE = [
    *("*a*", "_a_", "__init__", "a `b` c", "``", "`", "<b>", "[a](b)", "![a](b)", "a|b", "\\|"),
    *("https://example.org", "//example.org", "www.example.org", "a@example.org", "&amp;", "$a$"),
    *("# a", "a\n# b", "~~a~~", "\\", "{a}", ":x:", HOSTILE),
]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_harmless_stays_as_it_is(text):
    assert prose(text) == text
    assert rendered(f"# {prose(text)}") == f"<h1>{html.escape(text, quote=False)}</h1>\n"


@pytest.mark.parametrize("text", STRANGE)
def test_what_is_strange_is_shown_as_code(text):
    shown = " ".join(HOSTILE_SHOWN if text is HOSTILE else text.split())
    for said in (f"a {prose(text)} b", f"a {code(text)} b"):
        found = rendered(said)
        assert found.startswith("<p>a <code>")
        inside = found.removeprefix("<p>a <code>").removesuffix("</code> b</p>\n")
        assert html.unescape(inside) == shown


HOSTILE_SHOWN = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e").split()


@pytest.mark.parametrize("text", STRANGE)
def test_a_table_keeps_its_columns_and_a_block_its_end(text):
    found = rendered(table(("left", text), [(text, 1), ("", text)]))
    assert (found.count("<th>"), found.count("<td>"), found.count("<tr>")) == (2, 4, 3)
    found = rendered(f"{fenced(text, 'bash')}\n\n# end\n")
    assert found.count("<pre>") == found.count("<h1>") == 1
    assert found.endswith("</pre>\n<h1>end</h1>\n")


# ---- the cards ------------------------------------------------------------------------------


def test_the_card_of_a_training_run(folder):
    record = {
        "num_images": 1,
        "num_processes": 1,
        "seconds": 12,
        "config": {"seed": 0, HOSTILE: HOSTILE},
        "command": f"hdzoo train '{HOSTILE}'",
        "versions": {"torch": HOSTILE},
    }
    write_card(folder, record, dataset=HOSTILE)
    card = ModelCard.load(folder / "README.md")
    assert card.data.model_name == NAME
    assert card.data.license is None
    check(card.text, [1, 3])
    assert "on 1 image of" in card.text
    assert "on 1 process." in card.text
    assert "with 1 channel," in card.text
    # What one reads who tries it by diffusers alone.
    assert "`DiffusionPipeline.from_pretrained`" in card.text
    assert "no attribute HDPipeline" in " ".join(card.text.split())


def test_the_card_of_a_conversion(folder):
    record = {"averaged": True, "checkpoint": HOSTILE, "command": f"hdzoo convert '{HOSTILE}'"}
    record |= {"options": {HOSTILE: HOSTILE}, "assumed": {HOSTILE: HOSTILE}}
    pipe = HDPipeline.from_pretrained(folder)
    for option in ("step_size", "hand_off", "readout"):
        assert option in pipe.scheduler.config
    write_conversion_card(folder, NAME, pipe, "ncsnv2", "ncsnv2", record, None, HOSTILE)
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == HOSTILE
    check(card.text, [1, 3])


def test_the_card_of_a_model_that_has_none(folder):
    pipe = HDPipeline.from_pretrained(folder)
    pipe.scheduler.register_to_config(note=HOSTILE, **{HOSTILE: 1})
    text = new_card(pipe, "me/net", None)
    check(ModelCard(text).text, [1, 2])


def test_the_card_of_a_generated_set(tmp_path):
    folder = tmp_path / NAME
    folder.mkdir()
    manifest = {
        "sampler": "Langevin",
        "network": "UNet",
        "num_images": 1,
        "num_inference_steps": 1,
        "model": HOSTILE,
        "sampler_options": {HOSTILE: HOSTILE},
        "command": HOSTILE,
    }
    write_dataset_card(folder, manifest)
    card = DatasetCard.load(folder / "README.md")
    assert card.data.pretty_name == NAME
    assert getattr(card.data, "license", None) is None
    check(card.text, [1, 3])
    assert "1 image drawn by Langevin" in card.text
    assert "with 1 network evaluation each" in card.text


def result_called(name, value=1.0):
    return Result("fid", name, value, 0.1, "error", 40, 40, EqualSize(20, 1.0, 0.1, 0.5, 0.1),
                  (1.0, 1.0), (1.0, 1.1))  # fmt: skip


def report_of(**changes):
    report = Report(
        images={"source": HOSTILE, "split": HOSTILE, "manifest": None},
        reference={"dataset": HOSTILE, "split": HOSTILE},
        extractor={"name": HOSTILE, "weights_sha256": "0"},
        seed=0,
        results=[result_called(f"FD ({HOSTILE})")],
        notes=[],
        versions={},
        command=HOSTILE,
        seconds=1.0,
    )
    return dataclasses.replace(report, **changes)


def test_a_leaderboard(tmp_path, monkeypatch):
    protocol = {
        "model": HOSTILE,
        "num_images": 40,
        "seed": 0,
        "dtype": "float32",
        "trials": 0,
        "weights_sha256": "0",
        "versions": {"torch": "2"},
        "command": f"hdzoo compare '{HOSTILE}'",
    }
    entries = [
        Entry("langevin", 10, 0, {"note": HOSTILE}, [], tmp_path, report_of(), None, "fid"),
        Entry("broken", 10, 0, {}, [], tmp_path, None, HOSTILE, "fid"),
    ]
    board = Leaderboard(tmp_path, protocol, entries)
    # The two pictures are ours.
    text = markdown(board).partition("![quality")[0]
    check(text, [1, 1])

    def refuse(*args, **kwargs):
        raise AssertionError("a name was taken for a formula")

    figure = quality_figure(board)
    monkeypatch.setattr(mathtext.MathTextParser, "parse", refuse)
    axes = figure.axes[0]
    for label in (axes.title, axes.yaxis.label):
        assert "$x$" in label.get_text()
        assert label.get_parse_math() is False


def test_results_in_a_card(folder, monkeypatch):
    text = "---\nlicense: mit\n---\n\n# tiny\n"
    (folder / "README.md").write_text(text)
    manifest = {
        "weights_sha256": "0",
        "sampler": HOSTILE,
        "sampler_options": {HOSTILE: HOSTILE},
        "num_inference_steps": 1,
        "seed": 0,
    }
    report = report_of(images={"source": HOSTILE, "manifest": manifest})
    monkeypatch.setattr("hdzoo.metrics.results_card.weights_hash", lambda folder: "0")
    write_results(folder, report)
    once = (folder / "README.md").read_text()
    card = ModelCard(once)
    assert card.data.license == "mit"
    assert card.text.strip() == "# tiny"
    (result,) = card.data.eval_results
    assert result.dataset_name == HOSTILE
    assert result.metric_args["sampler_options"] == {HOSTILE: HOSTILE}
    write_results(folder, report)
    assert (folder / "README.md").read_text() == once


def test_a_snippet_with_a_strange_revision_is_python():
    from hdzoo.cards import address_snippets, usage

    revision = 'x", token="y'
    text = address_snippets(usage("."), ["."], "me/net", revision=revision)
    line = next(line for line in text.splitlines() if "from_pretrained" in line)
    assert f'from_pretrained("me/net", revision={json.dumps(revision)})' in line
