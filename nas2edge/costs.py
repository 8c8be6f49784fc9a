"""Costs of a plan that need no device: multiply-accumulates, parameters, peak activation memory.

One multiply-accumulate (MAC) is a fused multiply and add. Convolutions and linear layers count; batch normalisation,
activations, pooling and additions count zero, as in the tables of AttentiveNAS and OFA. Shortcut convolutions count
where they run, and parameters are those in use (batch normalisation: scale and shift, not the running statistics).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from nas2edge.plan import LayerSpec, OpSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Costs of one sub-network, or of one of its layers, for one image.

    Args:
        macs: Multiply-accumulates.
        params: Parameters in use.
        peak_activations: Greatest number of activation values that must be held at once.
    """

    macs: int
    params: int
    peak_activations: int


def count(layers: Sequence[LayerSpec]) -> Costs:
    """Adds up the costs of a plan; peak activations are the greatest of any layer."""
    return Costs(
        macs=sum(count_macs(layer) for layer in layers),
        params=sum(count_params(layer) for layer in layers),
        peak_activations=max(peak_activations(layer) for layer in layers),
    )


def count_macs(layer: LayerSpec) -> int:
    """Returns the multiply-accumulates of one block for one image."""
    return sum(op_macs(op) for op in layer.ops)


def count_params(layer: LayerSpec) -> int:
    """Returns the parameters of one block."""
    return sum(op_params(op) for op in layer.ops)


def op_macs(op: OpSpec) -> int:
    """Returns the multiply-accumulates of one convolution or linear layer: weight values times output positions."""
    return prod(op.weight_shape) * op.hw_out**2


def op_params(op: OpSpec) -> int:
    """Returns the parameters of one convolution or linear layer with its bias and batch normalisation."""
    return prod(op.weight_shape) + op.out_chs * (int(op.bias) + 2 * int(op.bn))


def peak_activations(layer: LayerSpec) -> int:
    """Returns the activation values held at the worst moment of one block.

    Every convolution holds its input and its output; a block with a shortcut also holds the block's input until the
    addition, and the projection's output while the shortcut convolves. Fused runtimes may need less, never the sum
    over blocks.
    """
    block_input = 0 if layer.shortcut == "none" else layer.in_chs * layer.hw_in**2
    peak = 0
    for i, op in enumerate(layer.ops):
        waiting = 0 if i == 0 else block_input
        if op.name == "shortcut":
            waiting = layer.out_chs * layer.hw_out**2
        peak = max(peak, op.in_chs * op.hw_in**2 + op.out_chs * op.hw_out**2 + waiting)
    return peak
