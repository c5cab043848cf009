"""Files and folders that are written whole or not at all, and by one run at a time."""

import hashlib
import json
import os
import re
import shutil
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENAMETOOLONG, ENOTDIR
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from hdzoo.errors import HDZooError

LOCK = ".lock"
PARTIAL = ".partial-"
# Bytes that must be free where anything is to be written.
LEAST_SPACE = 1 << 20

# The name tells whose it is: on a shared file system processes of other machines have the same ids.
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_DEAD = re.compile(rf"{re.escape(PARTIAL)}{_HOST}-(\d+)-")


def named_path(path: str | Path, what: str) -> Path:
    """A path that somebody has named.

    Args:
        path: the path.
        what: it is of, for the message.

    Raises:
        HDZooError: it is none, or empty, which would be the current folder, or longer than a name
            can be.
    """
    if not isinstance(path, str | Path) or not str(path).strip():
        raise HDZooError(f"{what} is {path!r}; give a name or a path, '.' for the current folder")
    try:
        os.lstat(path)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == ENAMETOOLONG:
            raise HDZooError(f"{what} is no name of a file: {error}") from error
    return Path(path)


# ---- before the work --------------------------------------------------------------------------


def check_file(path: Path, suffix: str | None = None) -> None:
    """Refuses, before any work, a file that could not be written after it.

    What dead processes have left beside it is cleared away.

    Args:
        path: of the file; its folder need not be there yet.
        suffix: the ending that its name must have, since that says what is in it; None for any.

    Raises:
        HDZooError: it is a folder or a device, has another ending, or nothing can be written there.
    """
    if path.is_dir():
        raise HDZooError(f"cannot write to {path}: it is a folder; give the name of a file")
    if path.exists() and not path.is_file():
        raise HDZooError(f"cannot write to {path}: it is no regular file; give another name")
    if suffix is not None and path.suffix.lower() != suffix:
        raise HDZooError(f"{path} is to be a {suffix} file; give a name that ends so")
    check_folder(path.parent)


def check_folder(path: Path) -> None:
    """Refuses, before any work, a folder that could not be written after it.

    What dead processes have left in it is cleared away. Nothing is made.

    Args:
        path: of the folder, which need not be there yet.

    Raises:
        HDZooError: it is a file or lies below one, cannot be written, or the disk is full.
    """
    with writing(path):
        place = path
        while not os.path.lexists(place):
            place = place.parent
        if not place.is_dir():
            raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR), str(place))
        with TemporaryFile(prefix=PARTIAL, dir=place) as probe:
            probe.write(bytes(LEAST_SPACE))
    for leftover in path.glob(f"{PARTIAL}*"):
        owner = _DEAD.match(leftover.name)
        if owner is not None and not _is_alive(int(owner[1])):
            remove(leftover)


def inner_folder(folder: Path, *names: str) -> Path:
    """A folder inside an output folder, made where it is missing.

    Args:
        folder: that the user has named.
        *names: of the folders below it, from the outermost.

    Raises:
        HDZooError: one of them is a link, or cannot be made.
    """
    for name in names:
        folder = folder / name
        check_no_link(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_no_link(path: Path) -> None:
    """Refuses to write through a link in an output folder, which leads who knows where.

    Args:
        path: in the folder.
    """
    if path.is_symlink():
        raise HDZooError(
            f"{path} is a link, to {os.readlink(path)}, and what is written there would land "
            "elsewhere; take it away, or give another output folder"
        )


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turns a failure to write into a message.

    Args:
        place: the file or the folder that is written.

    Raises:
        HDZooError: in the place of any OSError, and of safetensors' words for one.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        file = getattr(error, "filename", None)
        where = f" ({file})" if file and Path(str(file)) != place else ""
        raise HDZooError(
            f"cannot write to {place}: {reason}{where}. What is there stays; make room or take a "
            "place that can be written, and give the same command again"
        ) from error


# ---- whole or not at all ----------------------------------------------------------------------


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary path with the same ending; on success it takes the place of ``path``.

    A link in that place is replaced, not followed.

    Args:
        path: the file to write; its folder is made where it is missing.

    Raises:
        HDZooError: it cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(partial_name(path.name))
        try:
            partial.touch()
            # What the user lets others read; some libraries let nobody.
            mode = partial.stat().st_mode
            yield partial
            partial.chmod(mode)
            move(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def partial_name(name: str) -> str:
    """What this process calls a file or a folder while it writes it."""
    return f"{PARTIAL}{_HOST}-{os.getpid()}-{name}"


def move(file: Path, place: Path) -> None:
    """Puts a file that is written in the place of another, whatever happens to the power."""
    # A rename may reach the disk before what it renames.
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
    file.replace(place)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Gives a temporary folder; on success it takes the place of ``folder``, new or empty.

    A folder that has the very same files already stays as it is, so that a command may be repeated.
    Two processes cannot write one folder at the same time, and what a killed one has left is
    cleared away by the next.

    Args:
        folder: to write; the folder around it is made where it is missing.

    Raises:
        HDZooError: it has other files of the same names, another run is writing it, or it cannot be
            written.
    """
    partial = folder.with_name(f"{PARTIAL}{folder.name}")
    lock = folder.with_name(f"{PARTIAL}{folder.name}{LOCK}")
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(lock, folder):
            try:
                remove(partial)
                partial.mkdir()
                yield partial
                _take_place(partial, folder)
            finally:
                remove(partial)
                lock.unlink(missing_ok=True)


def _take_place(partial: Path, folder: Path) -> None:
    """Moves a folder to its place, unless the same files are there already."""
    files = [path for path in sorted(partial.rglob("*")) if path.is_file()]
    if not has_content(folder):
        for path in files:
            move(path, path)
        if folder.is_dir():
            clear(folder)
            if _is_held(folder):
                for path in sorted(partial.iterdir()):
                    shutil.move(path, folder / path.name)
                return
            folder.rmdir()
        partial.rename(folder)
        return
    for path in files:
        old = folder / path.relative_to(partial)
        if not old.is_file() or file_hash(old) != file_hash(path):
            raise HDZooError(
                f"{folder} is there and has another {path.relative_to(partial)} than this command "
                "writes; give a new folder, or remove it"
            )


def _is_held(folder: Path) -> bool:
    """Whether a folder cannot be replaced by another: a mount, or where this process is, so that
    the user's shell would be left in one that is no longer there."""
    return folder.is_mount() or folder.samefile(Path.cwd())


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, indented."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- one run at a time ------------------------------------------------------------------------


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keeps other runs out of a folder; the system ends it when the process is killed.

    Args:
        folder: it is made where it is missing.

    Raises:
        HDZooError: another run is in it, or it cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / LOCK, folder):
        yield


@contextmanager
def _locked(path: Path, folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    check_no_link(path)
    lock = FileLock(path, timeout=0)
    with writing(folder):
        try:
            lock.acquire()
        except Timeout:
            raise HDZooError(
                f"{folder} is in use by another run; wait for its end, or give another output "
                "folder"
            ) from None
    try:
        yield
    finally:
        lock.release()


def has_content(folder: Path) -> bool:
    """Whether a folder has anything but what a run that was killed at its start leaves."""
    return folder.is_dir() and any(
        path.name != LOCK and not path.name.startswith(PARTIAL) for path in folder.iterdir()
    )


def sweep(*folders: Path) -> None:
    """Clears away what killed runs have left in folders that are this run's alone.

    Args:
        *folders: those that are there.
    """
    for folder in folders:
        for leftover in folder.glob(f"{PARTIAL}*"):
            remove(leftover)


def clear(folder: Path) -> None:
    """Removes all that is in a folder."""
    for path in folder.iterdir():
        remove(path)


def remove(path: Path) -> None:
    """Removes a file, a link (not what it leads to), or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    # Elsewhere a signal of 0 is no question.
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # Somebody else's.
        return True
    return True
