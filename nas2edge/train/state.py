"""The state of a run on disk: weights, momentum and position, in one file that is replaced in one step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from nas2edge.errors import CheckpointError, InputError
from nas2edge.files import atomic_path
from nas2edge.supernet.checkpoint import load_state

CHECKPOINT_NAME = "checkpoint.safetensors"


@dataclass(slots=True, kw_only=True)
class Position:
    """How far a run has come.

    Args:
        epoch: Epochs done.
        records: One line of the log for each.
    """

    epoch: int = 0
    records: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(
    path: Path,
    *,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    position: Position,
    settings: Mapping[str, Any],
) -> None:
    """Writes the whole state of a run.

    Args:
        path: The file.
        model: Its weights.
        optimizer: Its momentum.
        position: How far it has come.
        settings: What must be equal for a run to go on from here.

    Raises:
        InputError: The folder cannot be written.
    """
    state = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    for i, parameter in enumerate(model.parameters()):
        buffer = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if buffer is not None:
            state[f"momentum.{i}"] = buffer.contiguous()
    notes = {"epoch": position.epoch, "records": position.records, "settings": settings}
    with atomic_path(path) as part:
        save_file(state, part, metadata={"nas2edge": json.dumps(notes)})


def load_checkpoint(
    path: Path, *, model: torch.nn.Module, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]
) -> Position:
    """Restores the state of a run, and returns how far it had come.

    Raises:
        CheckpointError: The file is corrupt, or its weights do not fit.
        InputError: The run had other settings.
    """
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads((file.metadata() or {})["nas2edge"])
        state = load_file(path)
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as err:
        raise CheckpointError(f"{path} is not a readable checkpoint ({err}); remove it to start anew") from err
    _check_settings(path, notes["settings"], json.loads(json.dumps(settings)))
    weights = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    load_state(model, weights, where=str(path))
    for i, parameter in enumerate(model.parameters()):
        if f"momentum.{i}" in state:
            buffer = torch.empty_like(parameter).copy_(state[f"momentum.{i}"])
            optimizer.state[parameter]["momentum_buffer"] = buffer
    return Position(epoch=notes["epoch"], records=notes["records"])


def _check_settings(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    flat_before, flat_now = _flat(before), _flat(now)
    odd = [name for name in sorted({*flat_before, *flat_now}) if flat_before.get(name) != flat_now.get(name)]
    if odd:
        said = ", ".join(f"{name} was {flat_before.get(name)!r} and is {flat_now.get(name)!r}" for name in odd)
        raise InputError(
            f"{path.parent} holds a run of other settings: {said}; go on with the same, or give another --out"
        )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat.update(_flat(value) if isinstance(value, Mapping) else {name: value})
    return flat
