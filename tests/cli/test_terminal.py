"""What reaches the terminal: nothing that it would obey, results alone on standard output, and how
long the rest takes."""

import importlib
import json
import logging
import os
import shutil
import subprocess
import sys
import unicodedata
import warnings

import pytest

from hdzoo import HDZooError, plugins
from hdzoo.cli import terminal
from hdzoo.text import counted, plain

# Clears the screen, sets the title, fills the clipboard, deletes what was written, turns the
# direction of writing, hides a tag, and is one byte of the 8-bit forms.
ESCAPES = "\x1b[2J\x1b]0;root\x07\x1b]52;c;cm0gLXJm\x07\b\x7f\u202e\U000e0041\x9b31m"
MARKUP = "[red]red[/red][link=https://example.org]here[/link][/bold]"


def unseen(text):
    """The characters of a text that a terminal obeys or nobody sees."""
    # A bar of progress goes back to the beginning of its line.
    return [
        c for c in text if c not in "\n\r" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl")
    ]


# ---- text -----------------------------------------------------------------------------------


def test_every_control_character_is_spelt_out_and_all_else_stays():
    # All that are in the basic plane's first part, separators and halves, and the tags.
    for number in (*range(0x2100), *range(0xD800, 0xE010), 0xFEFF, *range(0xE0000, 0xE0080)):
        character = chr(number)
        said = plain(f"a{character}b")
        if character == "\r" or (unseen(character) and character not in "\t\u200c\u200d"):
            assert said == f"a{character.encode('unicode_escape').decode()}b"
        elif unicodedata.category(character) not in ("Zp",):
            assert said == f"a{character}b"
    assert plain(plain(ESCAPES)) == plain(ESCAPES)


def test_an_error_is_plain_wherever_it_is_printed():
    assert str(HDZooError(f"unknown {ESCAPES}")) == f"unknown {plain(ESCAPES)}"
    assert "\\x1b[2J" in str(HDZooError(ESCAPES))


@pytest.mark.parametrize("rows", [[], [{"name": ""}], [{"name": "a"}]])
def test_a_table_may_have_no_rows(rows, capsys):
    terminal.print_table(rows, ("name",))
    out = capsys.readouterr().out
    assert "name" in out
    assert out.count("│ a") == (rows == [{"name": "a"}])


def test_one_is_one():
    assert counted(1, "image") == "1 image"
    assert counted(0, "image") == "0 images"
    assert counted(2, "process", "processes") == "2 processes"
    assert counted(10_000, "image") == "10,000 images"


# ---- what others wrote ----------------------------------------------------------------------


@pytest.fixture
def hostile_model(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"note": ESCAPES, ESCAPES: MARKUP, MARKUP: 1}))
    return folder


def test_info_shows_what_a_model_says_of_itself_and_obeys_none_of_it(run, hostile_model):
    code, out, err = run("info", hostile_model)
    assert code == 0
    assert unseen(out + err) == []
    assert "\\x1b[2J" in out
    # Not taken for markup either: it would vanish, or fail for the end without a beginning.
    assert "[red]red[/red]" in out.replace("\n", "")
    assert json.loads(run("info", hostile_model, "--json")[1])["sampler_options"]["note"] == ESCAPES


@pytest.mark.parametrize("entry", [["os", ESCAPES], [ESCAPES, "X"], [MARKUP, "X"], ESCAPES])
def test_a_refusal_shows_an_index_and_obeys_none_of_it(run, hostile_model, entry):
    path = hostile_model / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scheduler": entry}))
    code, out, err = run("sample", hostile_model)
    assert (code, out) == (2, "")
    assert unseen(err) == []
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert "\\x1b" in line or "[red]" in line or "os" in line


def test_warnings_the_log_and_tracebacks_are_plain(capsys, monkeypatch):
    for module, name in ((warnings, "showwarning"), (sys, "excepthook")):
        monkeypatch.setattr(module, name, getattr(module, name))
    before = logging.getLogRecordFactory()
    try:
        terminal.speak_plainly()
        warnings.showwarning(UserWarning(ESCAPES), UserWarning, "file", 1)
        handler = logging.StreamHandler(sys.stderr)
        handler.handle(logging.getLogger("other").makeRecord("", 30, "", 1, "%s", (ESCAPES,), None))
        sys.excepthook(RuntimeError, RuntimeError(ESCAPES), None)
    finally:
        logging.setLogRecordFactory(before)
    err = capsys.readouterr().err
    assert unseen(err) == []
    assert err.count(plain(ESCAPES)) == 3


# ---- plugins --------------------------------------------------------------------------------

SHY = """
import os, subprocess, sys
print("printed")
sys.__stdout__.write("written\\n")
sys.__stdout__.flush()
os.write(1, b"by its number\\n")
subprocess.run(["echo", "by a child"])

from hdzoo import hookimpl

@hookimpl
def hdzoo_samplers():
    print("while listed")
    return {"shy": f"{__name__}:Shy"}

class Shy:
    print("in its class")

    def __init__(self, must, *args, rate=float("nan"), kind=os, **kwargs):
        pass
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Makes a distribution of one module; gives the folder that it is in."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.delenv("HDZOO_STRICT_PLUGINS", raising=False)

    def install(name, source, entry_points=None):
        (site / f"{name}.py").write_text(source)
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        info.joinpath("entry_points.txt").write_text(f"[hdzoo]\n{entry_points or f'x = {name}'}\n")
        importlib.invalidate_caches()
        plugins._discover.cache_clear()
        return site

    yield install
    for path in site.glob("*.py"):
        sys.modules.pop(path.stem, None)
    plugins._discover.cache_clear()


def test_what_a_plugin_prints_is_no_result(install):
    site = install("shy", SHY)
    path = os.pathsep.join([str(site), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "hdzoo", "plugins", "--json"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    rows = {row["distribution"]: row for row in json.loads(done.stdout)}
    assert rows["shy"]["samplers"] == ["shy"]
    for text in ("printed", "written", "by its number", "by a child", "while listed", "in its"):
        assert text in done.stderr


def test_the_table_of_samplers_bears_any_class(run, install):
    install("shy", SHY)
    code, out, _ = run("samplers", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["shy"]["options"] == {"rate": "nan", "kind": str(os)}
    assert rows["shy"]["required"] == ["must"]
    code, out, _ = run("samplers")
    assert code == 0
    assert "must, rate=nan" in out
    assert "as well, but for shy." in out
    assert "annealed-langevin" in out


ODD = """
from hdzoo import hookimpl

class Opaque:
    __init__ = property(lambda self: 1)
    source = property(lambda self: 1)

class Meta(type):
    def __getattr__(cls, name):
        raise KeyboardInterrupt("from a metaclass")

class Nasty(metaclass=Meta):
    pass

class Slots:
    __init__ = dict.__init__

@hookimpl
def hdzoo_samplers():
    return {"opaque": Opaque, "nasty": Nasty, "slots": Slots, "gone": "odd:Gone"}
"""


def test_a_class_that_cannot_be_looked_at_is_a_row_that_says_so(run, install):
    install("odd", ODD)
    code, out, _ = run("samplers", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert "KeyboardInterrupt: from a metaclass" in rows["nasty"]["error"]
    assert "has no attribute 'Gone'" in rows["gone"]["error"]
    assert rows["annealed-langevin"]["error"] is None
    assert run("samplers")[0] == 0


@pytest.mark.filterwarnings("ignore:plugin")
@pytest.mark.parametrize(
    "error", ["KeyboardInterrupt", "GeneratorExit", "SystemExit", "BaseException", "Exception"]
)
def test_a_plugin_that_raises_is_reported_plainly(run, install, error, monkeypatch):
    # However many plugins there are, no word is broken in two.
    monkeypatch.setenv("COLUMNS", "1000")
    install("broken", f"raise {error}({ESCAPES + MARKUP!r})")
    code, out, err = run("plugins")
    assert code == 0
    assert unseen(out + err) == []
    assert "builtin" in out
    assert error in out
    assert "[red]" in out
    code, out, err = run("sample", "-s", "nobody")
    assert code == 2
    assert unseen(err) == []
    assert "Left out, because broken: plugin 'x' (broken 1.0)" in err


# ---- how long it takes ----------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """Seconds that tests set."""
    now = [1000.0]
    monkeypatch.setattr(terminal.time, "perf_counter", lambda: now[0])
    return now


def test_progress_off_a_terminal_is_a_line_now_and_then(clock, capsys):
    with terminal.work_progress() as on_work:
        on_work("images", 100, 1000)
        clock[0] += 5
        on_work("images", 110, 1000)
        assert capsys.readouterr().err == ""
        clock[0] += 15
        on_work("images", 140, 1000)
        # 40 in 20 s, so that 860 take 430; the 100 that were there took no time.
        line = "images: 140 of 1,000, 2 a second, about 0:07:10 left\n"
        assert capsys.readouterr().err == line
        clock[0] += 30
        on_work("images", 200, 1000)
        assert capsys.readouterr().err == ""
        clock[0] += 50
        on_work("images", 300, 1000)
        assert capsys.readouterr().err == "images: 300 of 1,000, 2 a second, about 0:05:50 left\n"
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_progress_may_begin_with_all_done_and_lose_work(clock, capsys):
    with terminal.work_progress() as on_work:
        on_work("checks", 3, 3)
        clock[0] += 100
        on_work("evaluations", 0, 100)
        clock[0] += 10
        on_work("evaluations", 10, 100)
        clock[0] += 100
        on_work("evaluations", 20, 20)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "evaluations: 0 of 100"
    assert lines[-1].endswith("about 0:00:00 left")


def test_bars_show_the_same_and_take_no_markup(clock, capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    with terminal.work_progress() as on_work:
        on_work(MARKUP, 0, 10)
        clock[0] += 10
        on_work(MARKUP, 5, 10)
    err = capsys.readouterr().err
    assert f"{MARKUP}: 5 of 10, 0.5 a second, about 0:00:10 left" in err


def test_sample_says_what_it_will_take(run, tiny_model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("sample", tiny_model, "-n", 1, "-t", 9)
    assert code == 0
    assert "1 image to draw with 9 network evaluations each: 9\n" in err
    assert "1 image in " in err
    # The 8 of its own sampler, for the image to start from, on top.
    _, _, err = run("sample", tiny_model, "-s", "half-denoising", "-n", 2, "-t", 3)
    assert "2 images to draw with 11 network evaluations each: 22\n" in err
    _, _, err = run("generate", tiny_model, "-O", "set", "-n", 3, "-t", 9)
    assert "3 images to draw with 9 network evaluations each: 27\n" in err
    _, _, err = run("generate", tiny_model, "-O", "set", "-n", 3, "-t", 9)
    assert "to draw" not in err
