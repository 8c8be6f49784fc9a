"""ncnn on the CPU, in float32: its packed half precisions are off unless the model says otherwise."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, final

import ncnn
import numpy as np

from nas2edge.errors import InputError, RuntimeFailedError
from nas2edge.runtimes.session import Array, Session, Tensor, Timed

_FLOAT32 = np.dtype(np.float32)


def open_session(model: Path | bytes, *, threads: int) -> Session:
    """Loads a .param file and the .bin beside it."""
    if isinstance(model, bytes):
        raise InputError("ncnn does not read ONNX; convert the model first, and give its .param file")
    weights = model.with_suffix(".bin")
    if not weights.is_file():
        raise InputError(f"there is no {weights} beside {model.name}; ncnn needs both")
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
        setattr(net.opt, option, False)
    if net.load_param(str(model)) or net.load_model(str(weights)):
        raise RuntimeFailedError(f"ncnn {ncnn.__version__} does not load {model}; it says why on stderr")
    return _NcnnSession(net, threads=threads)


@final
class _NcnnSession(Session):
    def __init__(self, net: Any, *, threads: int) -> None:
        self._net = net
        self.runtime, self.threads = f"ncnn {ncnn.__version__}", threads
        (source,), (target,) = net.input_names(), net.output_names()
        self.input = Tensor(name=source, shape=(), dtype=_FLOAT32)
        self.output = Tensor(name=target, shape=(), dtype=_FLOAT32)

    def run(self, images: Array) -> Array:
        """Runs image by image: ncnn has no batches."""
        return np.stack([self._one(ncnn.Mat(np.ascontiguousarray(image))) for image in images])

    def prepare(self, images: Array) -> Timed:
        mats = [ncnn.Mat(np.ascontiguousarray(image)).clone() for image in images]

        def timed(n: int) -> tuple[float, float]:
            worked, start = thread_time(), perf_counter()
            for _ in range(n):
                for mat in mats:
                    self._one(mat)
            return perf_counter() - start, thread_time() - worked

        return timed

    def close(self) -> None:
        self._net.clear()

    def _one(self, image: Any) -> Array:
        extractor = self._net.create_extractor()
        code = extractor.input(self.input.name, image)
        if not code:
            code, found = extractor.extract(self.output.name)
        if code:
            raise RuntimeFailedError(f"{self.runtime} failed with code {code}; it says why on stderr")
        return np.array(found)
