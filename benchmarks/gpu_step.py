"""Speed of a training step on a GPU: python benchmarks/gpu_step.py [--space NAME] [--side N] [--batch N] [--compile]

The step is that of benchmarks/train_step.py, by the plain reference and by ours in float32 (convolutions in TF32, as
PyTorch has it) and bfloat16, with the largest and the smallest sub-network replayed as CUDA graphs or not. Turns take
all of them one after the other, always through the same steps, so that what a first meeting with a shape costs cuDNN is
in none of them. `--images N` times the loading of random JPEG files of 500 x 375 pixels instead: crops, AutoAugment,
one worker process for every core.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from train_step import PlainSupernet, Stepper

from nas2edge import load_space
from nas2edge.supernet.elastic import Supernet
from nas2edge.train.data import Request, list_files, make_source
from nas2edge.train.recipe import load_recipe
from nas2edge.train.step import make_strategy

TURNS, STEPS = 3, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="attentivenas")
    parser.add_argument("--side", type=int, default=224, help="resolution of all sub-networks")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--compile", action="store_true", help="besides, with the two compiled")
    parser.add_argument("--images", type=int, default=0)
    options = parser.parse_args()
    print(json.dumps(loading(options.images) if options.images else steps(options), indent=2))


def steps(options: argparse.Namespace) -> dict[str, Any]:
    """Times all variants in turns, after checking that recorded gradients are those of the others."""
    steppers = {"plain float32": _stepper(options, "float32", plain=True)}
    for precision in ("float32", "bfloat16"):
        steppers[precision] = _stepper(options, precision)
        steppers[f"{precision} recorded"] = _stepper(options, precision, record=True)
    if options.compile:
        steppers["bfloat16 compiled, recorded"] = _stepper(options, "bfloat16", record=True, backend="inductor")
    agreement = _agreement(options)
    seconds: dict[str, list[float]] = {name: [] for name in steppers}
    memory: dict[str, float] = {}
    for turn in range(-1, TURNS):
        for name, stepper in steppers.items():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            torch.cuda.synchronize()
            started = time.perf_counter()
            for i in range(STEPS):
                stepper(i)
            torch.cuda.synchronize()
            if turn >= 0:
                seconds[name].append((time.perf_counter() - started) / STEPS)
                memory[name] = (torch.cuda.max_memory_allocated() - before) / 1e6
    rows = {
        name: {
            "ms_per_step": round(1e3 * float(np.median(found)), 2),
            "images_per_s": round(options.batch / float(np.median(found)), 1),
            "memory_of_a_step_mb": round(memory[name]),
        }
        for name, found in seconds.items()
    }
    return {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "space": options.space,
        "side": options.side,
        "batch": options.batch,
        "largest_difference_of_gradients": agreement,
        **rows,
    }


def _stepper(
    options: argparse.Namespace,
    precision: str,
    *,
    plain: bool = False,
    record: bool = False,
    backend: str | None = None,
) -> Stepper:
    space = load_space(options.space)
    space = replace(space, resolution=(options.side,), image_size=options.side)
    torch.manual_seed(0)
    supernet = Supernet(space).train().cuda()
    for name, parameter in supernet.named_parameters():
        if name.endswith("bn.weight"):
            torch.nn.init.ones_(parameter)
    images = torch.randn(options.batch, 3, options.side, options.side, device="cuda")
    labels = torch.randint(0, space.num_classes, (options.batch,), device="cuda")
    if plain:
        return Stepper(supernet, PlainSupernet(supernet), images, labels)
    supernet.to(memory_format=torch.channels_last)
    stepper = Stepper(supernet, supernet, images.contiguous(memory_format=torch.channels_last), labels)
    recipe = replace(load_recipe("alphanet-imagenet"), precision=precision)
    stepper.strategy = make_strategy(supernet, recipe, record=record, backend=backend)
    return stepper


def _agreement(options: argparse.Namespace) -> float:
    """Returns the largest difference of recorded gradients from others, as a share of the gradient's largest entry."""
    found = []
    for record in (False, True):
        stepper = _stepper(options, "float32", record=record)
        stepper.strategy = replace(stepper.strategy, dropout=0.0, drop_connect=0.0)
        for step in range(2):
            stepper.gradients(step)
        found.append({name: p.grad for name, p in stepper.supernet.named_parameters() if p.grad is not None})
    one, other = found
    assert one.keys() == other.keys()
    scale = max(float(value.abs().max()) for value in one.values())
    return max(float((one[name] - other[name]).abs().max()) for name in one) / scale


def loading(n: int) -> dict[str, Any]:
    """Times the loading of n JPEG files."""
    rng = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        for i in range(n):
            path = Path(folder) / "train" / str(i % 2) / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            smooth = Image.fromarray(rng.integers(0, 256, (47, 63, 3), dtype=np.uint8))
            smooth.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
        files = list_files(Path(folder), held_out=2, calibration=2, seed=0)
        workers = len(os.sched_getaffinity(0))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        recipe = load_recipe("alphanet-imagenet")
        source = make_source(files, recipe, image_size=224, workers=workers, device=device)
        requests = [Request(images=part, seed=0) for _ in range(8) for part in torch.split(source.order(0), 32)]
        started, served, speeds = time.perf_counter(), 0, []
        for images, _ in source.batches(requests):
            images.to(device, non_blocking=True)
            served += len(images)
            if served >= n:  # the first pass starts the workers
                speeds.append((served, time.perf_counter() - started))
        (first, began), (last, ended) = speeds[0], speeds[-1]
    return {"workers": workers, "images_per_s": round((last - first) / (ended - began), 1)}


if __name__ == "__main__":
    main()
