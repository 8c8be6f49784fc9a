"""The state of a search on disk: a few arrays, from which an interrupted search goes on to the same result.

>>> evolve(problem, evaluations=10**7, population=800, rng=rng, checkpoint=Checkpoint(Path("search.npz"), identity="a"))
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from nas2edge.errors import FormatError, InputError
from nas2edge.files import atomic_path

Arrays = Mapping[str, npt.NDArray[Any]]

FORMAT, VERSION = "nas2edge.search_state", 2


@final
class Checkpoint:
    """A file that holds the state of a search.

    Args:
        path: The file; it is there from the first time that the state is kept.
        identity: What the search was asked, so that no other goes on from it.
        every_s: Seconds between one time and the next.
        clock: Tells the time in seconds.
    """

    def __init__(
        self, path: Path, *, identity: str, every_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path, self._identity = path, identity
        self._every_s, self._clock = every_s, clock
        self._last = clock()

    def load(self) -> dict[str, npt.NDArray[Any]] | None:
        """Returns the arrays that were kept; None if there is no file yet.

        Raises:
            FormatError: The file does not read.
            InputError: It is of another search.
        """
        if not self._path.exists():
            return None
        try:
            with self._path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            notes = json.loads(str(arrays.pop("notes")))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as err:
            raise FormatError(f"{self._path} is not the state of a search ({err}); remove it to start anew") from err
        if (notes.get("format"), notes.get("version")) != (FORMAT, VERSION):
            raise FormatError(f"{self._path} is not the state of a search of this version; remove it to start anew")
        if notes["identity"] != self._identity:
            raise InputError(
                f"{self._path} is the state of a search that was asked something else; give the options of that "
                "search, or remove the file to start anew"
            )
        return arrays

    def keep(self, arrays: Callable[[], Arrays]) -> None:
        """Writes the state in one step, if it is time to."""
        if self._clock() - self._last < self._every_s:
            return
        notes = {"format": FORMAT, "version": VERSION, "identity": self._identity}
        with atomic_path(self._path) as part, part.open("wb") as file:
            np.savez(file, notes=np.array(json.dumps(notes)), **dict(arrays()))  # type: ignore[arg-type]
        self._last = self._clock()

    def remove(self) -> None:
        """Removes the file, when the search is done."""
        self._path.unlink(missing_ok=True)


def state_of(rng: np.random.Generator) -> npt.NDArray[Any]:
    """Returns the state of a generator as an array."""
    return np.array(json.dumps(rng.bit_generator.state))


def restore(rng: np.random.Generator, state: npt.NDArray[Any]) -> None:
    """Puts a generator into a state."""
    rng.bit_generator.state = json.loads(str(state))
