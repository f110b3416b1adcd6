"""The progress display of all long work."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)


@contextmanager
def progress_bar(title: str, total: int, unit: str) -> Iterator[Callable[[float, str], None]]:
    """A bar with count, rate and time left; in a log file, a line at the start and at the end.

    Yields:
        ``advance(count, note)``: adds ``count`` finished units and shows the note after the bar.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    if not sys.stderr.isatty():
        say(title if unit == "%" else f"{title}: {total} {unit}")
        started = time.monotonic()
        yield ignore
        say(f"{title}: ended after {time.monotonic() - started:.0f} s")
        return
    # Text printed meanwhile goes above the bar, unless stdout is a file or a pipe.
    redirected = sys.stdout.isatty()
    with Progress(*columns, console=console, redirect_stdout=redirected) as progress:
        task = progress.add_task(title, total=total, rate="", note="")

        def advance(count: float, note: str = "") -> None:
            speed = progress.tasks[0].speed
            rate = f"{speed:.3g} {unit}/s" if speed else ""
            progress.update(task, advance=count, rate=rate, note=note)

        yield advance


def progress_if(
    verbose: str | int, title: str, total: int, unit: str
) -> AbstractContextManager[Callable[[float, str], None]]:
    """A ``progress_bar``, or nothing where ``verbose`` is 0."""
    return progress_bar(title, total, unit) if verbose else nullcontext(ignore)


def say(message: str) -> None:
    """Print one line on stderr."""
    console.print(message, highlight=False, markup=False, emoji=False, soft_wrap=True)


def ignore(count: float, note: str = "") -> None:
    """Progress that is not shown, such as in a log file between start and end."""
