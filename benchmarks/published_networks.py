"""Well-known networks as the kernels that a runtime launches, for fitting laws to their published latencies.

Written after the papers' tables: ResNet (He et al., 2016), MobileNetV2 (Sandler et al., 2018), MobileNetV3 (Howard et
al., 2019), MnasNet-B1 (Tan et al., 2019). Counts are those of one image of 224 pixels with 1000 classes.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nas2edge.latency.kernels import DENSE, DEPTHWISE, OTHER, POINTWISE, Kernel, kernels
from nas2edge.plan import LayerSpec, round_channels

RELU = ("relu",)

# kernel, expansion, width, squeeze, activation, stride
_V3_LARGE = """3 16 16 - relu 1, 3 64 24 - relu 2, 3 72 24 - relu 1, 5 72 40 se relu 2, 5 120 40 se relu 1,
5 120 40 se relu 1, 3 240 80 - hswish 2, 3 200 80 - hswish 1, 3 184 80 - hswish 1, 3 184 80 - hswish 1,
3 480 112 se hswish 1, 3 672 112 se hswish 1, 5 672 160 se hswish 2, 5 960 160 se hswish 1, 5 960 160 se hswish 1"""
_V3_SMALL = """3 16 16 se relu 2, 3 72 24 - relu 2, 3 88 24 - relu 1, 5 96 40 se hswish 2, 5 240 40 se hswish 1,
5 240 40 se hswish 1, 5 120 48 se hswish 1, 5 144 48 se hswish 1, 5 288 96 se hswish 2, 5 576 96 se hswish 1,
5 576 96 se hswish 1"""
# expansion, kernel, width, depth, stride
_V2 = ((1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 3, 32, 3, 2), (6, 3, 64, 4, 2), (6, 3, 96, 3, 1), (6, 3, 160, 3, 2),
       (6, 3, 320, 1, 1))  # fmt: skip
_MNASNET = ((1, 3, 16, 1, 1), (3, 3, 24, 3, 2), (3, 5, 40, 3, 2), (6, 5, 80, 3, 2), (6, 3, 96, 2, 1),
            (6, 5, 192, 4, 2), (6, 3, 320, 1, 1))  # fmt: skip
_RESNET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_FUSED_BY_TENSORRT = ("ReLU", "Softmax", "Eltwise", "Concat", "HardSigmoid", "Reshape")


def tensorrt_networks(ncnn_layers: Path) -> Mapping[str, Sequence[Kernel]]:
    """Returns networks by name, fused as the laws assume of TensorRT.

    Args:
        ncnn_layers: ncnn_net_layers.csv, for SqueezeNet 1.1 and RegNetY-400MF.
    """
    squeezenet, regnet = (_fused(_rows(ncnn_layers)[name]) for name in ("squeezenet", "regnety_400m"))
    return {**standard_networks(), "squeezenet1_1": squeezenet, "regnety400": regnet}


def standard_networks() -> Mapping[str, Sequence[Kernel]]:
    """Returns the networks that are written out here, fused as the laws assume of TensorRT."""
    return {
        **{f"resnet{depth}": resnet(depth) for depth in _RESNET},
        "mobilenet_v2": _plain_network(32, _V2, width=1.0),
        "mobilenet_v3_large": mobilenet_v3(_V3_LARGE, 960, 1280),
        "mobilenet_v3_small": mobilenet_v3(_V3_SMALL, 576, 1024),
        "mnasnet0_5": _plain_network(32, _MNASNET, width=0.5),
        "mnasnet1_3": _plain_network(32, _MNASNET, width=1.3),
    }


def ncnn_networks(ncnn_layers: Path) -> Mapping[str, Sequence[Kernel]]:
    """Returns the networks of ncnn's benchmark by name; each of its layers is a kernel."""
    return {name: [_kernel(row) for row in rows if row["type"] != "Reshape"]
            for name, rows in _rows(ncnn_layers).items()}  # fmt: skip


def resnet(depth: int) -> list[Kernel]:
    """Returns a ResNet: ReLU and additions are fused."""
    found = [_conv(3, 64, 7, 2, 224), Kernel(name="pool", kind=OTHER, read=64 * 112**2, written=64 * 56**2)]
    hw, in_chs = 56, 64
    for stage, (width, blocks) in enumerate(zip((64, 128, 256, 512), _RESNET[depth], strict=True)):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            out_chs, hw_out = width * (1 if depth < 50 else 4), hw // stride
            if depth < 50:
                found += [_conv(in_chs, width, 3, stride, hw), _conv(width, width, 3, 1, hw_out)]
            else:
                found += [_conv(in_chs, width, 1, 1, hw), _conv(width, width, 3, stride, hw),
                          _conv(width, out_chs, 1, 1, hw_out)]  # fmt: skip
            if stride > 1 or in_chs != out_chs:
                found.append(_conv(in_chs, out_chs, 1, stride, hw))
            hw, in_chs = hw_out, out_chs
    return found + _classifier(in_chs, hw)


def mobilenet_v3(blocks: str, mid_chs: int, out_chs: int) -> list[Kernel]:
    """Returns a MobileNetV3, whose head has the structure of ours."""
    layers = [_stem(16, "hswish")]
    for block in blocks.split(","):
        kernel, mid, width, squeeze, act, stride = block.split()
        layers.append(_mbconv(layers[-1], int(mid), int(width), int(kernel), int(stride), squeeze == "se", act))
    last = layers[-1]
    head = LayerSpec(name="", op="mbpool", hw_in=last.hw_out, hw_out=1, in_chs=last.out_chs, mid_chs=mid_chs,
                     out_chs=out_chs, kernel_size=1, stride=1, act="hswish", classes=1000)  # fmt: skip
    return list(_launches([*layers, head]))


def _plain_network(stem: int, stages: Sequence[tuple[int, int, int, int, int]], *, width: float) -> list[Kernel]:
    layers = [_stem(round_channels(stem * width), "relu")]
    for expand, kernel, out_chs, depth, stride in stages:
        for block in range(depth):
            mid = layers[-1].out_chs * expand
            layers.append(
                _mbconv(layers[-1], mid, round_channels(out_chs * width), kernel, 1 if block else stride, False, "relu")
            )
    last = layers[-1]
    return [*_launches(layers), _conv(last.out_chs, 1280, 1, 1, last.hw_out), *_classifier(1280, last.hw_out)]


def _launches(layers: Sequence[LayerSpec]) -> Iterator[Kernel]:
    for layer in layers:
        yield from kernels(layer, fused_acts=RELU)


def _stem(out_chs: int, act: str) -> LayerSpec:
    return LayerSpec(name="", op="first_conv", hw_in=224, hw_out=112, in_chs=3, mid_chs=out_chs, out_chs=out_chs,
                     kernel_size=3, stride=2, act=act)  # fmt: skip


def _mbconv(before: LayerSpec, mid: int, width: int, kernel: int, stride: int, squeeze: bool, act: str) -> LayerSpec:
    same = stride == 1 and before.out_chs == width
    return LayerSpec(name="", op="mbconv", hw_in=before.hw_out, hw_out=-(-before.hw_out // stride),
                     in_chs=before.out_chs, mid_chs=mid, out_chs=width, kernel_size=kernel, stride=stride,
                     se_chs=round_channels(mid / 4) if squeeze else 0, act=act,
                     shortcut="identity" if same else "none")  # fmt: skip


def _conv(in_chs: int, out_chs: int, kernel: int, stride: int, hw: int) -> Kernel:
    hw_out, weights = -(-hw // stride), kernel**2 * in_chs * out_chs
    return Kernel(name="conv", kind=DENSE if kernel > 1 else POINTWISE, macs=weights * hw_out**2,
                  read=in_chs * hw**2, written=out_chs * hw_out**2, weights=weights)  # fmt: skip


def _classifier(chs: int, hw: int) -> list[Kernel]:
    return [Kernel(name="mean", kind=OTHER, read=chs * hw**2, written=chs), _conv(chs, 1000, 1, 1, 1)]


def _rows(path: Path) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = defaultdict(list)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found[row["model"]].append(row)
    return found


def _kernel(row: Mapping[str, str]) -> Kernel:
    groups, out_chs, kernel = (int(row[name] or 1) for name in ("groups", "out_c", "kernel"))
    kind = OTHER
    if row["type"] in ("Convolution", "InnerProduct"):
        kind = DENSE if kernel > 1 else POINTWISE
    elif row["type"] == "ConvolutionDepthWise":
        kind = DEPTHWISE if groups == out_chs else DENSE
    return Kernel(name=row["type"], kind=kind, macs=int(row["macs"]), read=int(row["io_elems"]),
                  weights=int(row["weights"] or 0))  # fmt: skip


def _fused(rows: Sequence[Mapping[str, str]]) -> list[Kernel]:
    kept = [_kernel(row) for row in rows if row["type"] not in _FUSED_BY_TENSORRT]
    return [replace(kernel, name="conv" if kernel.macs else kernel.name) for kernel in kept]
