"""Runtimes that execute networks on this machine, behind one small interface.

Measuring, checking and comparing share it. Each runtime is a module of its own, imported when it is asked for: a device
needs only the one that it uses.

>>> with open_session(Path("model.onnx"), runtime="openvino") as session:  # doctest: +SKIP
...     logits = session.run(images)
"""

from __future__ import annotations

import sys

from nas2edge.runtimes.registry import RUNTIMES, open_session, runtime_of
from nas2edge.runtimes.session import Session, Tensor, run_all

__all__ = ["RUNTIMES", "Session", "Tensor", "open_session", "run_all", "runtime_of"]

# `import openvino` reports itself to its maker over the network, from a process that it forks on the way, wherever this
# package of its own can be imported; it does without.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
