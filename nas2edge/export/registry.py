"""The export targets by name: ours by dotted path, others by entry point (group "nas2edge.exporters").

Nothing is imported before a target is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from nas2edge.errors import InputError, UnknownNameError
from nas2edge.export.exporter import Exporter

GROUP = "nas2edge.exporters"
_NO_OPTIONS: Mapping[str, str] = MappingProxyType({})

_BUILT_IN = {
    "ncnn": "nas2edge.exporters.ncnn:NcnnExporter",
    "onnx": "nas2edge.exporters.onnx:OnnxExporter",
    "openvino": "nas2edge.exporters.openvino:OpenVinoExporter",
    "ort": "nas2edge.exporters.ort:OrtExporter",
    "tflite": "nas2edge.exporters.tflite:TfliteExporter",
    "trt": "nas2edge.exporters.tensorrt:TensorRTExporter",
}


def target_names() -> tuple[str, ...]:
    """Returns the names of all targets."""
    return tuple(sorted({*_BUILT_IN, *_others()}))


def load_exporter(name: str, options: Mapping[str, str] = _NO_OPTIONS) -> Exporter:
    """Returns a target by name; a built-in one wins over an entry point of the same name.

    Args:
        name: One of `target_names`.
        options: What the target is made with, such as {"builder": "trtexec"}.

    Raises:
        UnknownNameError: There is no such target.
        InputError: The target takes no such option, or not with this value.
    """
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        kind = getattr(importlib.import_module(module), attribute)
    else:
        others = _others()
        if name not in others:
            raise UnknownNameError("target", name, target_names(), see="nas2edge export --help")
        kind = others[name].load()
    unknown = sorted(options.keys() - getattr(kind, "options", frozenset()))
    if unknown:
        raise InputError(f"the target {name!r} takes no {unknown[0].replace('_', '-')}; leave it out")
    made = kind(**options)
    if not isinstance(made, Exporter):
        raise TypeError(f"export target {name!r} is a {type(made).__name__}, not an Exporter")
    return made


def _others() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
