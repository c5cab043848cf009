"""What a command says: results on standard output, all else beside it, and nothing that a terminal
would obey."""

import io
import logging
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import timedelta
from types import FrameType
from typing import Any, TextIO

from hdzoo.text import counted, plain

LONGEST_NAME = 32
# Seconds: where there is no terminal, progress is a line now and then.
FIRST_LINE, EVERY_LINE = 10.0, 60.0

_results: TextIO | None = None
_make_record = logging.getLogRecordFactory()


# ---- two streams ----------------------------------------------------------------------------


def say(text: object) -> None:
    """Prints a result."""
    print(plain(text), file=_results or sys.stdout, flush=True)


def note(message: object) -> None:
    """Says something beside the result."""
    print(plain(message), file=sys.stderr)


@contextmanager
def results_alone() -> Iterator[None]:
    """Keeps standard output for `say` while a command runs.

    Whatever else is printed, by a plugin, a library or a program that they start, goes to standard
    error: what reads the results could do nothing with it.
    """
    global _results
    with ExitStack() as stack:
        before, _results = _results, _reserved_stdout(stack)
        stack.enter_context(redirect_stdout(sys.stderr))
        try:
            yield
        finally:
            if _results is not None:
                _results.flush()
            _results = before


def _reserved_stdout(stack: ExitStack) -> TextIO | None:
    """Standard output as it is; its file descriptor becomes standard error's for a while."""
    try:
        descriptors = sys.stdout.fileno(), sys.stderr.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return sys.stdout
    if descriptors != (1, 2):
        return sys.stdout
    sys.stdout.flush()
    kept = os.dup(1)
    stream = stack.enter_context(
        os.fdopen(kept, "w", encoding=sys.stdout.encoding, errors="backslashreplace")
    )
    stack.callback(os.dup2, kept, 1)
    os.dup2(2, 1)
    return stream


def speak_plainly() -> None:
    """Makes warnings, the log and tracebacks of this process harmless too.

    Libraries put names from files that they read into them.
    """
    logging.setLogRecordFactory(_plain_record)
    warnings.showwarning = lambda message, *_, **__: note(f"warning: {message}")
    sys.excepthook = lambda *error: note("".join(traceback.format_exception(*error)).rstrip())


def _plain_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = _make_record(*args, **kwargs)
    record.msg, record.args = plain(record.getMessage()), None
    return record


# ---- tables ---------------------------------------------------------------------------------


def render(value: Any) -> str:
    """A value for a table: numbers short, lists on one line."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(render(item) for item in value)
    if isinstance(value, dict):
        return "\n".join(f"{key} {render(item)}" for key, item in value.items())
    return str(value)


def render_options(options: dict[str, Any]) -> str:
    """Options with their defaults."""
    return ", ".join(f"{key}={render(value)}" for key, value in options.items())


def print_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Prints a table, which may have no rows; a line break in a cell is kept."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def cell(value: Any) -> Text:
        # A string would be read as markup.
        return Text(plain(value))

    table = Table(show_lines=True)
    # A name is not to be broken; a sentence is.
    names = (line for row in rows for line in str(row[columns[0]]).splitlines())
    first = max(map(len, names), default=0)
    for column in columns:
        unbroken = column == columns[0] and first <= LONGEST_NAME
        table.add_column(cell(column), overflow="fold", no_wrap=unbroken)
    for row in rows:
        table.add_row(*(cell(row[column]) for column in columns))
    Console(file=_results or sys.stdout).print(table)


# ---- progress -------------------------------------------------------------------------------


def note_evaluations(num_images: int, each: int) -> None:
    """Says what drawing will cost, which time is proportional to, unless all is drawn already."""
    if num_images:
        note(
            f"{counted(num_images, 'image')} to draw with "
            f"{counted(each, 'network evaluation')} each: {num_images * each:,}"
        )


# Called with what is done, how much of it, and of how much.
OnWork = Callable[[str, float, float], None]


class Pace:
    """How far one kind of work is, and how long the rest takes at the pace so far.

    Args:
        done: how much there was when the clock started; it took none of the time.
    """

    def __init__(self, done: float) -> None:
        self.begin = time.perf_counter()
        self.first = done

    def describe(self, what: str, done: float, total: float) -> str:
        """A line for people."""
        text = f"{what}: {done:,.0f} of {total:,.0f}"
        seconds = time.perf_counter() - self.begin
        if done > self.first and seconds > 0:
            rate = (done - self.first) / seconds
            left = timedelta(seconds=round((total - done) / rate))
            text += f", {rate:.3g} a second, about {left} left"
        return text


@contextmanager
def work_progress() -> Iterator[OnWork]:
    """Shows progress and the time left: bars on a terminal, else a line now and then.

    Gives the function to tell it by, once for each kind of work at its start and then as it goes.
    Of several processes the one that speaks for all tells it, and no other shows anything.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn

    tasks: dict[str, tuple[TaskID, Pace]] = {}
    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}", markup=False))
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    begin = time.perf_counter()
    next_line = begin + FIRST_LINE

    def update(what: str, done: float, total: float) -> None:
        nonlocal next_line
        if what not in tasks:
            bars.start()
            tasks[what] = bars.add_task("", total=total), Pace(done)
        task, pace = tasks[what]
        # A bar never goes back, though the share of other processes is an estimate.
        done = max(done, bars.tasks[bars.task_ids.index(task)].completed)
        text = plain(pace.describe(what, done, total))
        bars.update(task, completed=done, total=total, description=text)
        now = time.perf_counter()
        if bars.disable and now > next_line:
            next_line = now + EVERY_LINE
            note(text)

    try:
        yield update
    finally:
        bars.stop()


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Lets a command that is told to end clear up first what it was writing."""

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
