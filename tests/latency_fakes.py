"""A device for the tests of latencies whose clock is arithmetic: every layer takes what a formula says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nas2edge.costs import count_macs
from nas2edge.device import Device
from nas2edge.latency.borders import Shape, shape_after, shape_before
from nas2edge.latency.guard import Timed
from nas2edge.latency.protocol import Item
from nas2edge.latency.table import MEASURED, LatencyTable, TableRow
from nas2edge.plan import LayerSpec

DEVICE = Device(name="toy", chip="abacus", runtime="fingers", precision="fp32")


def layer_ms(layer: LayerSpec) -> float:
    """10 us a convolution and 20 MMAC/ms."""
    return 0.01 * len(layer.ops) + count_macs(layer) / 20e6


def measured_row(layer: LayerSpec, ms: float, *, rel_sigma: float = 0.02) -> TableRow:
    return TableRow(layer=layer, p50=ms, status=MEASURED, rel_sigma=rel_sigma, n=100,
                    p10=0.9 * ms, p90=1.1 * ms, min=0.8 * ms, std=0.05 * ms)  # fmt: skip


def measured_table(layers: Sequence[LayerSpec]) -> LatencyTable:
    rows = tuple(measured_row(layer, layer_ms(layer)) for layer in {layer.key: layer for layer in layers}.values())
    return LatencyTable(device=DEVICE, kind=MEASURED, rows=rows, rel_sigma=0.01, date="2026-01-31", source="a test",
                        licence="Apache-2.0")  # fmt: skip


@dataclass
class FakeMachine:
    """Executes items by formula; counts what it was asked to build.

    Args:
        session_ms: What entering and leaving costs, whatever the layers.
        slowdown: Factor on the time of the n-th build.
        border_ms: What two thin convolutions around a map take, by value.
        build_s: What building an item takes.
        now: Seconds that have passed on its clock.
    """

    session_ms: float = 0.003
    slowdown: Callable[[int], float] = lambda build: 1.0
    border_ms: float = 1e-6
    build_s: float = 0.05
    now: float = 0.0
    built: list[Item] = field(default_factory=list)

    def prepare(self, item: Item) -> Timed:
        self.built.append(item)
        seconds = self.item_ms(item) * 1e-3 * self.slowdown(len(self.built) - 1)
        self.now += self.build_s

        def timed(n: int) -> tuple[float, float]:
            self.now += n * seconds
            return n * seconds, n * seconds

        return timed

    def clock(self) -> float:
        return self.now

    def item_ms(self, item: Item) -> float:
        if item.border is not None:
            return self.session_ms + self._ends_ms(item.border)
        first, last = item.layers[0], item.layers[-1]
        ends = self._ends_ms(shape_before(first)) + self._ends_ms(shape_after(last))
        return self.session_ms + ends / 2 + sum(map(layer_ms, item.layers))

    def _ends_ms(self, shape: Shape | None) -> float:
        return 0.0 if shape is None else shape[0] ** 2 * shape[1] * self.border_ms


def steady_memory(cache_mb: float | None) -> Timed:
    """A copy in memory that always takes a millisecond, in place of `nas2edge.latency.guard.memory_copy`."""
    return lambda n: (n * 1e-3, n * 1e-3)
