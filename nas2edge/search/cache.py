"""Accuracies that were measured, on disk, so that a search that was cut short loses nothing: a line of JSON each.

A line holds what the accuracy depends on: the supernet (the first 16 digits of its weights' sha256), the images (a
digest), and the sub-network. As a search with equal options proposes the same sub-networks again, it goes on where it
was. The file that a predictor was fitted to (`evaluated.jsonl`, beside the weights) is of the same form, so that what
it holds is known to every search of that supernet.

>>> known = read_accuracies(Path("runs/tiny/evaluated.jsonl"), supernet_sha256=sha256, data=digest)
>>> cached = CachedEvaluator(evaluator, Path("accuracies.jsonl"), supernet_sha256=sha256, data=digest, known=known)
>>> cached([space.smallest()])
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from nas2edge.errors import FormatError, InputError, SubnetError
from nas2edge.space import SubnetConfig

CACHE_NAME, EVALUATED_NAME = "accuracies.jsonl", "evaluated.jsonl"
"""Where a search keeps what it measured; what a predictor was fitted to."""

_BLOCK = 1 << 20


@final
class CachedEvaluator:
    """An evaluator that measures each sub-network once, however often a search is started.

    Args:
        evaluator: Measures accuracies of sub-networks; what it yields is kept as soon as it comes.
        path: The file; it is made with the first accuracy.
        supernet_sha256: Of the weights.
        data: Digest of the images.
        known: What was measured elsewhere with these weights and images; it is not written again.

    Attributes:
        known: Accuracies that were measured.

    Raises:
        FormatError: The file is there and does not read.
    """

    def __init__(
        self,
        evaluator: Callable[[Sequence[SubnetConfig]], Iterable[float]],
        path: Path,
        *,
        supernet_sha256: str,
        data: str,
        known: Mapping[SubnetConfig, float] | None = None,
    ) -> None:
        self._evaluator, self._path = evaluator, path
        self._advance: Callable[[int], None] = lambda _: None
        self._key = _key(supernet_sha256, data)
        self.known = {**(known or {}), **_read(path, self._key, repair=True)}

    def __call__(self, subnets: Sequence[SubnetConfig]) -> list[float]:
        """Returns the accuracy of each sub-network, in percent."""
        missing = [subnet for subnet in dict.fromkeys(subnets) if subnet not in self.known]
        self._advance(len(subnets) - len(missing))
        for subnet, accuracy in zip(missing, self._evaluator(missing), strict=True):
            # A share of any number of images that fits into memory, without the noise of float32.
            self.known[subnet] = round(float(accuracy), 6)
            self._append({**self._key, "subnet": subnet.to_dict(), "accuracy": self.known[subnet]})
            self._advance(1)
        return [self.known[subnet] for subnet in subnets]

    def watch(self, advance: Callable[[int], None]) -> None:
        """Calls a function with the number of accuracies that have become known, from now on."""
        self._advance = advance

    def _append(self, entry: dict[str, Any]) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry, separators=(",", ":")) + "\n")
        except OSError as err:
            raise InputError(f"cannot write {self._path}: {err.strerror}; choose another folder by --cache") from err


def read_accuracies(path: Path, *, supernet_sha256: str, data: str) -> dict[SubnetConfig, float]:
    """Returns the accuracies in a file that were measured with these weights on these images; none if there is no file.

    Raises:
        FormatError: The file does not read.
    """
    return _read(path, _key(supernet_sha256, data), repair=False)


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


def _key(supernet_sha256: str, data: str) -> dict[str, str]:
    return {"supernet": supernet_sha256[:16], "data": data}


def _read(path: Path, key: dict[str, str], *, repair: bool) -> dict[SubnetConfig, float]:
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        raise FormatError(f"cannot read {path}: {err}; remove it, or choose another folder by --cache") from err
    lines = text.splitlines()
    if text and not text.endswith("\n"):
        # The last line was cut short when a search was killed: that one accuracy is measured again.
        torn = lines.pop()
        if repair:
            _drop_last_line(path, torn)
    known: dict[SubnetConfig, float] = {}
    for i, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            if {name: entry[name] for name in key} == key:
                known[SubnetConfig.from_dict(entry["subnet"])] = float(entry["accuracy"])
        except (ValueError, KeyError, TypeError, SubnetError) as err:
            raise FormatError(f"{path}, line {i} does not read ({err!r}); remove the file to measure anew") from err
    return known


def _drop_last_line(path: Path, line: str) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - len(line.encode()))
