"""What this machine says of itself: processor, caches, clocks, governor, memory, system. Unknown stays unknown.

>>> read_machine().chip
'AMD EPYC'
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Facts read from the system; "" or None where it does not tell.

    Args:
        board: Product name.
        chip: Processor name.
        cores: Logical processors.
        governor: CPU frequency governor.
        mhz: Clock of the first processor when it was read.
        cache_mb: Last-level cache in 1e6 bytes.
        memory: Main memory in words.
        os: Operating system and kernel.
    """

    board: str
    chip: str
    cores: int | None
    governor: str
    mhz: float | None
    cache_mb: float | None
    memory: str
    os: str


def read_machine(root: Path = Path("/")) -> Machine:
    """Reads the machine's facts from /proc and /sys.

    Args:
        root: Where /proc, /sys and /etc lie; another folder in tests.
    """
    cpuinfo = _read(root / "proc/cpuinfo")
    cpu0 = root / "sys/devices/system/cpu/cpu0"
    memory_kb = _field(_read(root / "proc/meminfo"), "MemTotal").removesuffix("kB").strip()
    pretty = _field(_read(root / "etc/os-release"), "PRETTY_NAME", sign="=").strip('"')
    board = _read(root / "sys/firmware/devicetree/base/model") or _read(root / "sys/class/dmi/id/product_name")
    mhz = _field(cpuinfo, "cpu MHz")
    return Machine(
        board=board,
        chip=_field(cpuinfo, "model name") or platform.processor() or platform.machine(),
        cores=len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or None,
        governor=_read(cpu0 / "cpufreq/scaling_governor"),
        mhz=float(mhz) if re.fullmatch(r"[0-9.]+", mhz) else None,
        cache_mb=_last_level_mb(cpu0 / "cache"),
        memory=f"{int(memory_kb) / 1e6:.3g} GB" if memory_kb.isdigit() else "",
        os=", ".join(part for part in (pretty, f"{platform.system()} {platform.release()}") if part),
    )


def _last_level_mb(folder: Path) -> float | None:
    sizes: dict[int, float] = {}
    for index in sorted(folder.glob("index*")):
        level, size = _read(index / "level"), re.fullmatch(r"(\d+)K", _read(index / "size"))
        if level.isdigit() and size and _read(index / "type") != "Instruction":
            sizes[int(level)] = int(size.group(1)) * 1024 / 1e6
    return sizes[max(sizes)] if sizes else None


def _field(text: str, name: str, *, sign: str = ":") -> str:
    match = re.search(rf"^{name}\s*{sign}\s*(.*)$", text, re.MULTILINE)
    return match.group(1).strip() if match else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""
