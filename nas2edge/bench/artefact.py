"""What can be timed: a file that some runtime here loads, or a bundle, of which that file is taken that runs here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas2edge.errors import InputError
from nas2edge.files import read_document
from nas2edge.runtimes.registry import RUNTIMES, check_installed, runs_here, runtime_of, suffixes_of

MANIFEST = "manifest.json"
BUNDLE_FORMAT, BUNDLE_VERSION = "nas2edge.bundle", 1
MODEL = "model.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """One network as a file, and the runtime that runs it.

    Args:
        name: As the user gave it.
        path: The file that the runtime loads.
        runtime: One of `nas2edge.runtimes.RUNTIMES`.
        shape: Of the input, where the file does not say it or leaves it open; None otherwise.
        manifest: Of the bundle that it lies in; None outside of bundles.
    """

    name: str
    path: Path
    runtime: str
    shape: tuple[int, ...] | None = None
    manifest: Mapping[str, Any] | None = None

    @property
    def sha256(self) -> str:
        """Of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


def find_artefact(name: str, *, runtime: str | None = None, shape: tuple[int, ...] | None = None) -> Artefact:
    """Finds the file to run.

    Args:
        name: Path of a file, or of a bundle's folder.
        runtime: The runtime to use; by default the first that loads the file, or for a bundle what it was made for
            if that runs here, else its ONNX file.
        shape: Of the input; needed where the file does not say it.

    Raises:
        InputError: There is no such file, or no runtime here loads it.
        FormatError: The bundle's manifest cannot be read.
        UnknownNameError: There is no such runtime.
        MissingDependencyError: The runtime's package is not installed.
    """
    path = Path(name)
    if path.is_dir():
        return _from_bundle(path, name, runtime, shape)
    if not path.is_file():
        raise InputError(f"there is no file or bundle {name}")
    if path.suffix == ".json":
        raise InputError(
            f"{name} is no network that can be timed; export it first: nas2edge export {name} --to onnx, "
            "and give the bundle's folder"
        )
    runtime = runtime or runtime_of(path)
    if path.suffix not in suffixes_of(runtime):
        raise InputError(
            f"{runtime} does not load {name}; it loads files that end in {', '.join(suffixes_of(runtime))}"
        )
    check_installed(runtime)
    return Artefact(name=name, path=path, runtime=runtime, shape=shape)


def _from_bundle(folder: Path, name: str, runtime: str | None, shape: tuple[int, ...] | None) -> Artefact:
    if not (folder / MANIFEST).is_file():
        raise InputError(f"the folder {name} is no bundle: it has no {MANIFEST}; nas2edge export makes one")
    manifest = read_document(folder / MANIFEST, format=BUNDLE_FORMAT, version=BUNDLE_VERSION)
    for path in _candidates(folder, manifest):
        chosen = runtime or _runtime_here(path)
        if chosen and path.suffix in suffixes_of(chosen):
            check_installed(chosen)
            return Artefact(name=name, path=path, runtime=chosen, shape=shape or _shape(manifest), manifest=manifest)
    raise InputError(f"the bundle {name} has no file that {runtime or 'a runtime on this machine'} loads")


def _candidates(folder: Path, manifest: Mapping[str, Any]) -> list[Path]:
    """The files of its artefacts, what the bundle was made for first, and its ONNX file last."""
    made = [
        folder / str(file)
        for entry in reversed(manifest.get("artefacts", []))
        for file in entry.get("files", [])
        if entry.get("run_here", True)
    ]
    return [path for path in dict.fromkeys([*made, folder / MODEL]) if path.is_file()]


def _runtime_here(path: Path) -> str | None:
    return next((name for name in RUNTIMES if path.suffix in suffixes_of(name) and runs_here(name)), None)


def _shape(manifest: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Batch of the usual size, at the sub-network's resolution."""
    try:
        side, batch = int(manifest["preprocess"]["resolution"]), int(manifest["batch"][1])
        last = manifest["preprocess"].get("layout") == "NHWC"
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    return (batch, side, side, 3) if last else (batch, 3, side, side)
