"""How long scoring a million sub-networks by a latency table takes, on one core.

Usage: python benchmarks/latency_scoring.py cpu-epyc-zen4-1t --space attentivenas
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from time import perf_counter

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before NumPy is imported

import click  # noqa: E402
import numpy as np  # noqa: E402

from nas2edge.latency.metrics import table_metrics  # noqa: E402
from nas2edge.latency.registry import load_table  # noqa: E402
from nas2edge.spaces import load_space  # noqa: E402

NETWORKS, REPEATS = 1_000_000, 5


def fastest_s(call: Callable[[], object]) -> float:
    """The fastest of several runs: others can only slow it down."""
    times = []
    for _ in range(REPEATS):
        start = perf_counter()
        call()
        times.append(perf_counter() - start)
    return min(times)


@click.command()
@click.argument("device")
@click.option("--space", "space_name", default="tiny", show_default=True)
def main(device: str, space_name: str) -> None:
    """Prints seconds."""
    space = load_space(space_name)
    start = perf_counter()
    table = load_table(device)
    loaded = perf_counter()
    metrics = table_metrics(table, space)
    made = perf_counter()
    codes = space.sample(NETWORKS, np.random.default_rng(0))
    result = {
        "table": table.device.name,
        "space": space.name,
        "networks": NETWORKS,
        "load_table_s": round(loaded - start, 3),
        "make_metrics_s": round(made - loaded, 3),
        "latency_s": round(fastest_s(lambda: metrics.latency(codes)), 3),
        "latency_and_sigma_s": round(fastest_s(lambda: (metrics.latency(codes), metrics.sigma(codes))), 3),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
