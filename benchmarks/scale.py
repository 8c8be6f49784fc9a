"""What do two processes cost, and how many sub-networks are evaluated in a minute?

Usage: python benchmarks/scale.py step [--space NAME] [--batch N] [--side PIXELS] [--json FILE]
       python benchmarks/scale.py candidates [--subnets N] [--json FILE]

`step`: one process alone takes training steps of N images; then two take steps of 2N together, each on a core of its
own. In turns, so that a drift meets both. The overhead is what a step takes longer, and the reduction's share of it is
timed by itself: waiting for the other process is part of it.

`candidates`: sub-networks of the embedded supernet are recalibrated on its calibration images and validated on its
validation images, by `nas2edge evaluate --subnets` with one process and with two, and as a plain loop would do it:
images decoded for every sub-network, and channel by channel in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from nas2edge import load_space
from nas2edge.supernet.checkpoint import load_supernet
from nas2edge.supernet.elastic import Supernet
from nas2edge.supernet.evaluate import load_images, normalise
from nas2edge.supernet.static import extract, recalibrate
from nas2edge.train.optim import make_optimizer
from nas2edge.train.processes import ALONE, Process, average_gradients
from nas2edge.train.recipe import load_recipe
from nas2edge.train.step import add_gradients, make_strategy

STEPS, TURNS = 4, 3
PLAIN_BATCH = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("step", "candidates"))
    parser.add_argument("--space", default="tiny")
    parser.add_argument("--batch", type=int, default=64, help="images a step and process")
    parser.add_argument("--side", type=int, default=32, help="resolution of all sub-networks")
    parser.add_argument("--subnets", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = step(options) if options.what == "step" else candidates(options)
    print(json.dumps(found, indent=2))
    if options.json:
        rows = json.loads(options.json.read_text()) if options.json.exists() else []
        keys = [key for key in ("what", "space", "side", "batch", "subnets") if key in found]
        rows = [row for row in rows if any(row.get(key) != found[key] for key in keys)]
        options.json.write_text(json.dumps([*rows, found], indent=2) + "\n")


def step(options: argparse.Namespace) -> dict[str, Any]:
    """Times steps of one process and of two, in turns."""
    alone, together, reducing = [], [], []
    for _ in range(TURNS):
        alone += _run(options, world=1)[0]
        seconds, reduction = _run(options, world=2)
        together += seconds
        reducing += reduction
    one, two = float(np.median(alone)), float(np.median(together))
    return {
        "what": "step",
        "space": options.space,
        "side": options.side,
        "batch": options.batch,
        "one_process_s": round(one, 4),
        "two_processes_s": round(two, 4),
        "overhead": round(two / one - 1.0, 3),
        "reduction_s": round(float(np.median(reducing)), 4),
        "images_per_s": {"one": round(options.batch / one, 1), "two": round(2 * options.batch / two, 1)},
    }


def _run(options: argparse.Namespace, *, world: int) -> tuple[list[float], list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_work, (world, folder, options), nprocs=world)  # type: ignore[no-untyped-call]
        found = json.loads((Path(folder) / "seconds.json").read_text())
    return found["step"], found["reduction"]


def _work(rank: int, world: int, folder: str, options: argparse.Namespace) -> None:
    os.sched_setaffinity(0, {rank})
    torch.set_num_threads(1)
    process = ALONE
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
        process = Process(rank=rank, world=world)
    space = load_space(options.space)
    space = replace(space, resolution=(options.side,), image_size=options.side)
    torch.manual_seed(0)
    model = Supernet(space).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = load_recipe("alphanet")
    strategy, optimizer = make_strategy(model, recipe), make_optimizer(model, recipe)
    images = torch.randn(options.batch, 3, options.side, options.side).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, space.num_classes, (options.batch,))
    seconds, reduction = [], []
    for number in range(STEPS + 1):
        started = time.perf_counter()
        optimizer.zero_grad()
        rng = np.random.default_rng(number)
        add_gradients(model, images, labels, strategy=strategy, rng=rng, process=process)
        computed = time.perf_counter()
        average_gradients(model, process)
        reduction.append(time.perf_counter() - computed)
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    if rank == 0:
        (Path(folder) / "seconds.json").write_text(json.dumps({"step": seconds[1:], "reduction": reduction[1:]}))
    if world > 1:
        dist.destroy_process_group()


def candidates(options: argparse.Namespace) -> dict[str, Any]:
    """Times the evaluation of many sub-networks, start-up included."""
    loaded = load_supernet("builtin:tiny")
    space = loaded.info.space
    subnets = space.decode(space.sample(options.subnets, np.random.default_rng(0)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "subnets.jsonl"
        path.write_text("".join(json.dumps({"subnet": subnet.to_dict()}) + "\n" for subnet in subnets))
        evaluate = ["-m", "nas2edge", "evaluate", "--subnets", str(path), "--threads", "1", "--json"]
        with _pinned(0):
            alone, accuracies = _timed([sys.executable, *evaluate])
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *evaluate]
        together, same = _timed(torchrun)
    assert accuracies == same, "two processes find other accuracies than one"
    torch.set_num_threads(1)
    few = subnets[: max(2, options.subnets // 10)]
    with _pinned(0):
        started = time.perf_counter()
        plain = [_plainly(loaded, subnet) for subnet in few]
        each = (time.perf_counter() - started) / len(few)
    assert np.abs(np.subtract(plain, accuracies[: len(few)])).max() < 0.2, (plain, accuracies[: len(few)])
    return {
        "what": "candidates",
        "subnets": options.subnets,
        "calibration_images": len(load_images(loaded, "calibration")),
        "validation_images": len(load_images(loaded, "validation")),
        "per_minute": {
            "one process": round(60.0 * options.subnets / alone, 1),
            "two processes": round(60.0 * options.subnets / together, 1),
            "plain loop": round(60.0 / each, 1),
        },
    }


def _timed(command: list[str]) -> tuple[float, list[float]]:
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    rows = json.loads(done.stdout)["subnets"]
    return time.perf_counter() - started, [row["accuracy"] for row in rows]


@contextmanager
def _pinned(cpu: int) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    yield
    os.sched_setaffinity(0, before)


def _plainly(loaded: Any, subnet: Any) -> float:
    """Returns the accuracy of one sub-network, with nothing kept from the last."""
    calibration, tested = load_images(loaded, "calibration"), load_images(loaded, "validation")
    net = extract(loaded.model, subnet)
    recalibrate(net, torch.split(normalise(calibration, loaded.info.preprocess), PLAIN_BATCH))
    right = 0
    with torch.no_grad():
        batches = torch.split(normalise(tested, loaded.info.preprocess), PLAIN_BATCH)
        for batch, labels in zip(batches, torch.split(torch.from_numpy(tested.labels), PLAIN_BATCH), strict=True):
            right += int((net(batch).argmax(1) == labels).sum())
    return 100.0 * right / len(tested)


if __name__ == "__main__":
    main()
