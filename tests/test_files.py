"""Files and folders: whole or not at all, in the right place, by one run at a time."""

import multiprocessing
import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest

from hdzoo.errors import HDZooError
from hdzoo.files import (
    LOCK,
    check_file,
    check_folder,
    exclusive,
    inner_folder,
    partial_name,
    sweep,
    whole_file,
    whole_folder,
    write_json,
)


@contextmanager
def full_disk(room):
    """No file may grow beyond so many bytes, as where the disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def left_by(process, name="x.png"):
    """What a process of this machine calls a file that it is writing."""
    return partial_name(name).replace(f"-{os.getpid()}-", f"-{process}-")


def fail_after_half(path):
    path.write_bytes(b"half")
    raise KeyError


def dead_process():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


# ---- before the work --------------------------------------------------------------------------


def test_a_place_that_can_be_written_is_let_through_and_nothing_is_made(tmp_path):
    check_file(tmp_path / "a" / "b" / "x.png")
    check_folder(tmp_path / "a" / "b")
    (tmp_path / "x.png").write_bytes(b"mine")
    check_file(tmp_path / "x.png")
    assert os.listdir(tmp_path) == ["x.png"]
    assert (tmp_path / "x.png").read_bytes() == b"mine"


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    refusals = [
        (check_file, tmp_path, "it is a folder; give the name of a file"),
        (check_file, tmp_path / "pipe", "it is no regular file"),
        (check_file, tmp_path / "file" / "x.png", "Not a directory"),
        (check_folder, tmp_path / "file", "Not a directory"),
        (check_folder, tmp_path / "file" / "deep" / "deeper", "Not a directory"),
        (check_folder, tmp_path / "nowhere" / "x", "Not a directory"),
    ]
    for check, path, message in refusals:
        with pytest.raises(HDZooError, match=f"cannot write to {tmp_path}.*: {message}"):
            check(path)


def test_a_full_disk_is_noticed_before_the_work(tmp_path):
    with full_disk(1000), pytest.raises(HDZooError, match=r"cannot write to .*: File too large"):
        check_file(tmp_path / "x.png")
    assert not os.listdir(tmp_path)


def test_what_dead_processes_have_left_is_cleared_away(tmp_path):
    dead, alive = left_by(dead_process()), left_by(os.getppid())
    other_machine = ".partial-00000000-1-x.png"
    for name in (dead, alive, other_machine, "x.partial-1"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / left_by(dead_process(), "folder")).mkdir()
    check_file(tmp_path / "x.png")
    assert sorted(os.listdir(tmp_path)) == sorted([alive, other_machine, "x.partial-1"])
    # In a folder that is locked nobody else can be writing.
    sweep(tmp_path, tmp_path / "gone")
    assert os.listdir(tmp_path) == ["x.partial-1"]


# ---- whole or not at all ----------------------------------------------------------------------


def test_a_file_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    before = path.read_bytes()
    with full_disk(100), pytest.raises(HDZooError, match=rf"cannot write to {path}: File too lar"):
        write_json(path, {"a": "x" * 1000})
    with pytest.raises(KeyError), whole_file(path) as partial:
        fail_after_half(partial)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "x.json").symlink_to(tmp_path / "victim")
    write_json(tmp_path / "x.json", {})
    assert (tmp_path / "victim").read_bytes() == b"mine"
    assert not (tmp_path / "x.json").is_symlink()


def test_others_may_read_what_the_user_lets_them(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    with whole_file(tmp_path / "x") as partial:
        partial.write_bytes(b"x")
        # As safetensors leaves it.
        partial.chmod(0o600)
    assert (tmp_path / "x").stat().st_mode == plain.stat().st_mode


def fill(folder, **content):
    with whole_folder(folder) as partial:
        for name, text in content.items():
            (partial / "deep").mkdir(exist_ok=True)
            (partial / "deep" / name).write_text(text)


def test_a_folder_may_be_written_again_if_it_is_the_same(tmp_path):
    folder = tmp_path / "new" / "out"
    fill(folder, a="1", b="2")
    (folder / "mine").write_text("of the user")
    fill(folder, a="1", b="2")
    for other in ({"a": "1", "b": "3"}, {"a": "1", "c": "2"}):
        with pytest.raises(HDZooError, match=r"has another deep/[bc] than this"):
            fill(folder, **other)
    assert {path.name: path.read_text() for path in (folder / "deep").iterdir()} == {
        "a": "1",
        "b": "2",
    }
    assert (folder / "mine").read_text() == "of the user"
    assert os.listdir(tmp_path / "new") == ["out"]


def test_the_current_folder_is_filled_and_stays_the_same(tmp_path, monkeypatch):
    """A shell that stands in a folder which is replaced sees nothing any more."""
    folder = tmp_path / "out"
    folder.mkdir()
    before = folder.stat().st_ino
    (folder / ".partial-1-dead").touch()
    monkeypatch.chdir(folder)
    fill(folder, a="1", b="2")
    assert folder.stat().st_ino == before
    assert os.listdir() == ["deep"]
    assert sorted(os.listdir("deep")) == ["a", "b"]
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_that_fails_is_not_there(tmp_path):
    with pytest.raises(KeyError), whole_folder(tmp_path / "out") as partial:
        fail_after_half(partial / "x")
    assert not os.listdir(tmp_path)


def test_a_killed_run_is_cleared_away_by_the_next(tmp_path):
    (tmp_path / ".partial-out").mkdir()
    (tmp_path / ".partial-out" / "half").write_bytes(b"half")
    (tmp_path / ".partial-out.lock").touch()
    fill(tmp_path / "out", a="1")
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(tmp_path / "out") == ["deep"]


def test_a_link_in_the_place_of_the_temporary_folder_is_not_followed(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "mine").touch()
    (tmp_path / ".partial-out").symlink_to(tmp_path / "victim")
    fill(tmp_path / "out", a="1")
    assert os.listdir(tmp_path / "victim") == ["mine"]


def test_a_folder_inside_is_never_behind_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HDZooError, match=r"run/data is a link, to .*elsewhere"):
        inner_folder(tmp_path / "run", "data", "deeper")
    assert not os.listdir(tmp_path / "elsewhere")
    assert inner_folder(tmp_path / "run", "own", "deeper").is_dir()


# ---- one run at a time ------------------------------------------------------------------------


def hold(folder, is_held, end):
    with exclusive(folder):
        is_held.set()
        end.wait(60)


def test_one_run_at_a_time_and_a_kill_ends_it(tmp_path):
    start = multiprocessing.get_context("fork")
    is_held, end = start.Event(), start.Event()
    other = start.Process(target=hold, args=(tmp_path / "x", is_held, end))
    other.start()
    assert is_held.wait(60)
    with pytest.raises(HDZooError, match="x is in use by another run"), exclusive(tmp_path / "x"):
        pass
    other.kill()
    other.join()
    with exclusive(tmp_path / "x"):
        pass


def test_two_runs_cannot_write_one_folder(tmp_path):
    with (
        whole_folder(tmp_path / "out"),
        pytest.raises(HDZooError, match="out is in use by another run"),
    ):
        fill(tmp_path / "out")


def test_a_lock_behind_a_link_is_refused(tmp_path):
    (tmp_path / "victim").write_bytes(b"mine")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / LOCK).symlink_to(tmp_path / "victim")
    with pytest.raises(HDZooError, match="is a link"), exclusive(tmp_path / "x"):
        pass
    assert (tmp_path / "victim").read_bytes() == b"mine"
