"""The named search spaces, and reading one's own from a file.

>>> load_space("attentivenas").size
440301256704
>>> load_space("my_space.toml")  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nas2edge.errors import SpaceError, UnknownNameError
from nas2edge.files import read_document
from nas2edge.space import FORMAT, VERSION, SearchSpace, space_from_dict
from nas2edge.spaces.attentivenas import attentivenas
from nas2edge.spaces.tiny import tiny

SPACES: dict[str, Callable[[], SearchSpace]] = {"attentivenas": attentivenas, "tiny": tiny}


def load_space(name_or_path: str) -> SearchSpace:
    """Returns a named space, or reads one from a .toml or .json file (format "nas2edge.space", version 1).

    Raises:
        UnknownNameError: The name is neither a named space nor ends in .toml or .json.
        FormatError: The file cannot be read, or is of another format or version.
        SpaceError: The file's space is incomplete or contradicts itself.
    """
    if name_or_path in SPACES:
        return SPACES[name_or_path]()
    if Path(name_or_path).suffix not in (".toml", ".json"):
        raise UnknownNameError("space", name_or_path, SPACES, suffix=".toml or .json")
    raw = read_document(Path(name_or_path), format=FORMAT, version=VERSION)
    try:
        return space_from_dict(raw)
    except SpaceError as err:
        raise SpaceError(f"{name_or_path}: {err}") from err
