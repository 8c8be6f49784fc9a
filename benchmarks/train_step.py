"""Speed of a training step: python benchmarks/train_step.py [--space NAME] [--side PIXELS] [--batch N] [--json FILE]

One step is that of the recipe alphanet: the largest sub-network with dropout on the labels, two random ones and the
smallest on the largest's outputs by adaptive alpha, then clipping and SGD with Nesterov's momentum. Beside it, in the
same process and turn by turn, the same sub-networks, weights and random numbers run as the published project has
them: the reference slices weights, keeps images channel by channel, and computes swish by an autograd function of
simple operations that keeps its input alone. Before
anything is timed, both must give the same losses and gradients.

Times are CPU-seconds of the process unless said otherwise; run it pinned (taskset -c 0). "share of peak" compares the
multiplications of a step (three times those of a forward pass) with what one large matrix product reaches here.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nas2edge import SearchSpace, load_space
from nas2edge.costs import count_macs
from nas2edge.plan import LayerSpec, OpSpec, plan
from nas2edge.space import SubnetConfig
from nas2edge.supernet.blocks import activate, run_block
from nas2edge.supernet.elastic import BN_EPS, ElasticOp, Supernet
from nas2edge.train.optim import clip_gradients, make_optimizer
from nas2edge.train.recipe import load_recipe
from nas2edge.train.step import StepLosses, add_gradients, make_strategy

SEED = 0


class PlainSupernet:
    """The reference: the same parameters, sliced and used as plainly as can be.

    Args:
        supernet: Holds the parameters, in contiguous (N, C, H, W) order.
    """

    def __init__(self, supernet: Supernet) -> None:
        self.supernet, self.space = supernet, supernet.space

    def __call__(
        self, images: Tensor, subnet: SubnetConfig, *, dropout: float = 0.0, drop_connect: float = 0.0
    ) -> Tensor:
        x = images
        for layer in plan(self.space, subnet):
            rate = self.supernet._drop_rate(layer, drop_connect)
            x = run_block(layer, self._apply(layer, dropout), x, drop_connect=rate)
        return x

    def _apply(self, layer: LayerSpec, dropout: float) -> Callable[[str, Tensor], Tensor]:
        ops, specs = self.supernet.ops_of(layer), {op.name: op for op in layer.ops}

        def apply(name: str, x: Tensor) -> Tensor:
            spec, op = specs[name], ops[name]
            assert isinstance(op, ElasticOp)
            weight, bias = _slice(op, spec)
            if spec.kind == "linear":
                return F.linear(F.dropout(x, dropout) if dropout else x, weight, bias)
            y = F.conv2d(x, weight.contiguous(), bias, spec.stride, spec.kernel_size // 2, groups=spec.groups)
            if op.bn is not None:
                n = spec.out_chs
                y = F.batch_norm(y, None, None, op.bn.weight[:n], op.bn.bias[:n], training=True, eps=BN_EPS)
            return _PlainSwish.apply(y) if spec.act == "swish" else activate(spec.act, y)

        return apply


class _PlainSwish(torch.autograd.Function):
    """x sigmoid(x) that keeps x alone for its gradient, as the published project has it to save memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        sigmoid = torch.sigmoid(x)
        return grad * (sigmoid * (1 + x * (1 - sigmoid)))


def _slice(op: ElasticOp, spec: OpSpec) -> tuple[Tensor, Tensor | None]:
    weight = op.weight[: spec.out_chs, : spec.in_chs // spec.groups]
    if spec.kind != "linear":
        edge = (op.weight.shape[-1] - spec.kernel_size) // 2
        weight = weight[:, :, edge : edge + spec.kernel_size, edge : edge + spec.kernel_size]
    return weight, None if op.bias is None else op.bias[: spec.out_chs]


class Stepper:
    """Takes training steps, each a function of its number alone.

    Args:
        supernet: Its parameters are trained.
        model: Runs them; the supernet itself, or the reference around it.
        images: Normalised images (N, 3, S, S).
        labels: Class indices (N,).
    """

    def __init__(self, supernet: Supernet, model: Any, images: Tensor, labels: Tensor) -> None:
        recipe = load_recipe("alphanet-imagenet")
        self.supernet, self.model, self.images, self.labels, self.recipe = supernet, model, images, labels, recipe
        self.strategy = make_strategy(supernet, recipe)
        self.optimizer = make_optimizer(supernet, recipe)
        self.plain = isinstance(model, PlainSupernet)
        if self.plain:
            for group in self.optimizer.param_groups:
                group["fused"] = False  # PyTorch's default

    def gradients(self, step: int) -> StepLosses:
        """Leaves the gradients of a step in the parameters."""
        torch.manual_seed(step)
        self.optimizer.zero_grad()
        rng = np.random.default_rng((SEED, step))
        return add_gradients(self.model, self.images, self.labels, strategy=self.strategy, rng=rng)

    def __call__(self, step: int) -> StepLosses:
        losses = self.gradients(step)
        clip = torch.nn.utils.clip_grad_value_ if self.plain else clip_gradients
        clip(self.supernet.parameters(), self.recipe.clip_value)
        self.optimizer.step()
        return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="attentivenas")
    parser.add_argument("--side", type=int, default=128, help="resolution of all sub-networks")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", choices=("ours", "reference"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        _steppers(options)[options.memory_of](0)
        print(_peak_memory_kb())
        return
    result = measure(options)
    print(json.dumps(result, indent=2))
    if options.json:
        _append(options.json, result)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Times both, after checking that they compute the same."""
    steppers = _steppers(options)
    agreement = _agreement(steppers)
    cpu: dict[str, list[float]] = {name: [] for name in steppers}
    wall: dict[str, list[float]] = {name: [] for name in steppers}
    for step in range(options.steps):
        for name in list(steppers) if step % 2 else list(reversed(steppers)):
            worked, started = time.process_time(), time.perf_counter()
            steppers[name](step)
            cpu[name].append(time.process_time() - worked)
            wall[name].append(time.perf_counter() - started)
    space, peak = steppers["ours"].supernet.space, _peak_flops()
    flops = float(np.mean([_flops(space, options.batch, step) for step in range(options.steps)]))
    return {
        "space": options.space,
        "side": options.side,
        "batch": options.batch,
        "threads": options.threads,
        "steps": options.steps,
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "agreement": agreement,
        "peak_gflops": round(peak / 1e9, 1),
        "cpu_ratio": round(float(np.median(np.divide(cpu["reference"], cpu["ours"]))), 3),
        **{name: _row(name, cpu[name], wall[name], options, flops, peak) for name in steppers},
    }


def _row(
    name: str, cpu: list[float], wall: list[float], options: argparse.Namespace, flops: float, peak: float
) -> dict[str, float]:
    command = [sys.executable, __file__, f"--space={options.space}", f"--side={options.side}"]
    command += [f"--batch={options.batch}", f"--threads={options.threads}", f"--memory-of={name}"]
    memory = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1024
    seconds = float(np.median(cpu))
    return {
        "cpu_s_per_step": round(seconds, 4),
        "wall_s_per_step": round(float(np.median(wall)), 4),
        "images_per_cpu_s": round(options.batch / seconds, 3),
        "images_per_s": round(options.batch / float(np.median(wall)), 3),
        "share_of_peak": round(flops / seconds / peak, 3),
        "peak_memory_mb": round(memory / 1e6),
    }


def _steppers(options: argparse.Namespace) -> dict[str, Stepper]:
    space = load_space(options.space)
    space = replace(space, resolution=(options.side,), image_size=options.side)
    torch.manual_seed(SEED)
    supernet = Supernet(space).train()
    for name, parameter in supernet.named_parameters():
        if name.endswith("bn.weight"):
            torch.nn.init.ones_(parameter)  # at zero, as training starts, blocks would have no gradient to compare
    images = torch.randn(options.batch, 3, options.side, options.side)
    labels = torch.randint(0, space.num_classes, (options.batch,))
    plain = copy.deepcopy(supernet)
    supernet.to(memory_format=torch.channels_last)
    return {
        "ours": Stepper(supernet, supernet, images.contiguous(memory_format=torch.channels_last), labels),
        "reference": Stepper(plain, PlainSupernet(plain), images, labels),
    }


def _agreement(steppers: dict[str, Stepper]) -> dict[str, dict[str, float]]:
    """Compares a step's losses and gradients with the reference's in float64; also compiles and warms up.

    Raises:
        AssertionError: Ours are much further from them than float32 rounding takes the reference.
    """
    plain = steppers["reference"]
    precise = copy.deepcopy(plain.supernet).double()
    truth = Stepper(precise, PlainSupernet(precise), plain.images.double(), plain.labels)
    strategy = replace(plain.strategy, dropout=0.0, drop_connect=0.0)  # float64 draws other random numbers
    steppers = {name: copy.copy(stepper) for name, stepper in steppers.items()}
    for stepper in (truth, *steppers.values()):
        stepper.strategy = strategy
    expected = truth.gradients(0)
    errors = {name: _errors(stepper, stepper.gradients(0), truth, expected) for name, stepper in steppers.items()}
    ours, reference = errors["ours"], errors["reference"]
    for key in ("loss", "gradient_median", "gradient_p95"):  # the worst is that of some ill-conditioned parameter
        assert ours[key] < 10.0 * reference[key] + 1e-6, errors
    return errors


def _errors(stepper: Stepper, losses: StepLosses, truth: Stepper, expected: StepLosses) -> dict[str, float]:
    found = dict(stepper.supernet.named_parameters())
    norms, differences = [], []
    for name, parameter in truth.supernet.named_parameters():
        other = found[name].grad
        assert (parameter.grad is None) == (other is None), name
        if parameter.grad is not None and other is not None:
            norms.append(float(parameter.grad.norm()))
            differences.append(float((parameter.grad - other).norm()))
    # A bias that another normalisation follows has a gradient of zero, but for rounding: it is measured by the others.
    gradients = np.array(differences) / np.maximum(norms, 0.01 * np.median(norms))
    return {
        "loss": max(abs(losses.largest / expected.largest - 1), abs(losses.smallest / expected.smallest - 1)),
        "gradient_median": float(np.median(gradients)),
        "gradient_p95": float(np.percentile(gradients, 95)),
        "gradient_worst": float(gradients.max()),
    }


def _flops(space: SearchSpace, batch: int, step: int) -> float:
    """Returns the operations of a step's convolutions: two a MAC; forward, and two products backward."""
    drawn = space.decode(space.sample(2, np.random.default_rng((SEED, step))))
    macs = sum(sum(map(count_macs, plan(space, subnet))) for subnet in (space.largest(), *drawn, space.smallest()))
    return 6.0 * macs * batch


def _peak_flops() -> float:
    a = torch.randn(1024, 1024)
    best = float("inf")
    for _ in range(20):
        started = time.process_time()
        torch.mm(a, a)
        best = min(best, time.process_time() - started)
    return 2.0 * 1024**3 / best


def _peak_memory_kb() -> int:
    """Returns this program's greatest resident memory; what getrusage has may be the starting program's."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _append(path: Path, result: dict[str, Any]) -> None:
    rows = json.loads(path.read_text()) if path.exists() else []
    keys = ("space", "side", "batch", "threads")
    rows = [row for row in rows if any(row[key] != result[key] for key in keys)]
    path.write_text(json.dumps([*rows, result], indent=2) + "\n")


if __name__ == "__main__":
    main()
