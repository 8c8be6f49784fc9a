"""The state of a run on disk: weights, momentum and position, in one file that is replaced in one step."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from nas2edge.errors import CheckpointError, InputError
from nas2edge.files import atomic_path, save_tensors
from nas2edge.supernet.checkpoint import LoadedSupernet, load_state
from nas2edge.supernet.elastic import Supernet

CHECKPOINT_NAME, PREVIOUS_NAME = "checkpoint.safetensors", "checkpoint.previous.safetensors"

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Position:
    """How far a run has come.

    Args:
        epoch: Epochs done.
        step: Steps done of the next epoch.
        total: Sums of the losses of these steps.
        records: One line of the log for each epoch.
    """

    epoch: int = 0
    step: int = 0
    total: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    records: list[dict[str, Any]] = field(default_factory=list)


def save_checkpoint(
    folder: Path,
    *,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    position: Position,
    settings: Mapping[str, Any],
) -> None:
    """Writes the whole state of a run; the checkpoint before it stays as the previous one.

    Randomness has no state to save: every step's is a function of the seed and the position.

    Args:
        folder: The run's folder.
        model: Its weights.
        optimizer: Its momentum.
        position: How far it has come.
        settings: What must be equal for a run to go on from here.

    Raises:
        InputError: The folder cannot be written; the checkpoints that were there still are.
    """
    state = {f"model.{name}": value.contiguous() for name, value in model.state_dict().items()}
    for i, parameter in enumerate(model.parameters()):
        buffer = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if buffer is not None:
            state[f"momentum.{i}"] = buffer.contiguous()
    notes = {"position": asdict(position), "settings": settings}
    path = folder / CHECKPOINT_NAME
    with atomic_path(path) as part:
        save_tensors(part, state, metadata={"nas2edge": json.dumps(notes)}, library="torch")
        if path.exists():
            path.replace(folder / PREVIOUS_NAME)


def load_checkpoint(
    folder: Path,
    *,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> Position:
    """Restores the state of a run, and returns how far it had come: nowhere if the folder has no checkpoint.

    If the last checkpoint does not read, the one before it is used, and the log says so.

    Args:
        folder: The run's folder.
        model: Receives the weights.
        optimizer: Receives the momentum.
        settings: What must be equal.
        defaults: What settings were that an older version did not know yet.

    Raises:
        CheckpointError: No checkpoint that is there reads, or its weights do not fit.
        InputError: The run had other settings.
    """
    paths = [path for path in (folder / CHECKPOINT_NAME, folder / PREVIOUS_NAME) if path.exists()]
    problems = []
    for path in paths:
        try:
            notes, state = _read(path)
        except CheckpointError as err:
            problems.append(str(err))
            continue
        known = {**_flat(defaults), **_flat(notes["settings"])}
        _check_settings(path, known, _flat(json.loads(json.dumps(settings))))
        if problems:
            logger.warning("%s; going on from the checkpoint before it", problems[0])
        _restore(path, state, model, optimizer)
        return Position(**notes["position"])
    if problems:
        raise CheckpointError("; ".join(problems) + "; remove what is there to start anew")
    return Position()


def inherit(model: Supernet, other: LoadedSupernet, *, classes: tuple[str, ...]) -> None:
    """Starts a supernet from the weights of another; the classifier stays as drawn where the classes are others.

    Args:
        model: Receives the weights.
        other: A supernet of the same space, whatever its classes.
        classes: Class names of the images to train on.

    Raises:
        InputError: The spaces differ.
    """
    if replace(other.info.space, num_classes=model.space.num_classes).digest != model.space.digest:
        raise InputError(
            f"{other.info.path} is a supernet of the space {other.info.space.name!r}, which is not the one to train "
            f"({model.space.name!r}); give the same --space, or leave --init out"
        )
    state = dict(other.model.state_dict())
    if other.info.classes != classes:
        odd = [name for name in state if name.startswith("head.classifier.")]
        state |= {name: value for name, value in model.state_dict().items() if name in odd}
        logger.info("%s knows other classes: the classifier starts anew", other.info.path)
    load_state(model, state, where=str(other.info.path))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            notes = json.loads((file.metadata() or {})["nas2edge"])
        return notes, load_file(path)
    except (SafetensorError, OSError, KeyError, json.JSONDecodeError) as err:
        raise CheckpointError(f"{path} is not a readable checkpoint ({err})") from err


def _restore(path: Path, state: Mapping[str, Tensor], model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    weights = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    load_state(model, weights, where=str(path))
    for i, parameter in enumerate(model.parameters()):
        if f"momentum.{i}" in state:
            buffer = torch.empty_like(parameter).copy_(state[f"momentum.{i}"])
            optimizer.state[parameter]["momentum_buffer"] = buffer


def _check_settings(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    odd = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if odd:
        said = ", ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in odd)
        raise InputError(
            f"{path.parent} holds a run of other settings: {said}; go on with the same, or give another --out"
        )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat.update(_flat(value) if isinstance(value, Mapping) else {name: value})
    return flat
