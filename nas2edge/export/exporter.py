"""What an export target must be able to do. A target is one final class; other packages may add theirs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

BatchRange = tuple[int, int, int]
"""Least, most common and greatest batch size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """What a target made of an ONNX file.

    Args:
        target: Name of the target.
        files: The files, all in the bundle's folder; the first is the one that a runtime loads.
        runtime: What built it and will load it, with its version.
        notes: Anything else worth keeping in the manifest.
        why_not_run: Why it cannot be run on this machine; empty if it can.
    """

    target: str
    files: tuple[Path, ...]
    runtime: str
    notes: Mapping[str, Any] = field(default_factory=dict)
    why_not_run: str = ""


class Exporter(ABC):
    """Builds an artefact from an ONNX file, and runs it where that is possible."""

    name: ClassVar[str]
    """What `--to` calls the target."""

    hashable: ClassVar[bool] = True
    """Whether building twice gives the same bytes, so that a hash of the files means something."""

    options: ClassVar[frozenset[str]] = frozenset()
    """Names of the options that the class takes when it is made, as keyword arguments of text; all can be left out."""

    on_progress: Callable[[str], None] = staticmethod(lambda said: None)
    """Called with a few words on what a long build is at; whoever wants to know sets it."""

    @abstractmethod
    def build(self, model: Path, *, batch: BatchRange) -> Artefact:
        """Builds the artefact beside the model.

        Args:
            model: An ONNX file in the bundle's folder.
            batch: Batch sizes that the artefact must take; all three are equal for a fixed batch.

        Raises:
            EngineNotBuiltError: The builder is missing or failed; says what to do.
        """

    def ask(self, model: Path) -> tuple[str, list[str]] | None:
        """Asks the target's own reader, where it is installed, what it has against an ONNX file.

        Returns:
            The reader with its version, and its complaints (none if it reads the file); None if it cannot be asked.
        """
        return None

    @abstractmethod
    def run(self, artefact: Artefact, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Runs the artefact on images (N, 3, R, R) and returns logits (N, classes); N is any number.

        A model that takes pixels, made by --with-preprocess, is given uint8 (N, R, R, 3).

        Raises:
            EngineNotBuiltError: The artefact cannot be run on this machine.
        """
