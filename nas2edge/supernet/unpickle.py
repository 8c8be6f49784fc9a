"""Reads the tensors of a file written by torch.save, as NumPy arrays, without running anything that the file says.

A pickle is a program. This reader has a table of the few names that tensors and plain containers are made of; whatever
else a file asks for is refused with its name, before it is called. Both layouts are read: the legacy one (torch before
1.6, which AlphaNet's checkpoints have) and the zip file. Neither torch nor the classes of the writer are needed.

>>> read_torch_file(Path("checkpoint.pth.tar"), inert=("utils.config.",))["state_dict"]  # doctest: +SKIP
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, final

import numpy as np
import numpy.typing as npt

from nas2edge.errors import CheckpointError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


@final
class Inert(dict[Any, Any]):
    """Stands in for an object of a class that is known but of no interest; takes its state and does nothing."""

    def __init__(self, *args: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Drops the state."""


@dataclass(slots=True)
class _Storage:
    """A flat array that several tensors may share; filled when its bytes have been read."""

    dtype: type[np.generic]
    size: int
    values: npt.NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A view of a storage that may not be filled yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> npt.NDArray[Any]:
        values = self.storage.values
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if values is None or self.offset < 0 or min(self.strides, default=0) < 0 or last >= max(len(values), 1):
            raise CheckpointError(f"a tensor of shape {self.shape} reaches outside its storage")
        strides = tuple(s * values.itemsize for s in self.strides)
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides, writeable=False)
        return np.ascontiguousarray(view).reshape(self.shape)


def read_torch_file(path: Path, *, inert: tuple[str, ...] = ()) -> Any:
    """Reads a file written by torch.save; tensors become arrays, all else stays as plain containers and values.

    Args:
        path: The file.
        inert: Full names, or prefixes that end in a dot, of classes whose objects are read as `Inert`.

    Raises:
        CheckpointError: The file is missing or truncated, is no such file, or asks for anything else than tensors,
            plain containers and the inert classes; the message has its name.
    """
    try:
        with open(path, "rb") as file:
            if zipfile.is_zipfile(file):
                return _read_zip(file, inert)
            file.seek(0)
            return _read_legacy(file, inert)
    except OSError as err:
        raise CheckpointError(f"cannot read {path}: {err.strerror}") from err
    except CheckpointError as err:
        raise CheckpointError(f"{path}: {err}") from err
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
            zipfile.BadZipFile, MemoryError) as err:  # fmt: skip
        raise CheckpointError(f"{path} is corrupt or was not written by torch.save: {err}") from err


@final
class _Unpickler(pickle.Unpickler):
    """An unpickler that knows tensors and plain containers only."""

    def __init__(self, file: BinaryIO, inert: tuple[str, ...]) -> None:
        super().__init__(file, encoding="utf-8")
        self._inert = inert
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _ALLOWED:
            return _ALLOWED[full]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if any(full == entry or (entry.endswith(".") and full.startswith(entry)) for entry in self._inert):
            return Inert
        raise CheckpointError(
            f"it asks for {full}, which is neither a tensor nor a plain container; refused, and nothing was run"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, *_ = pid
        if kind != "storage":
            raise CheckpointError(f"it refers to {kind!r}; expected a storage")
        return self.storages.setdefault(str(key), _Storage(dtype=dtype, size=int(size)))


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _rebuild_parameter(data: _Tensor, *_: Any) -> _Tensor:
    return data


_ALLOWED: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch.Size": tuple,
}


def _read_legacy(file: BinaryIO, inert: tuple[str, ...]) -> Any:
    magic, protocol, _ = (_Unpickler(file, ()).load() for _ in range(3))
    if magic != _LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL:
        raise CheckpointError("it does not start as a file of torch.save does")
    unpickler = _Unpickler(file, inert)
    root = unpickler.load()
    for key in _Unpickler(file, ()).load():
        storage = unpickler.storages[str(key)]
        size = int.from_bytes(_exactly(file, 8), "little")
        if size != storage.size:
            raise CheckpointError(f"storage {key} has {size} values where {storage.size} were announced")
        storage.values = np.frombuffer(_exactly(file, size * np.dtype(storage.dtype).itemsize), dtype=storage.dtype)
    return _materialise(root)


def _read_zip(file: BinaryIO, inert: tuple[str, ...]) -> Any:
    with zipfile.ZipFile(file) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        folder = name.removesuffix("data.pkl")
        unpickler = _Unpickler(io.BytesIO(archive.read(name)), inert)
        root = unpickler.load()
        for key, storage in unpickler.storages.items():
            storage.values = np.frombuffer(archive.read(f"{folder}data/{key}"), dtype=storage.dtype)
    return _materialise(root)


def _exactly(file: BinaryIO, n: int) -> bytes:
    data = file.read(n)
    if len(data) != n:
        raise CheckpointError(f"it is truncated: {n} bytes were expected and {len(data)} are there")
    return data


def _materialise(value: Any) -> Any:
    if isinstance(value, _Tensor):
        return value.array()
    if isinstance(value, Inert):
        return value
    if isinstance(value, dict):
        return {key: _materialise(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_materialise(item) for item in value]
    return value
