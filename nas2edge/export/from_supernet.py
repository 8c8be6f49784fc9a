"""The stages from the supernet to folded weights: freeze, recalibrate, fold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nas2edge.export.blame import blame, torch_blocks
from nas2edge.export.inputs import Inputs, spread
from nas2edge.export.parity import EXACT
from nas2edge.export.proof import Proof
from nas2edge.export.request import ExportRequest
from nas2edge.export.stages import FAILED, PASSED, SKIPPED
from nas2edge.export.statistics import MAX_SHIFT, MAX_SPREAD, PART, staleness
from nas2edge.graph import BN_EPS, fold_batch_norm
from nas2edge.supernet.images import BATCH
from nas2edge.supernet.static import StaticNet, extract, recalibrate

_NEUTRAL = {"weight": 1.0, "running_mean": 0.0, "running_var": 1.0 - BN_EPS}

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """A sub-network on its own.

    Args:
        net: In torch, recalibrated.
        folded: Its weights with batch normalisation folded in.
        logits: What it computes for the compared images, (N, classes).
    """

    net: StaticNet
    folded: Mapping[str, Array]
    logits: Array


def freeze(request: ExportRequest, inputs: Inputs, proof: Proof) -> Frozen:
    """Cuts the sub-network out, recalibrates and folds it.

    Raises:
        ParityError: A stage changed what it computes.
        DataError: There are no calibration images.
    """
    net = _cut_out(request, inputs, proof)
    _recalibrate(net, request.recalibrate, inputs, proof)
    logits = torch_logits(net, inputs.sample)
    folded = fold_batch_norm(net.layers, {name: value.numpy() for name, value in net.state_dict().items()})
    other = _with_folded(net, folded)
    proof.compare(
        "fold",
        logits,
        torch_logits(other, inputs.sample),
        blamed=lambda: blame(torch_blocks(net, inputs.sample), torch_blocks(other, inputs.sample)),
    )
    return Frozen(net=net, folded=folded, logits=logits)


def torch_logits(net: StaticNet, images: Array) -> Array:
    """Returns what a network computes for images (N, 3, R, R): logits (N, classes)."""
    return _in_parts(net, images)


def _in_parts(run: Callable[[Tensor], Tensor], images: Array) -> Array:
    """Runs few images at a time in channels-last memory."""
    ordered = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        return torch.cat([run(part) for part in torch.split(ordered, PART)]).numpy()


def _cut_out(request: ExportRequest, inputs: Inputs, proof: Proof) -> StaticNet:
    supernet, subnet = request.supernet.model, request.file.subnet
    net = extract(supernet, subnet)
    few = inputs.sample[spread(len(inputs.sample), PART)]  # every bit must agree, which more images make no surer
    sliced = _in_parts(lambda part: supernet(part, subnet), few)
    note = f"{len(net.state_dict())} tensors of the supernet"
    proof.compare("freeze", sliced, torch_logits(net, few), tolerance=EXACT, note=note)
    return net


def _recalibrate(net: StaticNet, wanted: int | None, inputs: Inputs, proof: Proof) -> None:
    if wanted == 0:
        proof.add("recalibrate", SKIPPED, "the stored statistics are kept, as asked")
        return
    images = inputs.calibration(wanted)
    recalibrate(net, (batch.contiguous(memory_format=torch.channels_last) for batch in images.normalised()))
    some = images.spread_normalised(BATCH).contiguous(memory_format=torch.channels_last)
    worst = staleness(net, some)[0]
    summary = f"batch-normalisation statistics from {len(images)} calibration images"
    said = f"on them the means of {worst.layer} lie {worst.shift:.2f} standard deviations off, its variances by a "
    said += f"factor of {math.exp(min(worst.spread, 50.0)):.3g}"
    if worst.stale:
        summary = f"the batch-normalisation statistics are not those of the {len(images)} calibration images"
    details = {"images": len(images), "worst": asdict(worst), "max_shift": MAX_SHIFT, "max_spread": MAX_SPREAD}
    proof.add("recalibrate", FAILED if worst.stale else PASSED, f"{summary}; {said}", details)


def _with_folded(net: StaticNet, folded: Mapping[str, Array]) -> StaticNet:
    """Returns a copy that runs the folded weights: its normalisations do nothing but add the folded biases."""
    copy = StaticNet(net.layers).eval()
    state = dict(net.state_dict())
    for name in state:
        op, norm, part = name.rpartition(".bn.")
        if not norm:
            state[name] = torch.from_numpy(folded[name])
        elif part == "bias":
            state[name] = torch.from_numpy(folded[f"{op}.bias"])
        elif part in _NEUTRAL:
            state[name] = torch.full_like(state[name], _NEUTRAL[part])
    copy.load_state_dict(state)
    return copy
