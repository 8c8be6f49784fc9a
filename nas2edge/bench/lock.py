"""One measurement at a time on a machine: a lock on a file, which the system lets go of when a process dies."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from nas2edge.errors import InconclusiveError

_WAIT_S = 0.05
DEFAULT_PATIENCE_S = 3600.0


def lock_path() -> Path:
    """Returns the file that measurements of this user share on this machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        user = str(os.getuid())
    return Path(tempfile.gettempdir()) / f"nas2edge-measuring-{user}.lock"


@contextmanager
def measuring_alone(path: Path | None = None, *, patience_s: float = DEFAULT_PATIENCE_S) -> Iterator[None]:
    """Waits until no other process measures under the same lock; then none does while the block runs.

    Args:
        path: The lock's file; by default one for the user.
        patience_s: Seconds to wait.

    Raises:
        InconclusiveError: The others took longer.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows; there, measurements are not kept apart
        yield
        return
    path = path or lock_path()
    deadline = monotonic() + patience_s
    with path.open("a", encoding="ascii") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if monotonic() > deadline:
                    raise InconclusiveError(
                        f"another measurement held {path} for {patience_s:g} s; run fewer at a time"
                    ) from None
                sleep(_WAIT_S)
        yield  # closing the file lets go of the lock
