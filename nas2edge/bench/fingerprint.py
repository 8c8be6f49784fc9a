"""What milliseconds were measured on: enough to say whether two results may be compared, and whether it is quiet."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nas2edge.errors import FormatError
from nas2edge.latency.machine import read_machine

_PACKAGES = ("numpy", "onnxruntime", "openvino", "ncnn", "torch")
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")
QUIET_LOAD = 0.5
"""Load a core above which a machine is not quiet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Facts that a latency depends on; "" or None where the system does not tell.

    Args:
        chip: Processor.
        board: Product.
        cores: Logical processors of the machine.
        cpus: Those that the measurement may use.
        instructions: Extensions that matter for networks.
        governor: CPU frequency governor.
        os: System and kernel.
        runtimes: Names and versions of the runtimes that ran.
        threads: Threads of a run.
        python: Version.
    """

    chip: str
    board: str
    cores: int | None
    cpus: tuple[int, ...] | None
    instructions: tuple[str, ...]
    governor: str
    os: str
    runtimes: tuple[str, ...]
    threads: int
    python: str

    def differences(self, other: Fingerprint) -> tuple[str, ...]:
        """Names the facts that differ, with both values: "cores: 2 there, 8 here" of `other` and this one."""
        found = []
        for field in fields(self):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            if ours != theirs:
                found.append(f"{field.name}: {_shown(theirs)} there, {_shown(ours)} here")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, raw: Any) -> Fingerprint:
        """Reads the JSON form.

        Raises:
            FormatError: A field is missing or unknown.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(raw, Mapping) or set(raw) != set(names):
            raise FormatError(f"a fingerprint is an object with exactly the fields {', '.join(names)}; got {raw!r}")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()
        }
        return cls(**values)


def take_fingerprint(*, runtimes: tuple[str, ...], threads: int) -> Fingerprint:
    """Reads the facts of this machine and process."""
    machine = read_machine()
    return Fingerprint(
        chip=machine.chip,
        board=machine.board,
        cores=machine.cores or os.cpu_count(),
        cpus=tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else None,
        instructions=_instructions(),
        governor=machine.governor,
        os=machine.os,
        runtimes=tuple(sorted(set(runtimes))),
        threads=threads,
        python=platform.python_version(),
    )


def conditions() -> dict[str, Any]:
    """Returns what may change from minute to minute: clock, load, and versions of packages that stand by."""
    load = load_a_core()
    return {
        "mhz": read_machine().mhz,
        "load_a_core": None if load is None else round(load, 3),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def load_a_core() -> float | None:
    """Returns the one-minute load average divided by the cores; None where the system does not tell."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (OSError, AttributeError):  # AttributeError: not on Windows
        return None


def shared_runner() -> str:
    """Returns why measured latency should not fail a build here, or "" if it may: CI runners are shared machines."""
    for name in ("CI", "GITHUB_ACTIONS", "GITLAB_CI"):
        if os.environ.get(name, "").lower() not in ("", "0", "false"):
            return f"this is a CI runner ({name} is set)"
    load = load_a_core()
    if load is not None and load > QUIET_LOAD:
        return f"the machine is busy (load {load:.2f} a core, above {QUIET_LOAD:g})"
    return ""


def _instructions() -> tuple[str, ...]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    known = set(match.group(1).split()) if match else set()
    return tuple(name for name in _INSTRUCTIONS if name in known)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value) if value not in ("", None) else "unknown"
