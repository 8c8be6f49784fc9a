"""The published checkpoints of AlphaNet and AttentiveNAS as supernets of ours.

The files are CC BY-NC 4.0 and are not shipped; a user who has one imports it. Facts of the files: weights stand under
"state_dict" with the prefix "module."; every batch normalisation carries two more that are never used; a shortcut
convolution is stored for each of the 37 blocks, though only the first of a stage ever runs it. The stored statistics
are those of initialisation, since training never updates them, so every sub-network must be recalibrated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nas2edge.errors import CheckpointError
from nas2edge.space import SearchSpace
from nas2edge.spaces import load_space
from nas2edge.supernet.checkpoint import load_state
from nas2edge.supernet.elastic import Supernet
from nas2edge.supernet.unpickle import read_torch_file
from nas2edge.supernet.weights_file import Preprocess

TRAINER_CLASSES = ("utils.config.",)
"""Classes of the original trainer that its files hold; they are read as inert."""

PREPROCESS = Preprocess(image_size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""ImageNet's customary statistics, which the original configuration uses."""

_PREFIX = "module."
_UNUSED = re.compile(r".*\.(bn_tracking\..*|num_batches_tracked)")


def import_alphanet(path: Path) -> Supernet:
    """Reads a published checkpoint of AlphaNet or AttentiveNAS.

    Raises:
        CheckpointError: The file is unreadable or unsafe, or lists what is missing, unknown or of another shape.
    """
    raw = read_torch_file(path, inert=TRAINER_CLASSES)
    state = raw.get("state_dict") if isinstance(raw, Mapping) else None
    if not isinstance(state, Mapping):
        raise CheckpointError(f'{path} has no "state_dict"; expected a checkpoint of AlphaNet\'s trainer')
    model = Supernet(load_space("attentivenas"))
    load_state(model, _renamed(state, model, path), where=str(path))
    return model.eval()


def original_name(name: str, space: SearchSpace) -> str:
    """Returns the name in a published checkpoint, without its prefix, of a weight of ours."""
    *parts, field = name.split(".")
    ending = f"bn.bn.{field}" if parts[-1] == "bn" else f"conv.conv.{field}"
    if parts[0] == "stem":
        return f"first_conv.{ending}"
    if parts[0] == "head":
        return {
            "expand": f"last_conv.final_expand_layer.{ending}",
            "mix": f"last_conv.feature_mix_layer.{ending}",
            "classifier": f"classifier.linear.linear.{field}",
        }[parts[1]]
    deepest = [stage.depth[-1] for stage in space.stages]
    block = f"blocks.{sum(deepest[: int(parts[1])]) + int(parts[3])}"
    main = f"{block}.mobile_inverted_conv"
    return {
        "expand": f"{main}.inverted_bottleneck.{ending}",
        "depthwise": f"{main}.depth_conv.{ending}",
        "se_reduce": f"{main}.depth_conv.se.fc.reduce.{field}",
        "se_expand": f"{main}.depth_conv.se.fc.expand.{field}",
        "project": f"{main}.point_linear.{ending}",
        "shortcut": f"{block}.shortcut.conv.conv.{field}",
    }[parts[4]]


def _renamed(state: Mapping[str, Any], model: Supernet, path: Path) -> dict[str, torch.Tensor]:
    ours = {original_name(name, model.space): name for name in model.state_dict()}
    renamed: dict[str, torch.Tensor] = {}
    for full_name, value in state.items():
        name = str(full_name).removeprefix(_PREFIX)
        if _UNUSED.fullmatch(name) or _never_runs(name, ours):
            continue
        if not isinstance(value, np.ndarray):
            raise CheckpointError(f"{path}: {full_name} is a {type(value).__name__}; expected a tensor")
        renamed[ours.get(name, name)] = torch.from_numpy(_float32(value))
    return renamed


def _never_runs(name: str, ours: Mapping[str, str]) -> bool:
    return ".shortcut." in name and name not in ours


def _float32(value: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.array(value, dtype=np.float32)
