"""PyTorch, for exported programs (.pt2) and TorchScript (.pt): what a network costs where it goes no further."""

from __future__ import annotations

import warnings
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, final

import numpy as np
import torch

from nas2edge.errors import InputError, RuntimeFailedError
from nas2edge.runtimes.session import Array, Session, Tensor, Timed

_FLOAT32 = np.dtype(np.float32)


def open_session(model: Path | bytes, *, threads: int) -> Session:
    """Loads a file of `torch.export.save` or `torch.jit.save`; sets the threads of the whole process."""
    if isinstance(model, bytes):
        raise InputError("torch does not read ONNX; give a .pt2 or .pt file")
    torch.set_num_threads(threads)
    try:
        module = _load(model)
    except (RuntimeError, ValueError, OSError) as err:
        said = (str(err).splitlines() or [type(err).__name__])[0]
        raise RuntimeFailedError(f"torch {torch.__version__} does not load {model}: {said}") from err
    return _TorchSession(module, threads=threads)


def _load(model: Path) -> Any:
    if model.suffix == ".pt2":
        return torch.export.load(str(model)).module()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=FutureWarning)
        load: Any = torch.jit.load
        return load(str(model), map_location="cpu").eval()


@final
class _TorchSession(Session):
    def __init__(self, module: Any, *, threads: int) -> None:
        self._module = module
        self.runtime, self.threads = f"PyTorch {torch.__version__.split('+')[0]}", threads
        self.input = Tensor(name="images", shape=(), dtype=_FLOAT32)
        self.output = Tensor(name="logits", shape=(), dtype=_FLOAT32)

    def run(self, images: Array) -> Array:
        try:
            with torch.inference_mode():
                return np.asarray(self._module(torch.from_numpy(np.ascontiguousarray(images))).numpy())
        except RuntimeError as err:
            raise RuntimeFailedError(f"{self.runtime} failed: {str(err).splitlines()[-1]}") from err

    def prepare(self, images: Array) -> Timed:
        source = torch.from_numpy(np.ascontiguousarray(images))

        def timed(n: int) -> tuple[float, float]:
            with torch.inference_mode():
                worked, start = thread_time(), perf_counter()
                for _ in range(n):
                    self._module(source)
                return perf_counter() - start, thread_time() - worked

        return timed
