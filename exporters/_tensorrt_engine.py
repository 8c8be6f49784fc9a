"""What all ways to a TensorRT engine share: what was built, and where timings are kept."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas2edge.runtimes.gpu import Gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An engine that was built.

    Args:
        runtime: What built it and will load it, such as "TensorRT 10.3.0".
        compute_capabilities: Of the GPUs that it is for.
        gpu: Name of the GPU that it was built on; empty if on none.
        platform: Of the machine that it is for.
        strongly_typed: Whether its layers have the precisions of the ONNX file, by the rules of the builder.
        why_not_run: Why it cannot be run from here; empty if it can.
        details: Anything else for the engine's description.
    """

    runtime: str
    compute_capabilities: tuple[str, ...]
    gpu: str
    platform: str
    strongly_typed: bool
    why_not_run: str
    details: Mapping[str, Any] = field(default_factory=dict)


def this_platform() -> str:
    """Returns the operating system and processor, such as "Linux aarch64"."""
    return f"{platform.system()} {platform.machine()}"


def default_timing_cache(version: str, gpu: Gpu) -> Path:
    """Returns where a user's kernel timings are kept: they hold for one version of TensorRT and one kind of GPU."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"tensorrt-{version}-sm{gpu.compute_capability}-{gpu.name}").strip("-")
    return _cache_folder() / f"{name}.timing"


def _cache_folder() -> Path:
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "nas2edge"
