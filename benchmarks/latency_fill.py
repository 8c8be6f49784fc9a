"""How well a table is filled of which only some rows are measured: hides the others of a complete one and compares.

Usage: python benchmarks/latency_fill.py cpu-epyc-zen4-1t --space tiny --share 0.33
       python benchmarks/latency_fill.py cpu-epyc-zen4-1t --report cpu-epyc-zen4-1t-tiny.validation.json

With the report of `nas2edge tables validate`, also against the networks that were measured for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from nas2edge.cli._tables_validate import FORMAT, VERSION
from nas2edge.files import read_document
from nas2edge.latency.calibrate import validate
from nas2edge.latency.choose import block_weights, choose
from nas2edge.latency.fill import common_rel_sigma, fill_rows, fit_fill
from nas2edge.latency.machine import read_machine
from nas2edge.latency.measure import cross_fitted
from nas2edge.latency.registry import load_table
from nas2edge.latency.roofline import MIN_ROWS, block_terms, fit_terms
from nas2edge.latency.table import INTERPOLATED, LatencyTable, TableRow
from nas2edge.plan import plan, unique_layers
from nas2edge.space import SearchSpace, SubnetConfig
from nas2edge.spaces import load_space

NETWORKS = 500


def roofline_rows(measured: Sequence[TableRow], filled: Sequence[TableRow]) -> list[TableRow]:
    """The filled rows again, by the roofline alone."""
    terms = np.stack([block_terms(row.layer) for row in measured])
    coefficients = fit_terms(terms, np.array([row.p50 for row in measured]))
    return [
        replace(row, p50=float(block_terms(row.layer) @ coefficients)) for row in filled if row.status == INTERPOLATED
    ]


def against_measured(table: LatencyTable, space: SearchSpace, report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how far a table is off networks that were measured, each by a calibration to four fifths without it."""
    nets = [net for net in report["nets"] if net["quiet"]]
    layers = [plan(space, SubnetConfig.from_dict(net["subnet"])) for net in nets]
    measured = np.array([net["measured_ms"] for net in nets])
    _, predicted = cross_fitted(table, layers, measured, cache_mb=read_machine().cache_mb)
    return {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in asdict(validate(space.name, predicted, measured)).items()
    }


@click.command()
@click.argument("device")
@click.option("--space", "space_name", help="Default: that of the report, or tiny.")
@click.option("--share", default=1 / 3, show_default=True, help="Of the rows that are kept.")
@click.option("--rounds", default=4, show_default=True, help="Choices, each with what was seen before.")
@click.option("--seed", default=0, show_default=True)
@click.option("--report", "report_path", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(device: str, space_name: str | None, share: float, rounds: int, seed: int, report_path: Path | None) -> None:
    """Prints errors of rows and of networks against the complete table."""
    report = read_document(report_path, format=FORMAT, version=VERSION) if report_path else {"nets": []}
    table, space = load_table(device), load_space(space_name or report.get("space", "tiny"))
    layers = unique_layers(space)
    rows = {row.layer.key: row for row in table.rows}
    rng = np.random.default_rng(seed)
    n = round(share * len(layers))
    first = max(n // rounds, MIN_ROWS)
    chosen = choose(layers, block_weights([space], layers, rng=rng), n=first)
    for i in range(2, rounds + 1):
        model = fit_fill([layers[j] for j in chosen], [rows[layers[j].key].p50 for j in chosen])
        ms, _ = model.predict(layers)
        weights = block_weights([space], layers, rng=rng, ms=ms)
        chosen += choose(layers, weights, n=max(0, n * i // rounds - len(chosen)), chosen=chosen, kernel=model.kernel)
    measured = [rows[layers[j].key] for j in chosen]
    filled = fill_rows(layers, measured)
    random = [rows[layers[j].key] for j in rng.permutation(len(layers))[:n]]
    networks = [plan(space, subnet) for subnet in space.decode(space.sample(NETWORKS, rng))]
    sigma = common_rel_sigma(filled, networks[:100])
    partial = replace(table, rows=filled, rel_sigma=float(np.hypot(table.rel_sigma, sigma)))
    by_chance = replace(table, rows=fill_rows(layers, random))
    by_roofline = replace(table, rows=(*measured, *roofline_rows(measured, filled)))
    whole = np.array([table.estimate(net).ms for net in networks])

    def off(other) -> np.ndarray:
        return np.array([other.estimate(net).ms for net in networks]) / whole - 1.0

    errors = off(partial)
    of_rows = [(row.p50 / rows[row.layer.key].p50 - 1.0, row.rel_sigma) for row in filled if row.status == INTERPOLATED]
    print(
        json.dumps(
            {
                "table": table.device.name,
                "space": space.name,
                "measured": len(measured),
                "rows": len(layers),
                "row_mape_percent": round(100 * float(np.mean([abs(error) for error, _ in of_rows])), 2),
                "rows_within_one_sigma": round(float(np.mean([abs(error) <= sigma for error, sigma in of_rows])), 3),
                "network_mape_percent": round(100 * float(np.abs(errors).mean()), 2),
                "network_worst_percent": round(100 * float(np.abs(errors).max()), 2),
                "network_bias_percent": round(100 * float(np.median(errors)), 2),
                "network_mape_percent_rows_by_chance": round(100 * float(np.abs(off(by_chance)).mean()), 2),
                "network_mape_percent_roofline_alone": round(100 * float(np.abs(off(by_roofline)).mean()), 2),
                "stated_common_sigma_percent": round(100 * sigma, 2),
                "against_measured": {
                    name: against_measured(other, space, report)
                    for name, other in (("complete", table), ("partial", partial))
                    if report["nets"]
                },
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
