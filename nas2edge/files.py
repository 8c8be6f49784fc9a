"""Reading and writing files that carry a format name and a version; nothing is ever left half-written.

>>> write_json(path, {"format": "nas2edge.subnet", "version": 1})
>>> read_document(path, format="nas2edge.subnet", version=1)
"""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from nas2edge.errors import FormatError, InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it onto `path` if the block succeeds, else removes it.

    Raises:
        InputError: The folder does not exist or cannot be written.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as err:
        raise InputError(f"cannot write {path}: {err.strerror}; choose a folder that exists and is writable") from err
    os.close(handle)
    part = Path(name)
    try:
        yield part
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        part.replace(path)
    except OSError as err:
        raise InputError(f"cannot write {path}: {err.strerror or err}") from err
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in one step; an existing file is replaced only when the new one is complete.

    Raises:
        InputError: The folder does not exist or cannot be written.
    """
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes indented JSON in one step, with a final newline.

    Raises:
        InputError: The folder does not exist or cannot be written.
    """
    write_text(path, json.dumps(value, indent=2) + "\n")


def save_tensors(path: Path, tensors: Mapping[str, Any], *, metadata: Mapping[str, str], library: str) -> None:
    """Writes a safetensors file, within `atomic_path`.

    Args:
        path: The file.
        tensors: Tensors of PyTorch, or arrays.
        metadata: Text to keep in its header.
        library: "torch" or "numpy": what the tensors are of.

    Raises:
        OSError: The disk is full, or the file cannot be written.
    """
    from safetensors import SafetensorError

    try:
        import_module(f"safetensors.{library}").save_file(dict(tensors), path, metadata=dict(metadata))
    except SafetensorError as err:  # not an OSError, though that is what it is about
        raise OSError(errno.EIO, str(err)) from err


def read_document(path: Path, *, format: str, version: int) -> dict[str, Any]:
    """Reads a JSON or TOML file (by its suffix) and checks its format name and version.

    Raises:
        FormatError: The file cannot be read, does not parse, or is of another format or a newer version.
    """
    raw = _parse(path)
    if not isinstance(raw, dict) or "format" not in raw:
        raise FormatError(f'{path} is not a {format} file: it has no "format" entry')
    if raw["format"] != format:
        raise FormatError(f"{path} is a {raw['format']!r} file; expected {format!r}")
    if raw.get("version") != version:
        raise FormatError(
            f"{path} has version {raw.get('version')!r}; this nas2edge reads version {version} of {format}: "
            "write the file again, or use the nas2edge that wrote it"
        )
    return raw


def _parse(path: Path) -> Any:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as err:
        raise FormatError(f"cannot read {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise FormatError(f"{path} is not a text file; expected JSON or TOML") from err
    try:
        return tomllib.loads(text) if Path(path).suffix == ".toml" else json.loads(text)
    except (ValueError, RecursionError) as err:  # of either syntax; too many digits; nested too deeply
        raise FormatError(f"{path} does not parse: {err}") from err
