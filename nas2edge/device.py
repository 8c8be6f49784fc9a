"""What a latency was measured on: board, chip, runtime, precision, clocks. Without these a millisecond means little.

>>> Device(name="cpu", chip="AMD EPYC", runtime="onnxruntime", precision="fp32", threads=1).label
'AMD EPYC, onnxruntime, fp32, 1 thread'
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from nas2edge.errors import FormatError

_PRECISION_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One board with one runtime in one mode. A text that is "" and a number that is None are not known.

    Args:
        name: What `--device` calls it; the name of its table's file.
        chip: Processor that computes, such as "Orin (1024 Ampere cores)".
        runtime: Software that executes the network, such as "TensorRT".
        precision: "fp32", "fp16", "bf16" or "int8".
        board: Product that carries the chip.
        runtime_version: Its exact version.
        batch: Images in a run.
        threads: CPU threads that compute.
        power_mode: Power mode (nvpmodel) or CPU governor.
        clocks: Clock rates as read, in words.
        memory: Main memory, in words.
        os: Operating system and kernel, or the JetPack release.

    Raises:
        FormatError: The name is empty, the precision unknown, or a number is below 1.
    """

    name: str
    chip: str
    runtime: str
    precision: str
    board: str = ""
    runtime_version: str = ""
    batch: int = 1
    threads: int | None = None
    power_mode: str = ""
    clocks: str = ""
    memory: str = ""
    os: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise FormatError("the device has no name; set name to what --device should call it")
        if self.precision not in _PRECISION_BYTES:
            raise FormatError(f"precision is {self.precision!r}; expected one of {', '.join(_PRECISION_BYTES)}")
        for field, value in (("batch", self.batch), ("threads", self.threads)):
            if value is not None and value < 1:
                raise FormatError(f"{field} is {value}; expected 1 or more")

    @property
    def value_bytes(self) -> int:
        """Bytes of one weight or activation value."""
        return _PRECISION_BYTES[self.precision]

    @property
    def label(self) -> str:
        """The device in one line."""
        runtime = f"{self.runtime} {self.runtime_version}".strip()
        threads = "" if self.threads is None else f"{self.threads} thread" + "s" * (self.threads != 1)
        return ", ".join(part for part in (self.board, self.chip, runtime, self.precision, threads) if part)

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Any) -> Device:
        """Reads the JSON form.

        Raises:
            FormatError: A field is missing, unknown or of the wrong type.
        """
        if not isinstance(raw, Mapping):
            raise FormatError(f"a device is an object with name, chip, runtime and precision; got {raw!r}")
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(raw) - set(known))
        missing = [name for name in ("name", "chip", "runtime", "precision") if name not in raw]
        if unknown or missing:
            raise FormatError(f"a device has the fields {', '.join(known)}; missing: {missing}, unknown: {unknown}")
        for name, value in raw.items():
            numeric = name in ("batch", "threads")
            optional = name == "threads" and value is None
            if not optional and (isinstance(value, bool) or not isinstance(value, int if numeric else str)):
                raise FormatError(f"device.{name} is {value!r}; expected {'a whole number' if numeric else 'a text'}")
        return cls(**raw)
