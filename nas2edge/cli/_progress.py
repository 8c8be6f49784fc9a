"""The progress of measurements that pass over all items several times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def pass_progress() -> Iterator[Callable[[int, int], None]]:
    """Shows a bar on stderr; yields a function of (done, planned)."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("first pass", total=None)
        passes = 0
        last = 0

        def advance(done: int, planned: int) -> None:
            nonlocal passes, last
            if done <= last or passes == 0:
                passes += 1
            last = done
            bar.update(task, completed=done, total=planned, description=f"pass {passes}")

        yield advance
