"""The export targets by name: ours by dotted path, others by entry point (group "nas2edge.exporters").

Nothing is imported before a target is asked for.
"""

from __future__ import annotations

import importlib
from importlib.metadata import EntryPoint, entry_points

from nas2edge.errors import UnknownNameError
from nas2edge.export.exporter import Exporter

GROUP = "nas2edge.exporters"

_BUILT_IN = {
    "onnx": "nas2edge.exporters.onnx:OnnxExporter",
    "trt": "nas2edge.exporters.tensorrt:TensorRTExporter",
}


def target_names() -> tuple[str, ...]:
    """Returns the names of all targets."""
    return tuple(sorted({*_BUILT_IN, *_others()}))


def load_exporter(name: str) -> Exporter:
    """Returns a target by name; a built-in one wins over an entry point of the same name.

    Raises:
        UnknownNameError: There is no such target.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        made = getattr(importlib.import_module(module), attribute)()
    else:
        others = _others()
        if name not in others:
            raise UnknownNameError("target", name, target_names(), see="nas2edge export --help")
        made = others[name].load()()
    if not isinstance(made, Exporter):
        raise TypeError(f"export target {name!r} is a {type(made).__name__}, not an Exporter")
    return made


def _others() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
