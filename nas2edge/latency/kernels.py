"""The fused kernels that a runtime launches for a block, and a law that turns kernels into time.

A GPU at batch 1 spends its time on launches and on memory, not on arithmetic, so a block's time is a sum over the
kernels that are left after fusion:

    t = launch + bytes / bandwidth + MACs / rate(class)

Assumptions about fusion, which `KernelLaw.fused_acts` partly sets (docs/latency.md gives reasons):
batch normalisation is folded; an activation in `fused_acts` is the epilogue of its convolution, another one is a
pointwise kernel of its own; the addition of a shortcut is fused into the projection; squeeze-and-excitation is five
kernels (mean, two convolutions, hard sigmoid, scaling); a kernel reads input and weights and writes its output once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from nas2edge.costs import op_macs
from nas2edge.errors import FormatError
from nas2edge.plan import LayerSpec, OpSpec

POINTWISE, DEPTHWISE, OTHER = "pointwise", "depthwise", "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One launch.

    Args:
        name: The op or activation that it executes.
        kind: "depthwise", "pointwise" (all other convolutions and linear layers), or "other", which has no MACs.
        macs: Multiply-accumulates.
        read: Values read, without weights.
        written: Values written.
        weights: Weight values read.
    """

    name: str
    kind: str
    macs: int = 0
    read: int = 0
    written: int = 0
    weights: int = 0

    @property
    def values(self) -> int:
        """All values moved."""
        return self.read + self.written + self.weights


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelLaw:
    """Coefficients of t = launch + bytes / bandwidth + MACs / rate for one device in one mode.

    Args:
        name: Name of the device that it describes.
        launch_us: Cost of any kernel, in microseconds.
        bandwidth_gb_s: Effective bandwidth, caches included, in GB/s.
        pointwise_gmac_s: Rate of pointwise and dense convolutions, in GMAC/s.
        depthwise_gmac_s: Rate of depthwise convolutions, in GMAC/s.
        value_bytes: Bytes of a value.
        peak_gmac_s: Arithmetic peak of the device: no kernel can be faster.
        fused_acts: Activations that cost no kernel of their own.
        rel_sigma: Expected one-sigma relative error.
        source: Where the coefficients come from.

    Raises:
        FormatError: A coefficient is not positive, or a rate exceeds the device's peak.
    """

    name: str
    launch_us: float
    bandwidth_gb_s: float
    pointwise_gmac_s: float
    depthwise_gmac_s: float
    value_bytes: int
    peak_gmac_s: float
    fused_acts: tuple[str, ...]
    rel_sigma: float
    source: str

    def __post_init__(self) -> None:
        for field in ("launch_us", "bandwidth_gb_s", "pointwise_gmac_s", "depthwise_gmac_s", "peak_gmac_s",
                      "value_bytes", "rel_sigma"):  # fmt: skip
            value = getattr(self, field)
            if not 0 < value < float("inf"):
                raise FormatError(f"law.{field} is {value}; expected a positive number")
        for field in ("pointwise_gmac_s", "depthwise_gmac_s"):
            if getattr(self, field) > self.peak_gmac_s:
                raise FormatError(f"law.{field} is {getattr(self, field)}, above the device's peak {self.peak_gmac_s}")

    def kernel_ms(self, kernel: Kernel) -> float:
        """Returns the time of one kernel, in milliseconds."""
        rate = self.depthwise_gmac_s if kernel.kind == DEPTHWISE else self.pointwise_gmac_s
        moved_ms = kernel.values * self.value_bytes / (self.bandwidth_gb_s * 1e6)
        return self.launch_us * 1e-3 + moved_ms + kernel.macs / (rate * 1e6)

    def layer_ms(self, layer: LayerSpec) -> float:
        """Returns the time of one block, in milliseconds."""
        return sum(self.kernel_ms(kernel) for kernel in kernels(layer, fused_acts=self.fused_acts))

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self) | {"fused_acts": list(self.fused_acts)}

    @classmethod
    def from_dict(cls, raw: Any) -> KernelLaw:
        """Reads the JSON form.

        Raises:
            FormatError: A field is missing, unknown, of the wrong type or out of range.
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(raw, Mapping) or set(raw) != set(known):
            raise FormatError(f"a law is an object with exactly the fields {', '.join(known)}; got {raw!r}")
        for name in known:
            value = raw[name]
            expected = str if name in ("name", "source") else list if name == "fused_acts" else int | float
            if isinstance(value, bool) or not isinstance(value, expected):
                raise FormatError(f"law.{name} is {value!r}; expected {expected}")
        return cls(**{**raw, "fused_acts": tuple(map(str, raw["fused_acts"]))})


def kernels(layer: LayerSpec, *, fused_acts: tuple[str, ...]) -> tuple[Kernel, ...]:
    """Returns the launches of a block after fusion, in order of execution."""
    return tuple(_launches(layer, fused_acts))


def _launches(layer: LayerSpec, fused_acts: tuple[str, ...]) -> Iterator[Kernel]:
    for op in layer.ops:
        if op.name in ("se_reduce", "mix"):
            hw = layer.hw_out if op.name == "se_reduce" else layer.hw_in
            yield Kernel(name="mean", kind=OTHER, read=op.in_chs * hw**2, written=op.in_chs)
        if op.name == "shortcut" and "pool" in layer.shortcut:
            yield _pool(layer)
        yield _convolution(op)
        written = op.out_chs * op.hw_out**2
        if op.act and op.act not in fused_acts:
            yield Kernel(name=f"{op.name}.{op.act}", kind=OTHER, read=written, written=written)
        if op.name == "se_expand":
            map_size = op.out_chs * layer.hw_out**2
            yield Kernel(name="scale", kind=OTHER, read=map_size + op.out_chs, written=map_size)
    if layer.shortcut == "pool":
        yield _pool(layer)


def _convolution(op: OpSpec) -> Kernel:
    out_chs, per_group, *kernel = op.weight_shape
    return Kernel(
        name=op.name,
        kind=DEPTHWISE if op.groups > 1 else POINTWISE,
        macs=op_macs(op),
        read=op.in_chs * op.hw_in**2,
        written=op.out_chs * op.hw_out**2,
        weights=out_chs * per_group * (kernel[0] ** 2 if kernel else 1),
    )


def _pool(layer: LayerSpec) -> Kernel:
    return Kernel(name="pool", kind=OTHER, read=layer.in_chs * layer.hw_in**2, written=layer.in_chs * layer.hw_out**2)
