"""What a command prints: tables, progress bars, notes."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

LONGEST_NAME = 32


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
    """Prints a table; a line break in a cell is kept."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=True)
    # A name is not to be broken; a sentence is.
    first = max(len(line) for row in rows for line in str(row[columns[0]]).splitlines() or [""])
    for column in columns:
        unbroken = column == columns[0] and first <= LONGEST_NAME
        table.add_column(column, overflow="fold", no_wrap=unbroken)
    for row in rows:
        table.add_row(*(Text(str(row[column])) for column in columns))
    Console().print(table)


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[str], None]]:
    """A bar beside the result; gives a function that advances it and says what was done."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda text: progress.update(task, advance=1, description=text)


@contextmanager
def image_progress(total: int) -> Iterator[Callable[[float], None]]:
    """A bar with images per second and the time left; gives a function of the number done."""
    from datetime import timedelta

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    first: tuple[float, float] | None = None

    def update(done: float) -> None:
        nonlocal first
        now = time.perf_counter()
        if first is None:
            # Only the process that speaks for all ever comes here.
            progress.start()
            first = (done, now)
        # The bar never goes back, though the share of the other processes is an estimate.
        done = max(done, progress.tasks[0].completed)
        text = f"{done:.0f}/{total} images"
        if done > first[0]:
            rate = (done - first[0]) / (now - first[1])
            left = timedelta(seconds=round((total - done) / rate))
            text += f", {rate:.3g} images/s, {left} left"
        progress.update(task, completed=done, description=text)

    console = Console(stderr=True)
    columns = (BarColumn(), TextColumn("{task.description}"))
    off = not console.is_terminal
    progress = Progress(*columns, console=console, transient=True, disable=off)
    task = progress.add_task("", total=total)
    try:
        yield update
    finally:
        progress.stop()


@contextmanager
def work_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each kind of work; gives a function of what is done, how much, and of how much."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    tasks: dict[str, TaskID] = {}
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done)

        yield update


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


def note(message: str) -> None:
    """Says something beside the result, which alone goes to standard output."""
    print(message, file=sys.stderr)
