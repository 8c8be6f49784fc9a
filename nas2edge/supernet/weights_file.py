"""The supernet's weights file, read without torch: what it is of, and its hash.

A safetensors file (never pickle) whose metadata hold, under "nas2edge", one JSON object of format "nas2edge.supernet",
version 1: the space, the class names, how images are prepared, and how it was trained. A run's folder has it as
`supernet.safetensors` beside `images.zip`, some calibration and validation images; so has "builtin:tiny".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from nas2edge.errors import CheckpointError, SpaceError, UnknownNameError
from nas2edge.space import SearchSpace, space_from_dict

FORMAT, VERSION = "nas2edge.supernet", 1
WEIGHTS_NAME, IMAGES_NAME = "supernet.safetensors", "images.zip"
BUILTIN = "builtin:"
DEFAULT_SOURCE = "builtin:tiny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """How an image becomes the network's input: RGB, divided by 255, minus mean, divided by std.

    Args:
        image_size: Side to which images are cropped before the network resizes them bicubically.
        mean: Of each channel, in [0, 1].
        std: Of each channel, in [0, 1].
    """

    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SupernetInfo:
    """What a weights file says of itself.

    Args:
        source: As the user named it: "builtin:tiny" or a path.
        path: The weights file.
        images: The zip file of calibration and validation images beside it, if there is one.
        sha256: Of the weights file.
        space: With the number of classes that it was trained for.
        classes: Class names, in the order of the logits.
        preprocess: How images are prepared.
        trained: Free-form record of the training.
    """

    source: str
    path: Path
    images: Path | None
    sha256: str
    space: SearchSpace
    classes: tuple[str, ...]
    preprocess: Preprocess
    trained: Mapping[str, Any] = field(default_factory=dict)


def supernet_info(source: str = DEFAULT_SOURCE) -> SupernetInfo:
    """Finds a weights file and reads what it says of itself.

    Args:
        source: "builtin:NAME", a run's folder, or a weights file.

    Raises:
        UnknownNameError: There is no embedded supernet of that name.
        CheckpointError: The file is missing, corrupt, or not a supernet of this version.
    """
    path = _weights_path(source)
    raw = _read_metadata(path)
    try:
        space = space_from_dict(raw["space"])
        preprocess = Preprocess(
            image_size=int(raw["preprocess"]["image_size"]),
            mean=_triple(raw["preprocess"]["mean"]),
            std=_triple(raw["preprocess"]["std"]),
        )
        classes = tuple(map(str, raw["classes"]))
    except (KeyError, TypeError, ValueError, SpaceError) as err:
        raise CheckpointError(f"{path} has incomplete metadata ({err!r}); write it again with nas2edge train") from err
    if len(classes) != space.num_classes:
        raise CheckpointError(f"{path} names {len(classes)} classes but its space has {space.num_classes}")
    images = path.with_name(IMAGES_NAME)
    return SupernetInfo(
        source=source,
        path=path,
        images=images if images.exists() else None,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        space=space,
        classes=classes,
        preprocess=preprocess,
        trained=raw.get("trained", {}),
    )


def metadata(
    space: SearchSpace, *, classes: tuple[str, ...], preprocess: Preprocess, trained: Mapping[str, Any]
) -> dict[str, str]:
    """Returns the metadata that a weights file carries."""
    value = {
        "format": FORMAT,
        "version": VERSION,
        "space": space.to_dict(),
        "classes": list(classes),
        "preprocess": asdict(preprocess),
        "trained": dict(trained),
    }
    return {"nas2edge": json.dumps(value)}


def _weights_path(source: str) -> Path:
    if source.startswith(BUILTIN):
        return _builtin_path(source.removeprefix(BUILTIN))
    path = Path(source)
    if path.is_dir():
        path = path / WEIGHTS_NAME
    if not path.is_file():
        raise CheckpointError(
            f"no supernet at {source}: {path} is not a file; give a run's folder, a .safetensors file or builtin:tiny"
        )
    return path


def _builtin_path(name: str) -> Path:
    zoo = resources.files("nas2edge.zoo")
    known = [entry.name for entry in zoo.iterdir() if entry.joinpath(WEIGHTS_NAME).is_file()]
    if name not in known:
        raise UnknownNameError("embedded supernet", name, known)
    return Path(str(zoo.joinpath(name, WEIGHTS_NAME)))


def _read_metadata(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            raw = json.loads((file.metadata() or {}).get("nas2edge", "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError) as err:
        raise CheckpointError(f"{path} is not a readable safetensors file: {err}") from err
    if raw.get("format") != FORMAT or raw.get("version") != VERSION:
        raise CheckpointError(
            f"{path} is not a supernet of nas2edge (format {raw.get('format')!r}, version {raw.get('version')!r}; "
            f"expected {FORMAT!r}, version {VERSION})"
        )
    return dict(raw)


def _triple(values: Any) -> tuple[float, float, float]:
    r, g, b = map(float, values)
    return (r, g, b)
