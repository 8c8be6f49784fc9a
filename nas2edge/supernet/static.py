"""Sub-networks as plain modules with weights of their own, cut from a supernet; and recalibration of their statistics.

>>> net = extract(supernet, subnet)
>>> recalibrate(net, batches)
>>> logits = net(images)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas2edge.plan import LayerSpec, OpSpec, plan
from nas2edge.space import SubnetConfig
from nas2edge.supernet.blocks import activate, resize, run_block
from nas2edge.supernet.elastic import BN_EPS, ElasticOp, Supernet


@final
class StaticOp(nn.Module):
    """A convolution or linear layer of fixed shape, with normalisation and activation.

    Args:
        op: Its shape.
    """

    def __init__(self, op: OpSpec) -> None:
        super().__init__()
        self.op = op
        self.weight = nn.Parameter(torch.empty(op.weight_shape))
        self.bias = nn.Parameter(torch.empty(op.out_chs)) if op.bias else None
        self.bn = nn.BatchNorm2d(op.out_chs, eps=BN_EPS) if op.bn else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_chs, hw_in, hw_in) to (N, out_chs, hw_out, hw_out); linear maps (N, in_chs) to (N, out_chs)."""
        op = self.op
        if op.kind == "linear":
            return activate(op.act, F.linear(x, self.weight, self.bias))
        y = F.conv2d(x, self.weight, self.bias, op.stride, op.kernel_size // 2, groups=op.groups)
        return activate(op.act, y if self.bn is None else self.bn(y))


@final
class StaticNet(nn.Module):
    """One sub-network with its own weights. Its state is named by the plan: `<layer.name>.<op.name>.weight` and so on.

    Args:
        layers: The plan to build.
    """

    def __init__(self, layers: Sequence[LayerSpec]) -> None:
        super().__init__()
        self.layers = tuple(layers)
        for layer in self.layers:
            parent: nn.Module = self
            *path, last = layer.name.split(".")
            for name in path:
                if name not in dict(parent.named_children()):
                    parent.add_module(name, nn.Module())
                parent = parent.get_submodule(name)
            parent.add_module(last, nn.ModuleDict({op.name: StaticOp(op) for op in layer.ops}))

    @property
    def resolution(self) -> int:
        """Side of the input that the first layer takes."""
        return self.layers[0].hw_in

    def forward(self, images: Tensor) -> Tensor:
        """Maps normalised images (N, 3, H, H), resized bicubically to the resolution, to logits (N, classes)."""
        x = resize(images, self.resolution)
        for layer in self.layers:
            ops = cast(nn.ModuleDict, self.get_submodule(layer.name))

            def apply(name: str, y: Tensor, ops: nn.ModuleDict = ops) -> Tensor:
                return cast(Tensor, ops[name](y))

            x = run_block(layer, apply, x)
        return x


def extract(supernet: Supernet, subnet: SubnetConfig) -> StaticNet:
    """Cuts a sub-network out of a supernet: a copy in evaluation mode whose outputs are bit-equal to the slice's.

    Raises:
        SubnetError: The sub-network is not a member of the supernet's space.
    """
    net = StaticNet(plan(supernet.space, subnet))
    reference = supernet.stem["conv"].weight
    net.to(device=cast(Tensor, reference).device, dtype=cast(Tensor, reference).dtype)
    with torch.no_grad():
        for layer in net.layers:
            static = cast(nn.ModuleDict, net.get_submodule(layer.name))
            elastic = supernet.ops_of(layer)
            for op in layer.ops:
                _copy_slice(cast(ElasticOp, elastic[op.name]), cast(StaticOp, static[op.name]))
    return net.eval()


def recalibrate(net: StaticNet, batches: Iterable[Tensor]) -> None:
    """Replaces all batch-normalisation statistics by the averages over batches of normalised images, in one pass.

    Every layer's mean and (unbiased) variance are averaged over the batches with equal weight, as AttentiveNAS does.

    Args:
        net: The network; it ends in evaluation mode.
        batches: Tensors (N, 3, H, H), N of at least 2. Without any batch the statistics stay as they are.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    net.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # a cumulative average
        norm.train()
    try:
        with torch.no_grad():
            for i, batch in enumerate(batches):
                if i == 0:
                    for norm in norms:
                        norm.reset_running_stats()
                net(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        net.eval()


def _copy_slice(elastic: ElasticOp, static: StaticOp) -> None:
    weight, bias = elastic.slice(static.op)
    static.weight.copy_(weight)
    if bias is not None and static.bias is not None:
        static.bias.copy_(bias)
    if elastic.bn is not None and static.bn is not None:
        n = static.op.out_chs
        static.bn.weight.copy_(elastic.bn.weight[:n])
        static.bn.bias.copy_(elastic.bn.bias[:n])
        cast(Tensor, static.bn.running_mean).copy_(elastic.bn.running_mean[:n])
        cast(Tensor, static.bn.running_var).copy_(elastic.bn.running_var[:n])
