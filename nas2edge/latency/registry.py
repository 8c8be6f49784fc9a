"""Finding latency tables by name: the user's folders first, then those that come with nas2edge.

>>> load_table("jetson").device.name
'jetson-orin-nano'
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from nas2edge.errors import FormatError, InputError, TableError, UnknownNameError
from nas2edge.latency.kernels import KernelLaw
from nas2edge.latency.table import LatencyTable
from nas2edge.latency.table_file import read_table

USER_FOLDER = Path("latency_tables")

ALIASES = MappingProxyType(
    {
        "jetson": ("jetson-orin-nano", "the Jetson whose kernel times are published"),
        "raspberry-pi": ("raspberry-pi-4", "the most common Raspberry Pi, all four cores"),
        "pixel": ("pixel-6", "a phone's big core"),
        "cpu": ("cpu-epyc-zen4-1t", "a server core, as an example; `nas2edge profile` measures your own machine"),
    }
)
"""Short names: what each stands for, and why. An alias counts only where its table exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEntry:
    """One table file.

    Args:
        name: What `--device` calls it: the file's name without .json.
        path: The file.
        aliases: Short names of it.
        table: Its contents; None if they cannot be read.
        error: Why they cannot be read, "" if they can.
    """

    name: str
    path: Path
    aliases: tuple[str, ...]
    table: LatencyTable | None
    error: str = ""


def load_table(name: str, *, tables: Path | None = None) -> LatencyTable:
    """Returns the table of a device, given its name, an alias, or the path of a .json file.

    Args:
        name: What `--device` was given.
        tables: Folder to search first; without it, ./latency_tables if that exists.

    Raises:
        UnknownNameError: There is no such table or alias; names the nearest.
        InputError: The folder does not exist.
        FormatError: The file cannot be read, or is of another format or version.
        TableError: A row of the file is malformed.
    """
    if Path(name).suffix == ".json":
        return read_table(Path(name))
    return _read(_find(name, tables))


def is_shipped(name: str, *, tables: Path | None = None) -> bool:
    """Returns whether `load_table` takes this name's table from those that come with nas2edge; these pass lint.

    Raises:
        UnknownNameError: There is no such table or alias.
        InputError: The folder does not exist.
    """
    return Path(name).suffix != ".json" and _find(name, tables).parent == _shipped()


def load_law(name: str) -> LatencyTable:
    """Returns the estimated table that comes with nas2edge for a device, whose law answers for every block.

    Raises:
        UnknownNameError: No law is known of this device; names the nearest of which one is.
    """
    path = _shipped() / f"{name}.json"
    table = _read(path) if path.is_file() else None
    if table is None or table.law is None:
        shipped = [_read(path) for path in sorted(_shipped().glob("*.json"))]
        raise UnknownNameError("device to estimate", name, [table.device.name for table in shipped if table.law])
    return table


def find_law(name: str) -> KernelLaw | None:
    """Returns the law that comes with nas2edge for a device, None if there is none."""
    path = _shipped() / f"{name}.json"
    return _read(path).law if path.is_file() else None


def list_tables(tables: Path | None = None) -> tuple[TableEntry, ...]:
    """Returns every table that `load_table` finds, by name; unreadable ones with the reason.

    Raises:
        InputError: The folder does not exist.
    """
    paths = _paths(tables)
    aliases = _live_aliases(paths)
    return tuple(
        _entry(paths[name], tuple(alias for alias, target in aliases.items() if target == name))
        for name in sorted(paths)
    )


def list_aliases(tables: Path | None = None) -> dict[str, tuple[str, str]]:
    """Returns the aliases whose tables exist: what each stands for, and why.

    Raises:
        InputError: The folder does not exist.
    """
    return {alias: ALIASES[alias] for alias in _live_aliases(_paths(tables))}


def _entry(path: Path, aliases: tuple[str, ...]) -> TableEntry:
    try:
        return TableEntry(name=path.stem, path=path, aliases=aliases, table=_read(path))
    except (FormatError, TableError) as err:
        return TableEntry(name=path.stem, path=path, aliases=aliases, table=None, error=str(err))


def _read(path: Path) -> LatencyTable:
    table = read_table(path)
    if table.device.name != path.stem:
        raise TableError(
            f"{path}: the table is of the device {table.device.name!r}; rename the file to {table.device.name}.json"
        )
    return table


def _live_aliases(paths: dict[str, Path]) -> dict[str, str]:
    # A table of the alias's own name, such as a user's cpu.json, goes before the alias.
    return {alias: target for alias, (target, _) in ALIASES.items() if target in paths and alias not in paths}


def _find(name: str, tables: Path | None) -> Path:
    paths = _paths(tables)
    path = paths.get(name) or paths.get(ALIASES.get(name, ("", ""))[0])
    if path is None:
        raise UnknownNameError("device", name, [*paths, *_live_aliases(paths)], see="nas2edge devices")
    return path


def _paths(tables: Path | None) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in _folders(tables):
        for path in sorted(folder.glob("*.json")):
            found.setdefault(path.stem, path)
    return found


def _folders(tables: Path | None) -> Iterator[Path]:
    if tables is not None:
        if not tables.is_dir():
            raise InputError(f"--tables {tables} is no folder; give the folder that holds <device>.json")
        yield tables
    elif USER_FOLDER.is_dir():
        yield USER_FOLDER
    yield _shipped()


def _shipped() -> Path:
    return Path(str(files("nas2edge.latency_tables")))
