"""Documents and tables for tests of the report page, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nas2edge import SearchSpace, StageSpace, count, plan, unique_layers
from nas2edge.device import Device
from nas2edge.latency.table import Calibration, LatencyTable, TableRow

SPACE = SearchSpace(
    name="two-stages",
    image_size=24,
    resolution=(16, 24),
    num_classes=3,
    stem_width=(8, 16),
    stages=(
        StageSpace(width=(8, 16), depth=(1, 2), kernel_size=(3,), expand_ratio=(1, 2), stride=1, se=False),
        StageSpace(width=(8, 16), depth=(2, 4), kernel_size=(3, 5), expand_ratio=(3,), stride=2, se=True),
    ),
    head_width=(16,),
    head_expand_ratio=2,
)


def table(name: str, *, kind: str = "measured", slower: float = 1.0, **calibration: Any) -> LatencyTable:
    """One millisecond times `slower` a block; in a measured table, the heads are interpolated (half a millisecond)."""

    def row(layer: Any) -> TableRow:
        status = "interpolated" if kind == "measured" and layer.op == "mbpool" else kind
        ms = slower * (0.5 if layer.op == "mbpool" else 1.0)
        spread: dict[str, Any] = {}
        if status == "measured":
            spread = {"n": 50, "min": ms, "p10": ms, "p90": ms, "std": 0.0}
        return TableRow(layer=layer, p50=ms, status=status, rel_sigma=0.1, **spread)

    return LatencyTable(
        device=Device(name=name, chip="made up", runtime="none", precision="fp32"),
        kind=kind,
        rows=tuple(row(layer) for layer in unique_layers(SPACE)),
        rel_sigma=0.05,
        date="2026-01-31",
        source="made up for a test, see https://example.org/",
        licence="CC0-1.0",
        calibration=Calibration(**calibration),
    )


def document(tables: Sequence[LatencyTable], *, points: int = 4, note: str = "made up") -> dict[str, Any]:
    """A pareto.json with points of ascending depth and resolution; the last, the most accurate one, is chosen."""
    codes = SPACE.encode([SPACE.smallest()]).repeat(points, axis=0)
    for i in range(points):
        genes = {"resolution": i > 0, "depth.0": i > 1, "depth.1": i > 2}
        for name, on in genes.items():
            codes[i, SPACE.genes.index(name)] = int(on)
    entries = []
    for i, subnet in enumerate(SPACE.decode(codes)):
        layers = plan(SPACE, subnet)
        estimates = {table.device.name: table.estimate(layers) for table in tables}
        costs = count(layers)
        entries.append(
            {
                "id": subnet.id,
                "accuracy": 70.0 + i,
                "macs": costs.macs,
                "params": costs.params,
                "devices": {
                    name: {
                        "latency_ms": estimate.ms + 0.01 * i,
                        "latency_sigma_ms": estimate.sigma_ms,
                        "measured_share": estimate.measured_share,
                    }
                    for name, estimate in estimates.items()
                },
                "subnet": subnet.to_dict(),
            }
        )
    names = [table.device.name for table in tables]
    costs_of: list[dict[str, Any]] = [{"metric": "latency_ms", "direction": "min", "device": name} for name in names]
    return {
        "format": "nas2edge.pareto",
        "version": 1,
        "space": SPACE.to_dict(),
        "supernet": {"source": "runs/mine", "sha256": "ab" * 32},
        "devices": {table.device.name: {"kind": table.kind, "digest": table.digest} for table in tables},
        "objectives": [
            {"metric": "accuracy", "direction": "max", "device": None},
            *(costs_of or [{"metric": "macs", "direction": "min", "device": None}]),
        ],
        "constraints": [
            {"metric": "latency_ms", "limit": 9.0, "device": name, "least": 4.5, "greatest": 9.9, "binds": True}
            for name in names
        ],
        "accuracy": {"source": "supernet", "error": 0.9, "note": note},
        "search": {"seed": 0, "population": 16, "evaluations": 200, "examined": 37000, "stop": "budget"},
        "best": entries[-1]["id"],
        "points": entries,
        "tool": {"nas2edge": "0.1.0"},
    }
