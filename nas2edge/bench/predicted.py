"""What a latency table predicts of an artefact that says which sub-network it is, block by block, and what it takes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas2edge.bench.artefact import Artefact
from nas2edge.errors import FormatError, SpaceError, SubnetError, UnknownNameError
from nas2edge.latency.table import LatencyTable
from nas2edge.plan import LayerSpec, plan
from nas2edge.runtimes.operators import OperatorTime
from nas2edge.space import SubnetConfig, space_from_dict
from nas2edge.spaces import load_space


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTime:
    """One block, predicted and measured.

    Args:
        name: Where it stands in the network, such as "stages.2.blocks.0".
        predicted_ms: By the table.
        status: Of the table's row.
        measured_ms: Its share of the operators' time, times the network's measured latency; None if no operator could
            be told to be of it.
    """

    name: str
    predicted_ms: float
    status: str
    measured_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A whole network, predicted and measured.

    Args:
        device: Name of the table.
        predicted_ms: With the table's calibration.
        sigma_ms: Expected one-sigma error.
        measured_ms: Median of the runs.
        blocks: One an operator's block, from stem to head.
        unmapped_ms: What operators take that could be told to be of no block.
    """

    device: str
    predicted_ms: float
    sigma_ms: float
    measured_ms: float
    blocks: tuple[BlockTime, ...]
    unmapped_ms: float


def subnet_of(artefact: Artefact) -> Mapping[str, Any] | None:
    """Returns {"space", "subnet"} of the sub-network that an artefact says it is, None if it does not say.

    A bundle says it in its manifest, an ONNX file of nas2edge in its metadata.

    Raises:
        FormatError: The file is damaged.
    """
    raw = artefact.manifest.get("subnet") if artefact.manifest is not None else _metadata(artefact)
    return {name: raw[name] for name in ("space", "subnet")} if raw and {"space", "subnet"} <= set(raw) else None


def layers_of(artefact: Artefact) -> tuple[LayerSpec, ...] | None:
    """Returns the blocks of the sub-network that an artefact says it is, None if it does not say.

    Raises:
        FormatError: What it says does not read.
    """
    raw = subnet_of(artefact)
    return None if raw is None else layers_from(raw, name=artefact.name)


def layers_from(raw: Mapping[str, Any], *, name: str) -> tuple[LayerSpec, ...]:
    """Returns the blocks of what `subnet_of` returned.

    Args:
        raw: {"space", "subnet"}.
        name: What errors call it.

    Raises:
        FormatError: It does not read.
    """
    try:
        space = raw["space"]
        found = space_from_dict(space) if isinstance(space, Mapping) else load_space(str(space))
        return plan(found, SubnetConfig.from_dict(raw["subnet"]))
    except (KeyError, TypeError, SpaceError, SubnetError, UnknownNameError) as err:
        raise FormatError(f"{name} names a sub-network that does not read: {err}") from err


def predict(
    table: LatencyTable, layers: Sequence[LayerSpec], operators: Sequence[OperatorTime], *, measured_ms: float
) -> Prediction:
    """Puts a table's prediction beside a measurement.

    Args:
        table: The table.
        layers: The sub-network.
        operators: Its profile. Profiling slows operators down, so only their shares are used.
        measured_ms: Latency of the network, measured without profiling.

    Raises:
        TableError: Blocks have no row and nothing to estimate them from.
    """
    estimate = table.estimate(layers)
    shares = block_shares(layers, operators)
    blocks = []
    for layer in layers:
        row = table.row(layer)
        share = shares.get(layer.name)
        measured = None if share is None else share * measured_ms
        blocks.append(BlockTime(name=layer.name, predicted_ms=row.ms, status=row.status, measured_ms=measured))
    return Prediction(
        device=table.device.name,
        predicted_ms=estimate.ms,
        sigma_ms=estimate.sigma_ms,
        measured_ms=measured_ms,
        blocks=tuple(blocks),
        unmapped_ms=shares.get("", 0.0) * measured_ms,
    )


def block_shares(layers: Sequence[LayerSpec], operators: Sequence[OperatorTime]) -> dict[str, float]:
    """Returns each block's share of the operators' time by its name; "" for operators before any that is mapped.

    An operator belongs to the block whose name it carries. One that the runtime made up, such as a change of layout,
    counts with the operator before it.
    """
    names = sorted((layer.name for layer in layers), key=len, reverse=True)
    pattern = re.compile("(?:^|_)(" + "|".join(map(re.escape, names)) + r")(?![\w])|^(logits)")
    total = sum(entry.ms for entry in operators) or 1.0
    shares: dict[str, float] = {}
    current = ""
    for entry in operators:
        match = pattern.search(entry.name)
        if match:
            current = match.group(1) or layers[-1].name  # the last operator has the name of the output
        shares[current] = shares.get(current, 0.0) + entry.ms / total
    return shares


def _metadata(artefact: Artefact) -> dict[str, Any] | None:
    if artefact.path.suffix != ".onnx":
        return None
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(artefact.path), load_external_data=False)
        properties = {entry.key: entry.value for entry in model.metadata_props}
        if not {"nas2edge.space", "nas2edge.subnet"} <= set(properties):
            return None
        return {"space": properties["nas2edge.space"], "subnet": json.loads(properties["nas2edge.subnet"])}
    except (DecodeError, ValueError) as err:
        raise FormatError(f"{artefact.path} is no ONNX file that reads: {err}") from err
