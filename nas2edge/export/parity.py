"""Comparison of two recorded outputs; nothing here runs a network.

>>> compare(reference, exported, tolerance=FLOAT32).passed
True
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """What two outputs may differ by.

    Args:
        max_abs: Greatest difference of any logit, in units of the largest reference logit (but at least of 1); None
            for any, since single logits say little of reduced precision.
        min_cosine: Least cosine of any image's two logit vectors.
        min_top1_agreement: Least share of images with the same predicted class; one may differ, being perhaps a tie.
    """

    max_abs: float | None
    min_cosine: float = -1.0
    min_top1_agreement: float = 0.0


EXACT = Tolerance(max_abs=0.0)
FLOAT32 = Tolerance(max_abs=1e-4, min_cosine=0.99999)
FLOAT16 = Tolerance(max_abs=None, min_cosine=0.9999, min_top1_agreement=0.995)
INT8 = Tolerance(max_abs=None)
"""Accuracy on labelled images decides, and nothing else but that all is finite."""
SAME_FLOAT16 = Tolerance(max_abs=None, min_cosine=0.9999)
"""Of a runtime or engine, against the ONNX file in ONNX Runtime."""
SAME_INT8 = Tolerance(max_abs=None, min_cosine=0.995, min_top1_agreement=0.95)
"""The same; a runtime may round a value to the next of 255 steps, and the next layer starts from there."""
SAME_MIXED = Tolerance(max_abs=None, min_cosine=0.99, min_top1_agreement=0.95)
"""Of int8 beside float16; a runtime that does not round to float16 in between gives the quantisers other values."""
_TOP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """How two outputs differ, and whether a tolerance allows it.

    Args:
        images: Images compared.
        max_abs: Greatest absolute difference of a logit.
        mean_abs: Mean absolute difference.
        rel_l2: Norm of the difference over the norm of the reference.
        sqnr_db: Signal to quantisation noise: -20 log10(rel_l2); infinite for equal outputs.
        cosine: Least cosine over the images.
        top1_agreement: Share of images with the same predicted class.
        top5_agreement: Share of the reference's five best classes that are among the other's.
        flips: Images with another predicted class.
        flip_margin: Greatest lead of the predicted class, in the reference's logits, over the one that took its place;
            0 without flips. Flips with a small lead are ties.
        median_margin: Median lead of the best class over the second, to compare with.
        not_finite: Values that are NaN or infinite, of both together.
        tolerance: What was allowed.
        scale: What `tolerance.max_abs` is multiplied by: the largest reference logit, at least 1.
    """

    images: int
    max_abs: float
    mean_abs: float
    rel_l2: float
    sqnr_db: float
    cosine: float
    top1_agreement: float
    top5_agreement: float
    flips: int
    flip_margin: float
    median_margin: float
    not_finite: int
    tolerance: Tolerance
    scale: float

    @property
    def passed(self) -> bool:
        """Whether all values are finite and within the tolerance."""
        return not self.explain()

    def explain(self) -> str:
        """Returns what is beyond the tolerance, in words; empty if nothing is."""
        allowed = self.tolerance
        reasons = []
        if self.not_finite:
            reasons.append(f"{self.not_finite} values are not finite")
        if allowed.max_abs is not None and not self.max_abs <= allowed.max_abs * self.scale:
            reasons.append(f"a logit differs by {self.max_abs:.3g}, allowed are {allowed.max_abs * self.scale:.3g}")
        if not self.cosine >= allowed.min_cosine:
            reasons.append(f"the least cosine is {self.cosine:.6f}, allowed are {allowed.min_cosine:.6f}")
        if not self.top1_agreement >= min(allowed.min_top1_agreement, 1.0 - 1.0 / self.images) - 1e-9:
            reasons.append(f"{self.top1_agreement:.2%} of the predictions agree, {allowed.min_top1_agreement:.2%} must")
        return "; ".join(reasons)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form; values that are not finite become null."""
        raw = asdict(self)
        metrics = {name: value if np.isfinite(value) else None for name, value in raw.items() if name != "tolerance"}
        return {**metrics, "tolerance": raw["tolerance"], "passed": self.passed, "reason": self.explain()}


def compare(
    reference: npt.NDArray[np.float32], other: npt.NDArray[np.float32], *, tolerance: Tolerance
) -> ParityReport:
    """Compares two outputs of the same images.

    Args:
        reference: Logits (N, classes).
        other: Logits (N, classes).
        tolerance: What they may differ by.

    Raises:
        ValueError: The shapes differ or are not (N, classes).
    """
    if reference.shape != other.shape or reference.ndim != 2 or not reference.size:
        raise ValueError(f"outputs of shapes {reference.shape} and {other.shape} cannot be compared")
    a, b = reference.astype(np.float64), other.astype(np.float64)
    not_finite = int(np.count_nonzero(~np.isfinite(a)) + np.count_nonzero(~np.isfinite(b)))
    with np.errstate(all="ignore"):
        difference = np.abs(a - b)
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        same = (a == b).all(axis=1)
        cosine = np.where(same, 1.0, (a * b).sum(axis=1) / norms)
        size = np.linalg.norm(a)
        rel_l2 = 0.0 if same.all() else float(np.linalg.norm(a - b) / size) if size else float("inf")
        order = np.sort(a, axis=1)
        lead = a.max(axis=1) - np.take_along_axis(a, b.argmax(axis=1)[:, None], axis=1)[:, 0]
        margin = float(np.median(order[:, -1] - order[:, -2])) if a.shape[1] > 1 else 0.0
    flipped = a.argmax(axis=1) != b.argmax(axis=1)
    return ParityReport(
        images=len(a),
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        rel_l2=rel_l2,
        sqnr_db=sqnr_db(rel_l2),
        cosine=float(cosine.min()),
        top1_agreement=float(1.0 - flipped.mean()),
        top5_agreement=_top_agreement(a, b),
        flips=int(flipped.sum()),
        flip_margin=float(lead[flipped].max(initial=0.0)),
        median_margin=margin,
        not_finite=not_finite,
        tolerance=tolerance,
        scale=max(1.0, float(np.abs(a).max())) if not not_finite else 1.0,
    )


def sqnr_db(rel_l2: float) -> float:
    """Returns the signal-to-noise ratio in decibels of a relative difference; infinite for none."""
    return float("inf") if rel_l2 == 0 else -20.0 * float(np.log10(rel_l2)) if np.isfinite(rel_l2) else -float("inf")


def _top_agreement(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    best_a, best_b = (np.argsort(-values, axis=1, kind="stable")[:, :_TOP] for values in (a, b))
    return float((best_a[:, :, None] == best_b[:, None, :]).any(axis=2).mean())
