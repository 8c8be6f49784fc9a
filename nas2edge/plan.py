"""Which layers a sub-network has, with every shape: the one fact that costs, latency, weights and export read.

`plan` is a pure function, free of torch. Its layers are *blocks*, the grain of latency tables; `LayerSpec.ops` opens a
block into convolutions, the grain of weights and costs:

>>> layers = plan(space, space.smallest())
>>> layers[1].key
'mbconv hw=12 in=16 mid=16 out=16 k=3 s=1 se=0 act=swish skip=identity'
>>> [op.name for op in layers[1].ops]
['depthwise', 'project']

Facts of the block (AttentiveNAS, section "search space" and its released configuration): every block has a shortcut;
middle channels are the *actual* input channels times the expansion ratio, rounded to a multiple of 8; the squeeze of
squeeze-and-excitation is a quarter of the middle channels, rounded likewise; the head pools between its convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from nas2edge.space import CHANNEL_DIVISOR, SearchSpace, SubnetConfig

SE_REDUCTION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class OpSpec:
    """One convolution or linear layer inside a block.

    Args:
        name: Its name inside the block; with the block's name, the name of its weights.
        kind: "conv", or "linear" for the classifier.
        in_chs: Input channels.
        out_chs: Output channels.
        kernel_size: Side of the kernel; 1 for linear.
        stride: Stride; padding is always kernel_size // 2.
        groups: 1, or in_chs for a depthwise convolution.
        hw_in: Side of the square input map.
        hw_out: Side of the square output map.
        bias: Whether it has a bias of its own.
        bn: Whether batch normalisation follows.
        act: Activation that follows, "" for none.
    """

    name: str
    kind: str = "conv"
    in_chs: int
    out_chs: int
    kernel_size: int = 1
    stride: int = 1
    groups: int = 1
    hw_in: int
    hw_out: int
    bias: bool = False
    bn: bool = False
    act: str = ""

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(out_chs, in_chs / groups, k, k), or (out_chs, in_chs) for linear."""
        per_group = self.in_chs // self.groups
        if self.kind == "linear":
            return (self.out_chs, per_group)
        return (self.out_chs, per_group, self.kernel_size, self.kernel_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSpec:
    """One block of a sub-network: a row of a latency table.

    Args:
        name: Where it stands, such as "stem", "stages.2.blocks.0" or "head"; not part of its identity.
        op: "first_conv", "mbconv" or "mbpool" (head convolution, pooling, convolution, classifier).
        hw_in: Side of the square input map.
        hw_out: Side of the square output map; 1 for mbpool.
        in_chs: Input channels.
        mid_chs: Channels between expansion and projection; equal to in_chs where there is no expansion conv.
        out_chs: Output channels; for mbpool those before the classifier.
        kernel_size: Side of the (depthwise) kernel.
        stride: Stride of that kernel.
        se_chs: Squeezed channels of squeeze-and-excitation, 0 for none.
        act: Activation, "swish" or "relu".
        shortcut: "none", "identity", "pool", "conv" or "pool+conv".
        classes: Outputs of the classifier for mbpool, else 0.
    """

    name: str
    op: str
    hw_in: int
    hw_out: int
    in_chs: int
    mid_chs: int
    out_chs: int
    kernel_size: int
    stride: int
    se_chs: int = 0
    act: str
    shortcut: str = "none"
    classes: int = 0

    @property
    def key(self) -> str:
        """Identity of the block wherever it stands: equal keys are equal work."""
        if self.op == "first_conv":
            size = f"in={self.in_chs} out={self.out_chs} k={self.kernel_size} s={self.stride} act={self.act}"
        elif self.op == "mbpool":
            size = f"in={self.in_chs} mid={self.mid_chs} out={self.out_chs} act={self.act} classes={self.classes}"
        else:
            size = (
                f"in={self.in_chs} mid={self.mid_chs} out={self.out_chs} k={self.kernel_size} s={self.stride} "
                f"se={self.se_chs} act={self.act} skip={self.shortcut}"
            )
        return f"{self.op} hw={self.hw_in} {size}"

    @property
    def expands(self) -> bool:
        """Whether an MBConv block starts with an expansion convolution."""
        return self.mid_chs != self.in_chs

    @property
    def ops(self) -> tuple[OpSpec, ...]:
        """The convolutions and linear layers of the block, in order of execution."""
        return tuple(_OPS[self.op](self))


def plan(space: SearchSpace, subnet: SubnetConfig) -> tuple[LayerSpec, ...]:
    """Returns the blocks of a sub-network, from stem to head.

    Raises:
        SubnetError: The sub-network is not a member of the space.
    """
    space.validate(subnet)
    layers = [stem_layer(space, resolution=subnet.resolution, out_chs=subnet.width[0])]
    for i in range(len(space.stages)):
        layers += stage_layers(
            space,
            i,
            hw_in=layers[-1].hw_out,
            in_chs=layers[-1].out_chs,
            width=subnet.width[i + 1],
            depth=subnet.depth[i],
            kernel_size=subnet.kernel_size[i],
            expand_ratio=subnet.expand_ratio[i],
        )
    layers.append(head_layer(space, hw_in=layers[-1].hw_out, in_chs=layers[-1].out_chs, width=subnet.width[-1]))
    return tuple(layers)


def unique_layers(space: SearchSpace) -> tuple[LayerSpec, ...]:
    """Returns every block that any sub-network of the space can have, once per key: 896 for AttentiveNAS."""
    found: dict[str, LayerSpec] = {}
    for resolution in space.resolution:
        for layer in _layers_at(space, resolution):
            found.setdefault(layer.key, layer)
    return tuple(found.values())


def stem_layer(space: SearchSpace, *, resolution: int, out_chs: int) -> LayerSpec:
    """Returns the first convolution, which takes the RGB image."""
    return LayerSpec(
        name="stem",
        op="first_conv",
        hw_in=resolution,
        hw_out=_strided(resolution, space.stem_stride),
        in_chs=3,
        mid_chs=out_chs,
        out_chs=out_chs,
        kernel_size=space.stem_kernel_size,
        stride=space.stem_stride,
        act=space.act,
    )


def stage_layers(
    space: SearchSpace,
    stage: int,
    *,
    hw_in: int,
    in_chs: int,
    width: int,
    depth: int,
    kernel_size: int,
    expand_ratio: int,
) -> list[LayerSpec]:
    """Returns the blocks of one stage, given the map side and channels that enter it."""
    choices = space.stages[stage]
    layers: list[LayerSpec] = []
    for j in range(depth):
        stride = choices.stride if j == 0 else 1
        mid_chs = in_chs if expand_ratio == 1 else round_channels(in_chs * expand_ratio)
        layers.append(
            LayerSpec(
                name=f"stages.{stage}.blocks.{j}",
                op="mbconv",
                hw_in=hw_in,
                hw_out=_strided(hw_in, stride),
                in_chs=in_chs,
                mid_chs=mid_chs,
                out_chs=width,
                kernel_size=kernel_size,
                stride=stride,
                se_chs=round_channels(mid_chs // SE_REDUCTION) if choices.se else 0,
                act=space.act,
                shortcut=_shortcut(stride=stride, conv=in_chs != width),
            )
        )
        hw_in, in_chs = layers[-1].hw_out, width
    return layers


def head_layer(space: SearchSpace, *, hw_in: int, in_chs: int, width: int) -> LayerSpec:
    """Returns the MBPool head: 1x1 convolution, global mean, 1x1 convolution, classifier."""
    return LayerSpec(
        name="head",
        op="mbpool",
        hw_in=hw_in,
        hw_out=1,
        in_chs=in_chs,
        mid_chs=in_chs * space.head_expand_ratio,
        out_chs=width,
        kernel_size=1,
        stride=1,
        act=space.act,
        classes=space.num_classes,
    )


def round_channels(channels: float) -> int:
    """Rounds to a multiple of 8, at least 8, and never below 90 % of the input (MobileNet's rule)."""
    rounded = max(CHANNEL_DIVISOR, int(channels + CHANNEL_DIVISOR / 2) // CHANNEL_DIVISOR * CHANNEL_DIVISOR)
    return rounded + CHANNEL_DIVISOR if rounded < 0.9 * channels else rounded


def _layers_at(space: SearchSpace, resolution: int) -> Iterator[LayerSpec]:
    hw, entering = resolution, space.stem_width
    for out_chs in space.stem_width:
        stem = stem_layer(space, resolution=resolution, out_chs=out_chs)
        yield stem
    hw = stem.hw_out
    for i, stage in enumerate(space.stages):
        for in_chs, width, kernel_size, expand_ratio in product(
            entering, stage.width, stage.kernel_size, stage.expand_ratio
        ):
            layers = stage_layers(
                space,
                i,
                hw_in=hw,
                in_chs=in_chs,
                width=width,
                depth=min(2, stage.depth[-1]),
                kernel_size=kernel_size,
                expand_ratio=expand_ratio,
            )
            yield from layers
        hw, entering = layers[0].hw_out, stage.width
    for in_chs, width in product(entering, space.head_width):
        yield head_layer(space, hw_in=hw, in_chs=in_chs, width=width)


def _strided(hw: int, stride: int) -> int:
    return -(-hw // stride)


def _shortcut(*, stride: int, conv: bool) -> str:
    parts = (["pool"] if stride > 1 else []) + (["conv"] if conv else [])
    return "+".join(parts) or "identity"


def _first_conv_ops(layer: LayerSpec) -> Iterator[OpSpec]:
    yield OpSpec(
        name="conv",
        in_chs=layer.in_chs,
        out_chs=layer.out_chs,
        kernel_size=layer.kernel_size,
        stride=layer.stride,
        hw_in=layer.hw_in,
        hw_out=layer.hw_out,
        bn=True,
        act=layer.act,
    )


def _mbconv_ops(layer: LayerSpec) -> Iterator[OpSpec]:
    hw_in, hw_out, mid = layer.hw_in, layer.hw_out, layer.mid_chs
    if layer.expands:
        yield OpSpec(name="expand", in_chs=layer.in_chs, out_chs=mid, hw_in=hw_in, hw_out=hw_in, bn=True, act=layer.act)
    yield OpSpec(
        name="depthwise",
        in_chs=mid,
        out_chs=mid,
        kernel_size=layer.kernel_size,
        stride=layer.stride,
        groups=mid,
        hw_in=hw_in,
        hw_out=hw_out,
        bn=True,
        act=layer.act,
    )
    if layer.se_chs:
        yield OpSpec(name="se_reduce", in_chs=mid, out_chs=layer.se_chs, hw_in=1, hw_out=1, bias=True, act="relu")
        yield OpSpec(name="se_expand", in_chs=layer.se_chs, out_chs=mid, hw_in=1, hw_out=1, bias=True, act="hsigmoid")
    yield OpSpec(name="project", in_chs=mid, out_chs=layer.out_chs, hw_in=hw_out, hw_out=hw_out, bn=True)
    if "conv" in layer.shortcut:
        yield OpSpec(name="shortcut", in_chs=layer.in_chs, out_chs=layer.out_chs, hw_in=hw_out, hw_out=hw_out)


def _mbpool_ops(layer: LayerSpec) -> Iterator[OpSpec]:
    hw, mid = layer.hw_in, layer.mid_chs
    yield OpSpec(name="expand", in_chs=layer.in_chs, out_chs=mid, hw_in=hw, hw_out=hw, bn=True, act=layer.act)
    yield OpSpec(name="mix", in_chs=mid, out_chs=layer.out_chs, hw_in=1, hw_out=1, act=layer.act)
    yield OpSpec(
        name="classifier", kind="linear", in_chs=layer.out_chs, out_chs=layer.classes, hw_in=1, hw_out=1, bias=True
    )


_OPS = {"first_conv": _first_conv_ops, "mbconv": _mbconv_ops, "mbpool": _mbpool_ops}
