"""The values that a network's tensors take on calibration images, and how much of their range int8 should cover.

Thresholds are for *symmetric* quantisation: a tensor is clipped to [-t, t] and divided into 255 steps.

>>> seen = observe(model, ["stem.conv.swish"], batches)
>>> seen["stem.conv.swish"].threshold("mse")
4.1
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from nas2edge.export.onnx_file import open_batch, open_model

BINS = 2048
LEVELS = 127
"""Steps to either side of zero."""
PERCENTILE = 99.99
_LEAST_BINS = 128

Array = npt.NDArray[np.float32]
Counts = npt.NDArray[np.int64]
Batches = Callable[[], Iterable[Array]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was seen of one tensor.

    Args:
        greatest: Greatest absolute value.
        counts: Histogram of absolute values, `BINS` equal bins from 0 to `greatest`.
    """

    greatest: float
    counts: Counts

    def threshold(self, calibrator: str) -> float:
        """Returns the absolute value from which on to clip, by the name of a calibrator."""
        return CALIBRATORS[calibrator](self)

    def clipped(self, threshold: float) -> float:
        """Returns the share of values beyond a threshold."""
        first = int(np.ceil(threshold / self.greatest * BINS)) if self.greatest else BINS
        return float(self.counts[first:].sum() / max(1, self.counts.sum()))


def observe(model: onnx.ModelProto, tensors: Sequence[str], batches: Batches) -> dict[str, Observed]:
    """Runs a float32 network on calibration images, once for the ranges and once for the histograms.

    Args:
        model: The network; its batch size is left open for this.
        tensors: Names of what to look at.
        batches: Yields images (N, ...) as the network takes them, the same each time that it is called.

    Returns:
        By name, in the order of `tensors`.
    """
    greatest = np.array(list(greatest_values(model, tensors, batches).values()))
    counts = np.zeros((len(tensors), BINS), dtype=np.int64)
    for values in _run(model, tensors, batches):
        for i, value in enumerate(values):
            counts[i] += np.histogram(np.abs(value), bins=BINS, range=(0.0, greatest[i] or 1.0))[0]
    return {name: Observed(greatest=float(greatest[i]), counts=counts[i]) for i, name in enumerate(tensors)}


def greatest_values(model: onnx.ModelProto, tensors: Sequence[str], batches: Batches) -> dict[str, float]:
    """Runs a float32 network on calibration images and returns the greatest absolute value of each tensor."""
    greatest = np.zeros(len(tensors))
    for values in _run(model, tensors, batches):
        greatest = np.maximum(greatest, [float(np.abs(value).max()) for value in values])
    return dict(zip(tensors, greatest.tolist(), strict=True))


def float_tensors(model: onnx.ModelProto) -> list[str]:
    """Returns the names of all float32 tensors that a graph computes."""
    known = onnx.shape_inference.infer_shapes(model)
    values = (*known.graph.value_info, *known.graph.output)
    return [value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]


def _run(model: onnx.ModelProto, tensors: Sequence[str], batches: Batches) -> Iterator[list[Array]]:
    copy = open_batch(model)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    session = open_model(copy)
    for images in batches():
        yield session.run(None, {copy.graph.input[0].name: images})


def _by_maximum(seen: Observed) -> float:
    return seen.greatest


def _by_percentile(seen: Observed) -> float:
    """Covers 99.99 percent of the values."""
    share = np.cumsum(seen.counts) / max(1, seen.counts.sum())
    return seen.greatest * (int(np.searchsorted(share, PERCENTILE / 100.0)) + 1) / BINS


def _by_squared_error(seen: Observed) -> float:
    """The least mean squared error of rounding and clipping together, over the histogram."""
    centres = (np.arange(BINS) + 0.5) / BINS
    candidates = np.arange(_LEAST_BINS, BINS + 1, 16) / BINS
    steps = candidates[:, None] / LEVELS
    rounded = np.minimum(np.rint(centres / steps), LEVELS) * steps
    errors = ((rounded - centres) ** 2 * seen.counts).sum(axis=1)
    return seen.greatest * float(candidates[int(errors.argmin())])


def _by_entropy(seen: Observed) -> float:
    """The least Kullback-Leibler divergence of the quantised from the clipped distribution (TensorRT's classic)."""
    best, chosen = np.inf, BINS
    for bins in range(_LEAST_BINS, BINS + 1, 16):
        divergence = _divergence(seen.counts, bins)
        if divergence < best:
            best, chosen = divergence, bins
    return seen.greatest * chosen / BINS


def _divergence(counts: Counts, bins: int) -> float:
    clipped = counts[:bins].astype(np.float64)
    clipped[-1] += counts[bins:].sum()
    edges = np.linspace(0, bins, _LEAST_BINS + 1).astype(int)
    filled = counts[:bins] > 0
    totals = np.add.reduceat(counts[:bins].astype(np.float64), edges[:-1])
    holders = np.add.reduceat(filled.astype(np.float64), edges[:-1])
    level = np.repeat(totals / np.maximum(holders, 1.0), np.diff(edges))
    merged = np.where(filled, level, 0.0)
    p, q = clipped / clipped.sum(), merged / max(merged.sum(), 1e-12)
    both = (p > 0) & (q > 0)
    missed = p[(p > 0) & (q == 0)].sum()
    return float((p[both] * np.log(p[both] / q[both])).sum() + missed * 10.0)


CALIBRATORS: dict[str, Callable[[Observed], float]] = {
    "minmax": _by_maximum,
    "percentile": _by_percentile,
    "entropy": _by_entropy,
    "mse": _by_squared_error,
}
"""How thresholds are chosen, by name."""
