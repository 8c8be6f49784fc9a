"""Networks from outside as teachers: ONNX, TorchScript, a Python factory, or the largest sub-network of another run.

>>> teacher = load_teacher("resnet50.onnx", num_classes=1000)  # doctest: +SKIP
>>> teacher = load_teacher("my_models:resnet", num_classes=10)  # doctest: +SKIP

A teacher gets the normalised images as the data pipeline crops them, before any sub-network resizes them.
TorchScript files and factories run code of their own: use those that you trust.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas2edge.errors import CheckpointError, InputError
from nas2edge.optional import require
from nas2edge.supernet.blocks import resize
from nas2edge.supernet.checkpoint import load_supernet
from nas2edge.supernet.evaluate import make_evaluator
from nas2edge.train.step import Teacher


def load_teacher(spec: str, *, num_classes: int, device: torch.device | None = None) -> Teacher:
    """Returns a teacher.

    Args:
        spec: A path that ends in .onnx, .pt or .ts; the folder of a run; "builtin:NAME"; or "module:callable", whose
            callable takes no argument and returns a torch module.
        num_classes: Classes that it must know.
        device: Where torch modules run.

    Raises:
        InputError: The specification is none of these, or cannot be imported.
        CheckpointError: The file cannot be read.
    """
    where = device or torch.device("cpu")
    if spec.endswith(".onnx"):
        network: Teacher = _onnx(Path(spec))
    elif spec.endswith((".pt", ".ts")):
        network = _frozen(_torchscript(Path(spec)), where)
    elif spec.startswith("builtin:") or Path(spec).is_dir():
        supernet = load_supernet(spec)
        network = _frozen(make_evaluator(supernet).network(supernet.info.space.largest()), where)
    elif ":" in spec:
        network = _frozen(_factory(spec), where)
    else:
        raise InputError(
            f"teacher {spec!r} is not understood; expected a .onnx, .pt or .ts file, a run, or module:callable"
        )
    return _checked(network, spec, num_classes)


def _checked(network: Teacher, spec: str, num_classes: int) -> Teacher:
    def teach(images: Tensor) -> Tensor:
        logits = network(images)
        if logits.shape != (len(images), num_classes):
            raise InputError(
                f"teacher {spec!r} returns shape {tuple(logits.shape)} for {len(images)} images; expected "
                f"({len(images)}, {num_classes}): one logit for each class of the training images"
            )
        return logits

    return teach


def _frozen(module: torch.nn.Module, device: torch.device) -> Teacher:
    module.eval().to(device)

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.as_tensor(module(images))

    return run


def _onnx(path: Path) -> Teacher:
    require("onnxruntime", extra="train", purpose="an ONNX teacher")
    import onnxruntime as ort
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidProtobuf, NoSuchFile

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except (Fail, InvalidProtobuf, NoSuchFile) as err:
        raise CheckpointError(f"{path} is not a readable ONNX file: {err}") from err
    (image,) = session.get_inputs()[:1]
    batch, side = image.shape[0], image.shape[-1]

    def run(images: Tensor) -> Tensor:
        if isinstance(side, int):
            images = resize(images, side)
        array = images.cpu().numpy().astype(np.float32)
        parts = np.split(array, len(array)) if batch == 1 else [array]
        logits: list[Any] = [session.run(None, {image.name: part})[0] for part in parts]
        return torch.from_numpy(np.concatenate(logits)).to(images.device)

    return run


def _torchscript(path: Path) -> torch.nn.Module:
    try:
        return torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-any-return, no-untyped-call]
    except (RuntimeError, ValueError, OSError) as err:
        raise CheckpointError(f"{path} is not a readable TorchScript file: {err}") from err


def _factory(spec: str) -> torch.nn.Module:
    module, _, name = spec.partition(":")
    try:
        make: Callable[[], Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as err:
        raise InputError(f"teacher {spec!r} cannot be imported: {err}") from err
    made = make()
    if not isinstance(made, torch.nn.Module):
        raise InputError(f"teacher {spec!r} returns a {type(made).__name__}; expected a torch module")
    return made
