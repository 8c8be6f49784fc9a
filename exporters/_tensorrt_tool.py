"""Engines by trtexec, the command line tool that comes with TensorRT on every Jetson; on this machine or over ssh.

Its options changed between versions, so it is asked which it has. Formats of what it prints: NVIDIA/TensorRT,
samples/common and samples/trtexec, releases 8.2 to 11.1.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from nas2edge.errors import EngineNotBuiltError, FormatError, RuntimeFailedError
from nas2edge.export.exporter import BatchRange

from ._common import precision_of
from ._tensorrt_engine import Built
from ._tensorrt_hosts import Host

Array = npt.NDArray[np.float32]

_PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")
_VERSION = re.compile(r"\[TensorRT v(\d+)\]")
_LINE = re.compile(r"^\[[^\]]*\] \[([A-Z])\] ?(.*)$")
_EMPTY = ("Failed to parse onnx file", "Parsing model failed", "Engine could not be created from network",
          "Building engine failed", "Failed to create engine from model", "Engine set up failed",
          "Engine could not be created", "Inference set up failed")  # fmt: skip
"""What trtexec says after it has said what is wrong."""
_FACTS = {"gpu": "Selected Device", "compute_capability": "Compute Capability", "version": "TensorRT version"}
_SYSTEM = "; ".join(
    (
        "uname -sm",
        "(tr -d '\\0' < /proc/device-tree/model && echo) 2>/dev/null",
        "head -n 1 /etc/nv_tegra_release 2>/dev/null",
        "nvpmodel -q 2>/dev/null | head -n 1",
        "true",
    )
)
"""What a machine is asked about itself: system and processor, board, release of its software, power mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trtexec:
    """The tool as it was found.

    Args:
        host: Where.
        path: There.
        version: Of TensorRT, such as (8, 5, 2).
        options: Those that it knows, such as "--skipInference".
    """

    host: Host
    path: str
    version: tuple[int, int, int]
    options: frozenset[str]

    @property
    def dotted(self) -> str:
        """Returns the version as text."""
        return ".".join(map(str, self.version))


def find_trtexec(host: Host) -> Trtexec | None:
    """Returns a machine's trtexec, or None if it has none.

    Raises:
        EngineNotBuiltError: The machine cannot be reached, or what was found is no trtexec.
    """
    places = " ".join(_PLACES)
    code, said = host.shell(f'command -v trtexec || for p in {places}; do [ -x "$p" ] && echo "$p" && break; done')
    path = said.strip().splitlines()[0] if said.strip() else ""
    if not path:
        return None
    code, said = host.run([path, "--help"])
    version = _VERSION.search(said)
    if code or not version:
        raise EngineNotBuiltError(f"{path} on {host.name} is no trtexec, or does not run: {_last(said)}")
    return Trtexec(
        host=host,
        path=path,
        version=read_version(version.group(1)),
        options=frozenset(re.findall(r"--[A-Za-z][A-Za-z0-9]*", said)),
    )


def read_version(number: str) -> tuple[int, int, int]:
    """Reads the version in a banner: 8502 is 8.5.2 and, from 10 on, 100300 is 10.3.0."""
    value = int(number)
    base = 10_000 if value >= 100_000 else 1_000
    return value // base, value % base // 100, value % 100


def build_arguments(
    tool: Trtexec, model: onnx.ModelProto, *, batch: BatchRange, onnx_file: str, engine: str, timing_cache: str
) -> list[str]:
    """Returns trtexec's arguments for a version: whatever it does not know is left out or said in its older way.

    Args:
        tool: With its version's options.
        model: The ONNX model.
        batch: Batch sizes that the engine must take.
        onnx_file: Path there.
        engine: Path there.
        timing_cache: Path there; empty for none.
    """
    arguments = [f"--onnx={onnx_file}", f"--saveEngine={engine}"]
    only_build = next((option for option in ("--skipInference", "--buildOnly") if option in tool.options), "")
    arguments += [only_build] if only_build else []
    if "--noTF32" in tool.options:
        arguments.append("--noTF32")  # float32 means float32
    if "--stronglyTyped" in tool.options:
        arguments.append("--stronglyTyped")
    else:
        wanted = {"float16": ["--fp16"], "int8": ["--int8", "--fp16"]}.get(precision_of(model), [])
        arguments += [option for option in wanted if option in tool.options]
    if batch[0] != batch[2]:
        name, shape = _input(model)
        for which, n in zip(("min", "opt", "max"), batch, strict=True):
            arguments.append(f"--{which}Shapes={name}:{'x'.join(map(str, (n, *shape[1:])))}")
    if timing_cache and "--timingCacheFile" in tool.options:
        arguments.append(f"--timingCacheFile={timing_cache}")
    return arguments


def build_by_tool(
    tool: Trtexec,
    model: Path,
    engine: Path,
    *,
    batch: BatchRange,
    timing_cache: Path | None,
    on_progress: Callable[[str], None],
) -> Built:
    """Builds an engine by trtexec, and brings it here if it was built elsewhere.

    Args:
        tool: From `find_trtexec`.
        model: The ONNX file.
        engine: Where to write the engine.
        batch: Batch sizes that it must take.
        timing_cache: File here of kernel timings to read and extend; None for that of the user who builds, there.
        on_progress: Told what trtexec says.

    Raises:
        EngineNotBuiltError: The machine cannot be reached, or trtexec builds no engine; says what trtexec said.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    host, graph = tool.host, onnx.load(model)
    with host.folder() as folder:
        on_progress(f"copies the network to {host.name}")
        host.put(model, f"{folder}/model.onnx")
        cache = _prepare_cache(tool, folder, timing_cache)
        arguments = build_arguments(
            tool,
            graph,
            batch=batch,
            onnx_file=f"{folder}/model.onnx",
            engine=f"{folder}/model.engine",
            timing_cache=cache,
        )
        code, said = host.run([tool.path, *arguments], lambda line: on_progress(_message(line)))
        if code or "&&&& PASSED" not in said:
            raise EngineNotBuiltError(
                f"trtexec of TensorRT {tool.dotted} on {host.name} built no engine: {failure(said, code)}"
            )
        host.get(f"{folder}/model.engine", engine)
        if timing_cache and cache:
            host.get(cache, timing_cache)
    facts = read_facts(said)
    system = [line.strip() for line in host.shell(_SYSTEM)[1].splitlines() if line.strip()]
    shown = [argument.replace(f"{folder}/", "") for argument in arguments if "timingCache" not in argument]
    return Built(
        runtime=f"TensorRT {facts.get('version', tool.dotted)}",
        compute_capabilities=(facts.get("compute_capability", "unknown"),),
        gpu=facts.get("gpu", ""),
        platform=system[0] if system else "unknown",
        strongly_typed="--stronglyTyped" in arguments,
        why_not_run="",
        details={"command": shlex.join(["trtexec", *shown]), "device": system[1:], "timing_cache": Path(cache).name},
    )


def run_by_tool(
    tool: Trtexec, engine: Path, model: Path, images: Array, on_progress: Callable[[str], None] = lambda said: None
) -> Array:
    """Runs an engine by trtexec, one batch a call, and returns logits (N, classes).

    Args:
        tool: On a machine with the GPU that the engine was built for.
        engine: The engine.
        model: The ONNX file that it was built from: its input names the tensor and the batch size.
        images: (N, 3, R, R); the last is repeated where a fixed batch size wants more.
        on_progress: Told how many images are done.

    Raises:
        EngineNotBuiltError: The machine cannot be reached.
        RuntimeFailedError: trtexec fails, or writes no outputs.
    """
    name, shape = _input(onnx.load(model, load_external_data=False))
    size = shape[0] or len(images)
    outputs = []
    with tool.host.folder() as folder:
        tool.host.put(engine, f"{folder}/model.engine")
        for i in range(0, len(images), size):
            part = images[i : i + size]
            padded = np.concatenate([part, np.repeat(images[-1:], size - len(part), axis=0)]) if shape[0] else part
            on_progress(f"runs image {i + 1} of {len(images)} on {tool.host.name}")
            outputs.append(_run_once(tool, folder, engine.parent, name, padded, fixed=bool(shape[0])))
    return np.concatenate(outputs)[: len(images)]


def failure(said: str, code: int) -> str:
    """Returns what trtexec complained of, most telling first: its first errors, without those that only follow."""
    errors: list[str] = []
    follows = False
    for line in map(str.strip, said.splitlines()):
        found = _LINE.match(line)
        if found:
            text = found.group(2).strip()
            follows = found.group(1) in "EF" and bool(text) and not text.startswith(_EMPTY) and "node ---" not in text
            errors += [text] if follows and text not in errors else []
        elif follows and line:
            errors[-1] += f" {line}"  # an error of several lines has its level in the first
    if errors:
        return "; ".join(errors[:3])
    if code in (137, -9):
        return "it was killed, most likely for want of memory; close other programs, or add swap"
    return f"it ended with code {code}: {_last(said)}"


def read_facts(said: str) -> dict[str, str]:
    """Reads "gpu", "compute_capability" and "version" from what trtexec prints, as far as they are there."""
    facts = {}
    for line in said.splitlines():
        found = _LINE.match(line.strip())
        for name, label in _FACTS.items():
            if found and found.group(2).startswith(f"{label}: "):
                facts[name] = found.group(2).removeprefix(f"{label}: ").strip()
    return facts


def read_outputs(text: str) -> Array:
    """Reads what `--exportOutput` writes: a list of {"name", "dimensions": "1x10", "values"}.

    Raises:
        FormatError: It is something else, or there is more than one output.
    """
    try:
        (found,) = json.loads(text)
        shape = [int(n) for n in re.findall(r"\d+", str(found["dimensions"]))]
        return np.array(found["values"], np.float32).reshape(shape)
    except (ValueError, KeyError, TypeError) as err:
        raise FormatError(f"what trtexec exports does not read ({err}); expected one output with its values") from err


def _run_once(tool: Trtexec, folder: str, here: Path, name: str, images: Array, *, fixed: bool) -> Array:
    given, found = here / ".images.bin", here / ".outputs.json"
    try:
        given.write_bytes(np.ascontiguousarray(images, np.float32).tobytes())
        tool.host.put(given, f"{folder}/images.bin")
        arguments = [
            f"--loadEngine={folder}/model.engine",
            f"--loadInputs={name}:{folder}/images.bin",
            f"--exportOutput={folder}/outputs.json",
            "--iterations=1",
            "--warmUp=0",
            "--duration=0",
        ]
        arguments += [] if fixed else [f"--shapes={name}:{'x'.join(map(str, images.shape))}"]
        code, said = tool.host.run([tool.path, *arguments])
        if code:
            raise RuntimeFailedError(f"trtexec on {tool.host.name} does not run the engine: {failure(said, code)}")
        tool.host.get(f"{folder}/outputs.json", found)
        return read_outputs(found.read_text())
    finally:
        given.unlink(missing_ok=True)
        found.unlink(missing_ok=True)


def _prepare_cache(tool: Trtexec, folder: str, timing_cache: Path | None) -> str:
    """Returns the path there of the timings to use: a copy of the file that was given, or the user's own."""
    if timing_cache:
        there = f"{folder}/given.timing"
        if timing_cache.exists():
            tool.host.put(timing_cache, there)
        return there
    name = shlex.quote(f"tensorrt-{tool.dotted}.timing")
    code, said = tool.host.shell(f'd="${{XDG_CACHE_HOME:-$HOME/.cache}}/nas2edge" && mkdir -p "$d" && echo "$d"/{name}')
    return said.strip() if not code else ""


def _input(model: onnx.ModelProto) -> tuple[str, tuple[int, ...]]:
    """Returns the name and shape of the input; 0 for a batch size that is left open."""
    source = model.graph.input[0]
    return source.name, tuple(dim.dim_value for dim in source.type.tensor_type.shape.dim)


def _message(line: str) -> str:
    found = _LINE.match(line.strip())
    return (found.group(2) if found else line).removeprefix("[TRT] ").strip()[:100]


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"
