"""The supernet: one set of weights, of which every sub-network uses the first channels, blocks and kernel centres.

Weights are sliced by the plan at every call; there is no active sub-network to set, so one supernet can serve threads,
processes and retries at once:

>>> supernet = Supernet(load_space("tiny"))
>>> logits = supernet(images, space.smallest())
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas2edge.plan import LayerSpec, OpSpec, plan
from nas2edge.space import SearchSpace, SubnetConfig
from nas2edge.supernet.blocks import activate, resize, run_block
from nas2edge.supernet.fused import depthwise_conv2d, norm_silu
from nas2edge.supernet.parts import is_small, part_of, pointwise_conv2d, product_with_part
from nas2edge.supernet.synced import Total, synced_norm

BN_EPS = 1e-5
Network = Callable[..., Tensor]
"""Maps images (N, 3, H, H), and perhaps `dropout` and `drop_connect`, to logits (N, classes)."""
_Block = tuple[LayerSpec, Mapping[str, OpSpec]]
DROP_CONNECT_STAGES = 2


@final
class ElasticBatchNorm(nn.Module):
    """Batch normalisation over the first channels.

    In training mode it normalises by the batch and keeps no statistics, as AlphaNet trains (momentum 0); in evaluation
    mode it uses the stored ones, which are right for no sub-network before recalibration.

    Attributes:
        total: Sums over the processes that train together, to normalise by all their images; None for this one's alone.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, chs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(chs))
        self.bias = nn.Parameter(torch.zeros(chs))
        self.register_buffer("running_mean", torch.zeros(chs))
        self.register_buffer("running_var", torch.ones(chs))
        self.total: Total | None = None

    def forward(self, x: Tensor, act: str) -> Tensor:
        """Normalises (N, c, H, W) with the first c entries of every vector, and applies an activation."""
        if self.training and act == "swish" and self.total is None:
            return norm_silu(x, self.weight, self.bias, eps=BN_EPS)
        n = x.shape[1]
        weight, bias = part_of(self.weight, slice(n)), part_of(self.bias, slice(n))
        if self.training and self.total is not None:
            return activate(act, synced_norm(x, weight, bias, eps=BN_EPS, total=self.total))
        mean = None if self.training else self.running_mean[:n]
        var = None if self.training else self.running_var[:n]
        return activate(act, F.batch_norm(x, mean, var, weight, bias, training=self.training, eps=BN_EPS))


@final
class ElasticOp(nn.Module):
    """A convolution or linear layer whose weights are sliced to an `OpSpec`, with normalisation and activation.

    Args:
        op: The largest that it must serve.
    """

    def __init__(self, op: OpSpec) -> None:
        super().__init__()
        # Initialised as torch initialises its own layers (AlphaNet sets nothing else).
        made = nn.Linear(op.in_chs, op.out_chs) if op.kind == "linear" else _conv(op)
        self.weight = cast(nn.Parameter, made.weight)
        self.bias = cast(nn.Parameter, made.bias) if op.bias else None
        self.bn = ElasticBatchNorm(op.out_chs) if op.bn else None

    def forward(self, x: Tensor, op: OpSpec) -> Tensor:
        """Applies the slice that `op` describes to (N, in_chs, hw_in, hw_in), or (N, in_chs) for linear."""
        if self.training and op.kernel_size == op.stride == 1 and is_small(x):
            return self._finish(self._product(x, op), op)
        weight, bias = self.slice(op)
        if op.kind == "linear":
            return activate(op.act, F.linear(x, weight, bias))
        if op.groups > 1 and bias is None:
            y = depthwise_conv2d(x, weight, stride=op.stride)
        elif self.training and op.kernel_size == op.stride == 1:
            y = pointwise_conv2d(x, weight, bias)
        else:
            y = F.conv2d(x, weight, bias, op.stride, op.kernel_size // 2, groups=op.groups)
        return self._finish(y, op)

    def _product(self, x: Tensor, op: OpSpec) -> Tensor:
        """Applies a kernel of one pixel, or a linear layer, as one matrix product over all pixels."""
        pixels = x if op.kind == "linear" else x.permute(0, 2, 3, 1)
        bias = None if self.bias is None else part_of(self.bias, slice(op.out_chs))
        y = product_with_part(pixels.reshape(-1, op.in_chs), self.weight, op.out_chs, bias)
        return y if op.kind == "linear" else y.view(*pixels.shape[:-1], op.out_chs).permute(0, 3, 1, 2)

    def _finish(self, y: Tensor, op: OpSpec) -> Tensor:
        return activate(op.act, y) if self.bn is None else cast(Tensor, self.bn(y, op.act))

    def slice(self, op: OpSpec) -> tuple[Tensor, Tensor | None]:
        """Returns the weight (`OpSpec.weight_shape`) and bias that `op` uses: first channels, centre of the kernel."""
        index = [slice(op.out_chs), slice(op.in_chs // op.groups)]
        if op.kind != "linear" and op.kernel_size != self.weight.shape[-1]:
            edge = (self.weight.shape[-1] - op.kernel_size) // 2
            index += [slice(edge, edge + op.kernel_size)] * 2
        return part_of(self.weight, *index), None if self.bias is None else part_of(self.bias, slice(op.out_chs))


@final
class Supernet(nn.Module):
    """All sub-networks of a space in one set of weights.

    The names of its parameters are those of the plan: `<layer.name>.<op.name>.weight`, and `.bn.weight` and so on for
    normalisation.

    Args:
        space: The search space.
        num_classes: Outputs of the classifier, if other than the space says.
    """

    def __init__(self, space: SearchSpace, num_classes: int | None = None) -> None:
        super().__init__()
        self.space = space if num_classes is None else replace(space, num_classes=num_classes)
        self.stem, self.head = nn.ModuleDict(), nn.ModuleDict()
        self.stages = nn.ModuleList(nn.ModuleDict({"blocks": nn.ModuleList()}) for _ in space.stages)
        for layer in _largest_layers(self.space):
            ops = nn.ModuleDict({op.name: ElasticOp(op) for op in layer.ops})
            if layer.op == "mbconv":
                _zero_last_gamma(ops)
                cast(nn.ModuleList, self.get_submodule(f"stages.{_stage_of(layer)}.blocks")).append(ops)
            else:
                setattr(self, layer.name, ops)

    def forward(
        self, images: Tensor, subnet: SubnetConfig, *, dropout: float = 0.0, drop_connect: float = 0.0
    ) -> Tensor:
        """Runs one sub-network.

        Args:
            images: Normalised images (N, 3, H, H); resized bicubically to the sub-network's resolution.
            subnet: The member of the space to run.
            dropout: Share of the classifier's inputs to drop; 0 outside training.
            drop_connect: Rate at the last block slot; it grows linearly with the slot and acts in the last two stages
                only (AlphaNet's released settings).

        Returns:
            Logits (N, classes).
        """
        return self._run(images, _plan(self.space, subnet), subnet.resolution, dropout, drop_connect)

    def compile_network(self, subnet: SubnetConfig, *, backend: str = "inductor") -> Network:
        """Returns one sub-network as `forward` runs it, compiled by PyTorch at its first call, which takes a minute.

        Args:
            subnet: The member of the space.
            backend: Of `torch.compile`.
        """
        blocks = _plan(self.space, subnet)

        def run(images: Tensor, dropout: float = 0.0, drop_connect: float = 0.0) -> Tensor:
            return self._run(images, blocks, subnet.resolution, dropout, drop_connect)

        return cast(Network, torch.compile(run, fullgraph=True, dynamic=False, backend=backend))

    def _run(
        self, images: Tensor, blocks: Sequence[_Block], resolution: int, dropout: float, drop_connect: float
    ) -> Tensor:
        x = resize(images, resolution)
        for layer, specs in blocks:
            ops = self.ops_of(layer)

            def apply(name: str, y: Tensor, ops: nn.ModuleDict = ops, specs: Mapping[str, OpSpec] = specs) -> Tensor:
                if name == "classifier" and dropout:
                    y = F.dropout(y, dropout)
                return cast(Tensor, ops[name](y, specs[name]))

            x = run_block(layer, apply, x, drop_connect=self._drop_rate(layer, drop_connect))
        return x

    def synchronise(self, total: Total) -> None:
        """Makes every normalisation in training use the images of all processes that `total` sums over."""
        for module in self.modules():
            if isinstance(module, ElasticBatchNorm):
                module.total = total

    def ops_of(self, layer: LayerSpec) -> nn.ModuleDict:
        """Returns the elastic layers of a block, by name."""
        return cast(nn.ModuleDict, self.get_submodule(layer.name))

    def _drop_rate(self, layer: LayerSpec, rate: float) -> float:
        if not rate or layer.op != "mbconv":
            return 0.0
        stage = _stage_of(layer)
        if stage < len(self.space.stages) - DROP_CONNECT_STAGES:
            return 0.0
        deepest = [choices.depth[-1] for choices in self.space.stages]
        slot = sum(deepest[:stage]) + int(layer.name.rsplit(".", 1)[1])
        return rate * slot / sum(deepest)


@lru_cache(maxsize=4096)
def _plan(space: SearchSpace, subnet: SubnetConfig) -> tuple[_Block, ...]:
    return tuple((layer, _specs(layer)) for layer in plan(space, subnet))


@lru_cache(maxsize=16384)
def _specs(layer: LayerSpec) -> dict[str, OpSpec]:
    return {op.name: op for op in layer.ops}


def _largest_layers(space: SearchSpace) -> list[LayerSpec]:
    """Returns the largest sub-network's blocks, each with a shortcut convolution if any sub-network runs one there."""
    layers = []
    entering = space.stem_width
    for layer in plan(space, space.largest()):
        if layer.op == "mbconv" and layer.name.endswith(".blocks.0"):
            width = space.stages[_stage_of(layer)].width
            if entering != width or len(width) > 1:
                layer = replace(layer, shortcut="conv")
            entering = width
        layers.append(layer)
    return layers


def _stage_of(layer: LayerSpec) -> int:
    return int(layer.name.split(".")[1])


def _conv(op: OpSpec) -> nn.Conv2d:
    return nn.Conv2d(op.in_chs, op.out_chs, op.kernel_size, op.stride, op.kernel_size // 2, groups=op.groups)


def _zero_last_gamma(ops: nn.ModuleDict) -> None:
    last = cast(ElasticOp, ops["project"]).bn
    assert last is not None
    nn.init.zeros_(last.weight)
