"""Supernets to and from weights files.

>>> loaded = load_supernet("builtin:tiny")
>>> loaded.model(images, loaded.info.space.smallest())
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nas2edge.errors import CheckpointError
from nas2edge.files import atomic_path, save_tensors
from nas2edge.supernet.elastic import Supernet
from nas2edge.supernet.weights_file import DEFAULT_SOURCE, Preprocess, SupernetInfo, metadata, supernet_info


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedSupernet:
    """A supernet in evaluation mode, and what its file says of it."""

    model: Supernet
    info: SupernetInfo


def load_supernet(source: str = DEFAULT_SOURCE) -> LoadedSupernet:
    """Reads a supernet, float32 whatever the file stores.

    Args:
        source: "builtin:NAME", a run's folder, or a weights file.

    Raises:
        UnknownNameError: There is no embedded supernet of that name.
        CheckpointError: The file is missing, corrupt, not a supernet, or its weights do not fit its space.
    """
    info = supernet_info(source)
    model = Supernet(info.space)
    try:
        state = load_file(info.path)
    except (SafetensorError, OSError) as err:
        raise CheckpointError(f"{info.path} is not a readable safetensors file: {err}") from err
    load_state(model, state, where=str(info.path))
    return LoadedSupernet(model=model.eval(), info=info)


def load_state(model: torch.nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Loads weights, after checking every name and shape.

    Raises:
        CheckpointError: Lists what is missing, unknown or of another shape, and values that are not finite.
    """
    expected = model.state_dict()
    problems = [f"missing {name}" for name in expected if name not in state]
    problems += [f"unknown {name}" for name in state if name not in expected]
    for name, value in state.items():
        if name not in expected:
            continue
        if value.shape != expected[name].shape:
            problems.append(f"{name} has shape {tuple(value.shape)}, expected {tuple(expected[name].shape)}")
        elif not bool(torch.isfinite(value).all()):
            problems.append(f"{name} holds values that are not finite")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(f"{where} does not fit its space: " + "; ".join(problems[:5]) + more)
    model.load_state_dict(dict(state))


def save_supernet(
    path: Path,
    model: Supernet,
    *,
    classes: tuple[str, ...],
    preprocess: Preprocess,
    trained: Mapping[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes a weights file in one step.

    Raises:
        InputError: The folder does not exist or cannot be written.
    """
    state = {name: value.to(dtype).contiguous() for name, value in model.state_dict().items()}
    notes = metadata(model.space, classes=classes, preprocess=preprocess, trained=trained)
    with atomic_path(path) as part:
        save_tensors(part, state, metadata=notes, library="torch")
