"""The progress of what takes minutes, on stderr: a bar where someone may look, else a line now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_EVERY = 50


@contextmanager
def count_progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Shows how many of a known number are done; yields a function of how many more are.

    Args:
        total: How many there are.
        what: What is done, such as "evaluating accuracies".
    """
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        from rich.progress import Progress

        with Progress(console=console, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda n: bar.advance(task, n)
        return
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        if (done + n) // _EVERY > done // _EVERY:
            console.print(f"{what}: {done + n} of {total}")
        done += n

    yield advance


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
