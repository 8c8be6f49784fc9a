"""What are inherited weights worth? Sub-networks trained alone, as long as their supernet was, beside its weights.

Usage: python benchmarks/inherited.py SUBNET... --supernet RUN --data IMAGES --held-out N --out FOLDER [--json FILE]

Each sub-network (a subnet.json) is trained from scratch by `nas2edge train --subnet`, with the supernet's own recipe
and its images, in FOLDER/<id>; what was trained before is not trained again, and what was interrupted goes on. Then it
and the sub-network that the supernet has are recalibrated and measured on the test images. Results are added to FILE.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas2edge.costs import count
from nas2edge.plan import plan
from nas2edge.subnet_file import find_subnet
from nas2edge.supernet.weights_file import WEIGHTS_NAME, SupernetInfo, supernet_info

RESULTS = Path(__file__).with_name("inherited_results.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subnets", nargs="+", type=Path)
    parser.add_argument("--supernet", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--held-out", type=int, required=True, help="as the supernet was trained")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    info = supernet_info(options.supernet)
    options.out.mkdir(parents=True, exist_ok=True)
    recipe = options.out / "recipe.toml"
    recipe.write_text(_toml({"format": "nas2edge.recipe", "version": 1, **info.trained["recipe"]}))
    for path in options.subnets:
        row = measure(path, info, recipe, options)
        rows = json.loads(options.json.read_text()) if options.json.exists() else []
        rows = [old for old in rows if (old["id"], old["supernet"]) != (row["id"], row["supernet"])]
        rows = sorted([*rows, row], key=lambda each: int(each["macs"]))
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
        print(json.dumps(row))


def measure(path: Path, info: SupernetInfo, recipe: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Trains one sub-network alone, unless that is done, and returns its two accuracies on the test images."""
    subnet = find_subnet(str(path), info.space).subnet
    run = options.out / subnet.id
    epochs = info.trained["epochs_done"]
    if not (run / WEIGHTS_NAME).exists() or supernet_info(str(run)).trained["epochs_done"] < epochs:
        _nas2edge(
            ["train", "--space", info.space.name, "--subnet", path, "--recipe", recipe, "--out", run]
            + ["--data", options.data, "--held-out", options.held_out, "--threads", options.threads]
        )
    cost = count(plan(info.space, subnet))
    return {
        "id": subnet.id,
        "macs": cost.macs,
        "params": cost.params,
        "supernet": info.sha256[:16],
        "epochs": epochs,
        "alone": _accuracy(str(run), "largest", options),
        "inherited": _accuracy(info.source, str(path), options),
    }


def _accuracy(supernet: str, subnet: str, options: argparse.Namespace) -> float:
    shown = _nas2edge(
        ["evaluate", "--supernet", supernet, "--subnet", subnet, "--data", options.data, "--split", "test"]
        + ["--threads", options.threads, "--json"]
    )
    return float(json.loads(shown)["subnets"][0]["accuracy"])


def _nas2edge(arguments: Sequence[object]) -> str:
    command = [sys.executable, "-m", "nas2edge", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _toml(values: dict[str, Any]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


if __name__ == "__main__":
    main()
