"""Accuracies that were measured, on disk, so that a search that was cut short loses nothing: a line of JSON each.

A line holds what the accuracy depends on: the supernet (sha256 of its weights), the sub-network's id, and the images
(a digest). As a search with equal options proposes the same sub-networks again, it goes on where it was.

>>> cached = CachedEvaluator(evaluator, Path("accuracies.jsonl"), supernet_sha256=sha256, data=digest)
>>> cached([space.smallest()])
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

from nas2edge.errors import FormatError, InputError
from nas2edge.space import SubnetConfig

CACHE_NAME = "accuracies.jsonl"

_BLOCK = 1 << 20


@final
class CachedEvaluator:
    """An evaluator that measures each sub-network once, however often a search is started.

    Args:
        evaluator: Measures accuracies of sub-networks.
        path: The file; it is made with the first accuracy.
        supernet_sha256: Of the weights.
        data: Digest of the images.

    Attributes:
        known: Accuracies by id of the sub-network.

    Raises:
        FormatError: The file is there and does not read.
    """

    def __init__(
        self,
        evaluator: Callable[[Sequence[SubnetConfig]], Sequence[float]],
        path: Path,
        *,
        supernet_sha256: str,
        data: str,
    ) -> None:
        self._evaluator, self._path = evaluator, path
        self._key = {"supernet": supernet_sha256, "data": data}
        self.known = _read(path, self._key)

    def __call__(self, subnets: Sequence[SubnetConfig]) -> list[float]:
        """Returns the accuracy of each sub-network, in percent."""
        accuracies = []
        for subnet in subnets:
            if subnet.id not in self.known:
                (accuracy,) = self._evaluator([subnet])
                self.known[subnet.id] = float(accuracy)
                self._append({**self._key, "subnet": subnet.id, "accuracy": float(accuracy)})
            accuracies.append(self.known[subnet.id])
        return accuracies

    def _append(self, entry: dict[str, str | float]) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as err:
            raise InputError(f"cannot write {self._path}: {err.strerror}; choose another folder by --cache") from err


def digest_of_images(*sources: Path | None) -> str:
    """Returns a digest of image sources: of a file its contents, of a folder its files' names, sizes and times."""
    digest = hashlib.sha256()
    for source in sources:
        digest.update(b"none" if source is None else _digest(source))
    return digest.hexdigest()[:12]


def _digest(source: Path) -> bytes:
    digest = hashlib.sha256()
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file():
                status = path.stat()
                digest.update(f"{path.relative_to(source)}\n{status.st_size}\n{status.st_mtime_ns}\n".encode())
    elif source.exists():
        with source.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.digest()


def _read(path: Path, key: dict[str, str]) -> dict[str, float]:
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise FormatError(f"cannot read {path}: {err}; remove it, or choose another folder by --cache") from err
    lines = text.splitlines()
    if text and not text.endswith("\n"):
        # The last line was cut short when a search was killed: that one accuracy is measured again.
        _drop_last_line(path, lines.pop())
    known: dict[str, float] = {}
    for i, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            if {name: entry[name] for name in key} == key:
                known[entry["subnet"]] = float(entry["accuracy"])
        except (ValueError, KeyError, TypeError) as err:
            raise FormatError(f"{path}, line {i} does not read ({err!r}); remove the file to measure anew") from err
    return known


def _drop_last_line(path: Path, line: str) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - len(line.encode()))
