"""Profiles of devices without Python: packs, results that come back, and both by ssh."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from nas2edge.cli._progress import pass_progress
from nas2edge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nas2edge.latency.measure import Request
    from nas2edge.latency.pack import Convert
    from nas2edge.latency.table import LatencyTable
    from nas2edge.latency.tools import Tool
    from nas2edge.space import SearchSpace

_TOOLS = {
    "tensorrt": "trtexec",
    "tflite": "benchmark_model",
    "ncnn": "benchncnn",
    "openvino": "benchmark_app",
}


def tool_of(runtime: str) -> Tool:
    """Returns the benchmark tool of a runtime.

    Raises:
        InputError: None of its tools is known here.
    """
    from nas2edge.latency.tools import TOOLS

    if runtime not in _TOOLS:
        raise InputError(f"no benchmark tool of {runtime} is known here; --pack knows {', '.join(_TOOLS)}")
    return TOOLS[_TOOLS[runtime]]


def write(
    path: Path, request: Request, *, runtime: str, precision: str, threads: int | None, batch: int, seconds: float
) -> int:
    """Writes a pack with a progress bar; returns how many models it holds.

    Raises:
        InputError: The tool cannot measure so, or the file cannot be written.
        MissingDependencyError: TFLite models need a converter that is not installed.
    """
    from nas2edge.cli._int8 import int8_graph
    from nas2edge.latency.pack import write_pack

    tool = tool_of(runtime)
    with pass_progress() as progress:
        return write_pack(path, request, tool=tool, precision=precision, threads=threads, batch=batch, seconds=seconds,
                          quantise=int8_graph, convert=_tflite() if tool.suffix == ".tflite" else None,
                          progress=progress)  # fmt: skip


def read(
    path: Path, spaces: Sequence[SearchSpace] | None, *, name: str, date: str
) -> tuple[LatencyTable, dict[str, str]]:
    """Returns the table of results, and what failed; spaces are those that the pack names, if None.

    Raises:
        FormatError: The file is no results, or of other spaces.
        UnknownNameError: A space that the pack names is not known by that name; give its file.
    """
    from nas2edge.latency.ingest import ingest, read_manifest
    from nas2edge.spaces import load_space

    if spaces is None:
        spaces = [load_space(entry["name"]) for entry in read_manifest(path)["spaces"]]
    found = ingest(path, spaces, name=name, date=date)
    return found.table, dict(found.failed)


def by_ssh(host: str, pack: Path) -> Path:
    """Runs a pack there; returns the results' file beside the pack.

    Raises:
        RuntimeFailedError: The machine cannot be reached with a key, or the script failed there.
    """
    from nas2edge.latency.remote import measure_by_ssh

    results = pack.with_name(pack.name.removesuffix(".tar.gz") + f".{_digest(host)}.results.tar.gz")
    measure_by_ssh(host, pack, results)
    return results


def _digest(text: str) -> str:
    return hashlib.sha256(json.dumps(text).encode()).hexdigest()[:8]


def _tflite() -> Convert:
    import subprocess
    import sys
    from collections.abc import Mapping
    from tempfile import TemporaryDirectory

    from nas2edge.optional import require

    require("litert_torch", "torch", extra="tflite", purpose="converting blocks to TFLite")
    program = (
        "import sys; from pathlib import Path; from nas2edge.exporters._litert_convert import main\n"
        "for path in sorted(Path(sys.argv[1]).glob('*.onnx')): main(str(path), str(path.with_suffix('.tflite')))"
    )

    def convert(models: Mapping[str, bytes]) -> Mapping[str, bytes]:
        with TemporaryDirectory(prefix="nas2edge-") as name:
            folder = Path(name)
            for model, content in models.items():
                (folder / f"{model}.onnx").write_bytes(content)
            done = subprocess.run([sys.executable, "-c", program, name], capture_output=True, text=True, check=False)
            if done.returncode:
                said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
                raise InputError(f"the converter to TFLite failed: {said}")
            return {model: (folder / f"{model}.tflite").read_bytes() for model in models}

    return convert
