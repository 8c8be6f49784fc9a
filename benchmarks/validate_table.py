"""Predicted against measured latency of networks that a table has never seen, on this machine through ONNX Runtime.

Usage: python benchmarks/validate_table.py --device cpu --space tiny --nets 50 --seed 1000
"""

from __future__ import annotations

import json

import click
import numpy as np

from nas2edge.latency.calibrate import validate
from nas2edge.latency.measure import ort_prepare
from nas2edge.latency.protocol import Guard, Item, Options, Visits, measure
from nas2edge.latency.registry import load_table
from nas2edge.plan import plan
from nas2edge.spaces import load_space


@click.command()
@click.option("--device", default="cpu", show_default=True)
@click.option("--space", "space_name", default="tiny", show_default=True)
@click.option("--nets", default=50, show_default=True)
@click.option("--seed", default=1000, show_default=True, help="Draws the networks; profile uses others.")
def main(device: str, space_name: str, nets: int, seed: int) -> None:
    """Measures networks by the protocol of profile, and prints how far the table is off."""
    table, space = load_table(device), load_space(space_name)
    rng = np.random.default_rng(seed)
    items = [Item(id=subnet.id, layers=plan(space, subnet)) for subnet in space.decode(space.sample(nets, rng))]
    prepare = ort_prepare(rng, threads=table.device.threads or 1)
    visits: Visits = {}
    found = measure(
        items,
        prepare=prepare,
        guard=Guard(prepare(items[0].layers), []),
        options=Options(),
        rng=rng,
        visits=visits,
        save=lambda visits: None,
        progress=lambda done, planned: None,
    )
    predicted = [table.estimate(item.layers) for item in items]
    measured = [found[item.id].p50 for item in items]
    result = validate(space_name, [estimate.ms for estimate in predicted], measured)
    off = [abs(p.ms - m) / p.sigma_ms for p, m in zip(predicted, measured, strict=True)]
    print(
        json.dumps(
            {
                "table": table.device.name,
                "digest": table.digest,
                "space": space_name,
                "nets": result.nets,
                "disturbed": sum(not found[item.id].quiet for item in items),
                "measured_ms": [round(min(measured), 4), round(max(measured), 4)],
                "mape_percent": round(result.mape, 2),
                "bias_percent": round(result.bias, 2),
                "within_5": result.within_5,
                "within_10": result.within_10,
                "kendall_tau": round(result.kendall_tau, 4),
                "within_one_sigma": float(np.mean(np.array(off) <= 1.0)),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
