"""The fused kernels that a runtime launches for a block, and a law that turns kernels into time.

A GPU at batch 1 spends its time on launches and on memory, a CPU on arithmetic; of both, a block's time is a sum over
the kernels that are left after fusion:

    t = launch + bytes / bandwidth + MACs / rate(class) + activated values / rate(activation)

Assumptions about fusion, which `KernelLaw.fused_acts` partly sets (docs/latency.md gives reasons):
batch normalisation is folded; an activation in `fused_acts` is the epilogue of its convolution, another one is a
pointwise kernel of its own; the addition of a shortcut is fused into the projection unless `fused_add` is false;
squeeze-and-excitation is five kernels (mean, two convolutions, hard sigmoid, scaling); a kernel reads input and weights
and writes its output once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from nas2edge.costs import op_macs
from nas2edge.errors import FormatError
from nas2edge.plan import LayerSpec, OpSpec

POINTWISE, DENSE, DEPTHWISE, OTHER = "pointwise", "dense", "depthwise", "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One launch.

    Args:
        name: The op that it executes; of an activation, with its op before a dot.
        kind: "depthwise", "pointwise" (linear layers too), "dense" (all other convolutions), or "other", without MACs.
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
        dense_gmac_s: Rate of dense convolutions with kernels beyond 1x1, in GMAC/s; None: as pointwise ones.
        fused_add: Whether the addition of a shortcut costs no kernel of its own.
        act_gvalue_s: Rate of activations that compute more than they move, in 1e9 values a second, by name.

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
    dense_gmac_s: float | None = None
    fused_add: bool = True
    act_gvalue_s: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        positive = {name: getattr(self, name) for name in _COEFFICIENTS}
        rates = {name: getattr(self, name) for name in ("pointwise_gmac_s", "depthwise_gmac_s")}
        if self.dense_gmac_s is not None:
            rates["dense_gmac_s"] = self.dense_gmac_s
        positive |= rates | {f"act_gvalue_s.{act}": rate for act, rate in self.act_gvalue_s.items()}
        for name, value in positive.items():
            if not 0 < value < float("inf"):
                raise FormatError(f"law.{name} is {value}; expected a positive number")
        for name, value in rates.items():
            if value > self.peak_gmac_s:
                raise FormatError(f"law.{name} is {value}, above the device's peak {self.peak_gmac_s}")

    def kernel_ms(self, kernel: Kernel) -> float:
        """Returns the time of one kernel, in milliseconds."""
        rate = self.depthwise_gmac_s if kernel.kind == DEPTHWISE else self.pointwise_gmac_s
        if kernel.kind == DENSE and self.dense_gmac_s is not None:
            rate = self.dense_gmac_s
        moved_ms = kernel.values * self.value_bytes / (self.bandwidth_gb_s * 1e6)
        ms = self.launch_us * 1e-3 + moved_ms + kernel.macs / (rate * 1e6)
        act = kernel.name.rpartition(".")[2]
        if kernel.kind == OTHER and act in self.act_gvalue_s:
            ms += kernel.written / (self.act_gvalue_s[act] * 1e6)
        return ms

    def layer_ms(self, layer: LayerSpec) -> float:
        """Returns the time of one block, in milliseconds."""
        launches = kernels(layer, fused_acts=self.fused_acts, fused_add=self.fused_add)
        return sum(self.kernel_ms(kernel) for kernel in launches)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form; what has its default is left out."""
        raw = asdict(self) | {"fused_acts": list(self.fused_acts), "act_gvalue_s": dict(self.act_gvalue_s)}
        return {name: value for name, value in raw.items() if name not in _OPTIONAL or value != _OPTIONAL[name]}

    @classmethod
    def from_dict(cls, raw: Any) -> KernelLaw:
        """Reads the JSON form.

        Raises:
            FormatError: A field is missing, unknown, of the wrong type or out of range.
        """
        known = [entry.name for entry in fields(cls)]
        required = [name for name in known if name not in _OPTIONAL]
        if not isinstance(raw, Mapping) or not set(required) <= set(raw) <= set(known):
            raise FormatError(f"a law is an object with exactly the fields {', '.join(required)}, and maybe "
                              f"{', '.join(_OPTIONAL)}; got {raw!r}")  # fmt: skip
        for name, value in raw.items():
            expected = _TYPES.get(name, int | float)
            if isinstance(value, bool) != (expected is bool) or not isinstance(value, expected):
                raise FormatError(f"law.{name} is {value!r}; expected {expected}")
        for act, rate in raw.get("act_gvalue_s", {}).items():
            if isinstance(rate, bool) or not isinstance(rate, int | float):
                raise FormatError(f"law.act_gvalue_s.{act} is {rate!r}; expected a number")
        return cls(**{**raw, "fused_acts": tuple(map(str, raw["fused_acts"]))})


_COEFFICIENTS = ("launch_us", "bandwidth_gb_s", "peak_gmac_s", "value_bytes", "rel_sigma")
_OPTIONAL: dict[str, Any] = {"dense_gmac_s": None, "fused_add": True, "act_gvalue_s": {}}
_TYPES: dict[str, Any] = {"name": str, "source": str, "fused_acts": list, "fused_add": bool, "act_gvalue_s": Mapping}


def kernels(layer: LayerSpec, *, fused_acts: tuple[str, ...], fused_add: bool = True) -> tuple[Kernel, ...]:
    """Returns the launches of a block after fusion, in order of execution."""
    launches = list(_launches(layer, fused_acts))
    if not fused_add and layer.op == "mbconv" and layer.shortcut != "none":
        values = layer.out_chs * layer.hw_out**2
        launches.append(Kernel(name="add", kind=OTHER, read=2 * values, written=values))
    return tuple(launches)


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
    dense = DENSE if op.kernel_size > 1 else POINTWISE
    return Kernel(
        name=op.name,
        kind=DEPTHWISE if op.groups > 1 else dense,
        macs=op_macs(op),
        read=op.in_chs * op.hw_in**2,
        written=op.out_chs * op.hw_out**2,
        weights=out_chs * per_group * (kernel[0] ** 2 if kernel else 1),
    )


def _pool(layer: LayerSpec) -> Kernel:
    return Kernel(name="pool", kind=OTHER, read=layer.in_chs * layer.hw_in**2, written=layer.in_chs * layer.hw_out**2)
