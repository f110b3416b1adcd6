"""One progress display for all long work."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
def progress_bar(title: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
    """A bar with count, rate and time left; a line at the start and the end without a terminal.

    Yields:
        ``advance(count, note)``: count more units are done; the note stands behind the bar.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=total, rate="", note="")

        def advance(count: int, note: str = "") -> None:
            speed = progress.tasks[0].speed
            rate = f"{speed:.3g} {unit}/s" if speed else ""
            progress.update(task, advance=count, rate=rate, note=note)

        yield advance


def say(message: str) -> None:
    """One line of news on stderr."""
    console.print(message, highlight=False, markup=False, soft_wrap=True)
