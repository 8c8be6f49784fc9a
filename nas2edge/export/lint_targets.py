"""What targets accept, from the dated file lint_targets.toml beside this module.

>>> load_target("trt@8.6").name
'trt@8.5'
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nas2edge.errors import UnknownNameError
from nas2edge.files import read_document

FORMAT, VERSION = "nas2edge.lint_targets", 1
FILE = Path(__file__).with_name("lint_targets.toml")
_VERSIONED = re.compile(r"trt@(\d+(?:\.\d+)*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class DlaLimits:
    """What a DLA takes of a network; the GPU gets the rest.

    Args:
        accepted: Operators that run on it.
        free: Operators that cost nothing, since they only rename or reshape.
        max_dim: Greatest size of any axis but the batch.
        max_loadables: Pieces of a network that one core holds.
        conv: Least and greatest "kernel", "stride" and "pad" of a convolution.
        pool: The same of a pooling.
    """

    accepted: frozenset[str]
    free: frozenset[str]
    max_dim: int
    max_loadables: int
    conv: Mapping[str, tuple[int, int]]
    pool: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LintTarget:
    """What a target accepts of an ONNX file.

    Args:
        name: Such as "trt@8.5".
        title: In words.
        sources: Where the facts are from.
        opset: Oldest and newest operator set.
        max_ir: Newest version of the file format; None if not known.
        accepted: Operators known to be accepted.
        refused: Operators known not to be.
        only: Whether all others than the accepted ones are refused.
        dynamic_batch: Whether the batch size may be left open.
        max_batch: Greatest batch size; None for any.
        quantized: "none", "int8", "symmetric" (int8 or uint8) or "any".
        float16: Whether float16 tensors are accepted.
        float64: Whether float64 tensors are.
        dla: Limits of the DLA, for the target "dla".
    """

    name: str
    title: str
    sources: tuple[str, ...]
    opset: tuple[int, int]
    max_ir: int | None
    accepted: frozenset[str]
    refused: frozenset[str]
    only: bool
    dynamic_batch: bool
    max_batch: int | None
    quantized: str
    float16: bool
    float64: bool
    dla: DlaLimits | None


def lint_target_names() -> tuple[str, ...]:
    """Returns the names of all targets that can be linted for."""
    return tuple(_document()["targets"])


def lint_date() -> str:
    """Returns the date of the facts."""
    return str(_document()["date"])


def load_target(name: str) -> LintTarget:
    """Returns a target; of TensorRT, any version from 8.2 on ("trt@10.3"), of which the nearest entry below holds.

    Raises:
        UnknownNameError: There is no such target.
    """
    known = lint_target_names()
    found = _nearest(name) if name not in known else name
    if found is None:
        raise UnknownNameError("target", name, known, see="nas2edge lint --help")
    raw = _merged(found)
    sources = _document()["sources"]
    return LintTarget(
        name=found,
        title=raw["title"],
        sources=tuple(sources[source] for source in raw["sources"]),
        opset=(raw["opset"][0], raw["opset"][1]),
        max_ir=raw.get("max_ir"),
        accepted=frozenset(raw["accepted"]),
        refused=frozenset(raw.get("refused", ())),
        only=raw.get("only", False),
        dynamic_batch=raw["dynamic_batch"] is True,
        max_batch=raw.get("max_batch"),
        quantized=raw["quantized"],
        float16=raw["float16"],
        float64=raw["float64"],
        dla=_dla(raw["dla"]) if "dla" in raw else None,
    )


def _nearest(name: str) -> str | None:
    asked = _VERSIONED.fullmatch(name)
    if not asked:
        return None
    below = [other for other in lint_target_names() if other.startswith("trt@") and _numbers(other) <= _numbers(name)]
    return max(below, key=_numbers, default=None)


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(map(int, name.removeprefix("trt@").split(".")))


def _merged(name: str) -> dict[str, Any]:
    """An entry with what it extends: lists of operators add up, and what is accepted later is no longer refused."""
    raw = dict(_document()["targets"][name])
    if "extends" not in raw:
        return raw
    base = _merged(raw["extends"])
    merged = {**base, **raw}
    accepted, refused = set(raw.get("accepted", ())), set(raw.get("refused", ()))
    merged["accepted"] = (set(base["accepted"]) | accepted) - refused
    merged["refused"] = (set(base.get("refused", ())) | refused) - accepted
    return merged


def _dla(raw: Mapping[str, Any]) -> DlaLimits:
    def limits(kind: str) -> dict[str, tuple[int, int]]:
        return {what: (raw[f"{kind}_{what}"][0], raw[f"{kind}_{what}"][1]) for what in ("kernel", "stride", "pad")}

    return DlaLimits(
        accepted=frozenset(raw["accepted"]),
        free=frozenset(raw["free"]),
        max_dim=raw["max_dim"],
        max_loadables=raw["max_loadables"],
        conv=limits("conv"),
        pool=limits("pool"),
    )


@cache
def _document() -> dict[str, Any]:
    return read_document(FILE, format=FORMAT, version=VERSION)
