"""Block tables of other projects: Once-for-All and CompOFA, ProxylessNAS, nn-Meter.

Facts of these formats come from the files themselves and their projects' papers; no code of theirs is used.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas2edge.errors import FormatError, TableError
from nas2edge.latency.foreign import Foreign, measured_row, number, read_text
from nas2edge.latency.table import TableRow
from nas2edge.optional import require
from nas2edge.plan import SE_REDUCTION, LayerSpec, round_channels

_SHAPE = re.compile(
    r"^(?P<name>[A-Za-z0-9_]+)-input:(?P<hw>\d+)x(?P<w>\d+)x(?P<cin>\d+)-output:(?P<out>[0-9x]+)(?P<rest>.*)$"
)
_NN_CONV = re.compile(r"^conv_(\d+)_(\d+)_(\d+)_(\d+)_(\d)_([a-z_]+)_(\d+)_(se|nose)$")
_NN_FIRST = re.compile(r"^firstconv_(\d+)_(\d+)_(\d+)_(\d)_(\d)$")
_ACTS = {"hard_swish": "hswish", "hswish": "hswish", "relu": "relu", "relu6": "relu", "swish": "swish"}
_HEAD = ("Conv_1", "AvgPool2D", "Conv_2", "Logits")


def read_ofa_yaml(path: Path) -> Foreign:
    """Reads one look-up table of Once-for-All or CompOFA: one resolution, mean, count and standard deviation in ms.

    The stem uses hard swish; the four layers of the head add up to one row, since their structure is that of ours.

    Raises:
        FormatError: The file cannot be read or is not such a table.
        MissingDependencyError: PyYAML is not installed.
    """
    return _read_yaml(path, format="ofa-yaml", stem_act="hswish")


def read_proxyless_yaml(path: Path) -> Foreign:
    """Reads one look-up table of ProxylessNAS: as Once-for-All's, all ReLU6, a head without our middle convolution.

    Raises:
        FormatError: The file cannot be read or is not such a table.
        MissingDependencyError: PyYAML is not installed.
    """
    return _read_yaml(path, format="proxyless-yaml", stem_act="relu")


def read_nn_meter(path: Path) -> Foreign:
    """Reads a block table of nn-Meter's AttentiveNAS branch: milliseconds by block, without runs or spread.

    Raises:
        FormatError: The file cannot be read or is not such a table.
    """
    try:
        raw = json.loads(read_text(path))
    except ValueError as err:
        raise FormatError(f"{path} does not parse: {err}") from err
    if not isinstance(raw, Mapping):
        raise FormatError(f"{path} is no table of nn-Meter: expected an object of blocks")
    rows: list[TableRow] = []
    not_mapped: dict[str, str] = {}
    for key, value in raw.items():
        layer = _nn_meter_layer(key)
        if isinstance(layer, str):
            not_mapped[key] = layer
        else:
            _add(rows, not_mapped, key, layer, value)
    return Foreign(format="nn-meter", rows=tuple(rows), not_mapped=not_mapped,
                   note="means as published; runs and clocks are not stated")  # fmt: skip


def _nn_meter_layer(key: str) -> LayerSpec | str:
    if match := _NN_FIRST.match(key):
        hw, in_chs, out_chs, stride, kernel = map(int, match.groups())
        return _stem(hw, in_chs, out_chs, kernel, stride, "hswish")
    if key.startswith("mbpool_"):
        return "it does not say whether the classifier is part of it"
    if not (match := _NN_CONV.match(key)):
        return "not a block of nn-Meter"
    hw, in_chs, out_chs, expand, stride = map(int, match.groups()[:5])
    act = _ACTS.get(match[6])
    if act is None:
        return f"unknown activation {match[6]!r}"
    mid = in_chs if expand == 1 else round_channels(in_chs * expand)
    parts = (["pool"] if stride > 1 else []) + (["conv"] if in_chs != out_chs else [])
    return _mbconv(hw, in_chs, mid, out_chs, int(match[7]), stride, match[8] == "se", act,
                   "+".join(parts) or "identity")  # fmt: skip


def _read_yaml(path: Path, *, format: str, stem_act: str) -> Foreign:
    entries = _load_yaml(path)
    rows: list[TableRow] = []
    not_mapped: dict[str, str] = {}
    head: dict[str, tuple[Mapping[str, Any], re.Match[str]]] = {}
    names = [match["name"] for key in entries if (match := _SHAPE.match(str(key)))]
    for key, value in entries.items():
        match = _SHAPE.match(str(key))
        if match is None or not isinstance(value, Mapping) or "mean" not in value:
            not_mapped[str(key)] = "not an entry with a shape and a mean"
        elif match["hw"] != match["w"]:
            not_mapped[key] = "its map is not square"
        elif match["name"] in _HEAD and names.count(match["name"]) > 1:
            not_mapped[key] = "one of several heads; which layers belong together is not said"
        elif match["name"] in _HEAD:
            head[match["name"]] = (value, match)
        else:
            layer = _yaml_layer(match, stem_act)
            if isinstance(layer, str):
                not_mapped[key] = layer
            else:
                _add(rows, not_mapped, key, layer, value["mean"], value)
    _add_head(rows, not_mapped, head, stem_act)
    return Foreign(format=format, rows=tuple(rows), not_mapped=not_mapped,
                   note="means as published, not medians; clocks are not stated")  # fmt: skip


def _load_yaml(path: Path) -> Mapping[str, Any]:
    require("yaml", extra="tables", purpose="reading YAML tables")
    import yaml

    try:
        raw = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError) as err:
        raise FormatError(f"{path} does not parse: {err}") from err
    if not isinstance(raw, Mapping):
        raise FormatError(f"{path} is no look-up table: expected an object of blocks")
    return raw


def _yaml_layer(match: re.Match[str], stem_act: str) -> LayerSpec | str:
    shape = match["out"].split("x")
    if len(shape) != 3 or shape[0] != shape[1]:
        return "its output is no square map"
    hw, in_chs, hw_out, out_chs = int(match["hw"]), int(match["cin"]), int(shape[0]), int(shape[2])
    if match["name"] == "Conv":
        return _stem(hw, in_chs, out_chs, 3, hw // hw_out, stem_act)
    if match["name"] != "expanded_conv":
        return f"no block of ours is like {match['name']}"
    fields = dict(part.split(":") for part in match["rest"].strip("-").split("-") if ":" in part)
    try:
        mid, kernel, stride, skip = (int(fields[name]) for name in ("expand", "kernel", "stride", "idskip"))
        squeezed, hard = (int(fields.get(name, 0)) for name in ("se", "hs"))
    except (KeyError, ValueError):
        return "it lacks expand, kernel, stride or idskip"
    if -(-hw // stride) != hw_out:
        return f"a stride of {stride} does not turn a map of {hw} into {hw_out}"
    if skip and (stride != 1 or in_chs != out_chs):
        return "an identity shortcut between different shapes"
    return _mbconv(hw, in_chs, mid, out_chs, kernel, stride, bool(squeezed), "hswish" if hard else "relu",
                   "identity" if skip else "none")  # fmt: skip


def _add_head(
    rows: list[TableRow],
    not_mapped: dict[str, str],
    head: Mapping[str, tuple[Mapping[str, Any], re.Match[str]]],
    act: str,
) -> None:
    if not head:
        return
    keys = {name: match.group(0) for name, (_, match) in head.items()}
    sizes = {name: (int(match["hw"]), int(match["cin"]), int(match["out"].split("x")[-1]))
             for name, (_, match) in head.items()}  # fmt: skip
    chain = set(head) == set(_HEAD) and _is_chain(*(sizes[name] for name in _HEAD))
    if not chain:
        not_mapped |= {key: "a head other than convolution, mean, convolution, classifier" for key in keys.values()}
        return
    try:
        means = [number(head[name][0]["mean"], where="mean") for name in _HEAD]
        spreads = [float(head[name][0].get("std", math.nan)) for name in _HEAD]
    except (TableError, TypeError, ValueError) as err:
        not_mapped |= {key: str(err) for key in keys.values()}
        return
    hw, in_chs, mid = sizes["Conv_1"]
    layer = LayerSpec(name="", op="mbpool", hw_in=hw, hw_out=1, in_chs=in_chs, mid_chs=mid, out_chs=sizes["Conv_2"][2],
                      kernel_size=1, stride=1, act=act, classes=sizes["Logits"][2])  # fmt: skip
    spread = math.sqrt(sum(value**2 for value in spreads))
    value = {"count": min(int(head[name][0].get("count", 1)) for name in _HEAD)}
    _add(rows, not_mapped, " + ".join(keys.values()), layer, sum(means),
         value if math.isnan(spread) else value | {"std": spread})  # fmt: skip


def _is_chain(*sizes: tuple[int, int, int]) -> bool:
    expand, pool, mix, classifier = sizes
    return (expand[0] == pool[0] and mix[0] == classifier[0] == 1 and expand[2] == pool[1] == pool[2] == mix[1]
            and mix[2] == classifier[1])  # fmt: skip


def _add(
    rows: list[TableRow],
    not_mapped: dict[str, str],
    key: str,
    layer: LayerSpec,
    ms: Any,
    value: Mapping[str, Any] | None = None,
) -> None:
    value = value or {}
    try:
        mean = number(ms, where="the latency")
        std = value.get("std")
        rows.append(measured_row(layer, mean, n=max(1, int(value.get("count", 1))),
                                 std=None if std is None else float(std)))  # fmt: skip
    except (TableError, TypeError, ValueError) as err:
        not_mapped[key] = str(err)


def _stem(hw: int, in_chs: int, out_chs: int, kernel: int, stride: int, act: str) -> LayerSpec:
    return LayerSpec(name="", op="first_conv", hw_in=hw, hw_out=-(-hw // stride), in_chs=in_chs, mid_chs=out_chs,
                     out_chs=out_chs, kernel_size=kernel, stride=stride, act=act)  # fmt: skip


def _mbconv(
    hw: int, in_chs: int, mid: int, out_chs: int, kernel: int, stride: int, squeezed: bool, act: str, shortcut: str
) -> LayerSpec:
    se_chs = round_channels(mid // SE_REDUCTION) if squeezed else 0
    return LayerSpec(name="", op="mbconv", hw_in=hw, hw_out=-(-hw // stride), in_chs=in_chs, mid_chs=mid,
                     out_chs=out_chs, kernel_size=kernel, stride=stride, se_chs=se_chs, act=act,
                     shortcut=shortcut)  # fmt: skip
