"""How well a table is filled of which only some rows are measured: hides the others of a complete one and compares.

Usage: python benchmarks/latency_fill.py cpu-epyc-zen4-1t --space tiny --share 0.33
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import click
import numpy as np

from nas2edge.latency.choose import block_weights, choose
from nas2edge.latency.fill import common_rel_sigma, fill_rows, fit_fill
from nas2edge.latency.registry import load_table
from nas2edge.latency.roofline import MIN_ROWS, block_terms, fit_terms
from nas2edge.latency.table import INTERPOLATED, TableRow
from nas2edge.plan import plan, unique_layers
from nas2edge.spaces import load_space

NETWORKS = 500


def roofline_rows(measured: Sequence[TableRow], filled: Sequence[TableRow]) -> list[TableRow]:
    """The filled rows again, by the roofline alone."""
    terms = np.stack([block_terms(row.layer) for row in measured])
    coefficients = fit_terms(terms, np.array([row.p50 for row in measured]))
    return [
        replace(row, p50=float(block_terms(row.layer) @ coefficients)) for row in filled if row.status == INTERPOLATED
    ]


@click.command()
@click.argument("device")
@click.option("--space", "space_name", default="tiny", show_default=True)
@click.option("--share", default=1 / 3, show_default=True, help="Of the rows that are kept.")
@click.option("--rounds", default=4, show_default=True, help="Choices, each with what was seen before.")
@click.option("--seed", default=0, show_default=True)
def main(device: str, space_name: str, share: float, rounds: int, seed: int) -> None:
    """Prints errors of rows and of networks against the complete table."""
    table, space = load_table(device), load_space(space_name)
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
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
