"""subnet.json: one sub-network, its origin, and what was predicted of it (format "nas2edge.subnet", version 1).

Only "format", "version", "space" and "subnet" are needed on input, so that a file can be written by hand. "space" is
the name of a named space, or the space itself as an object, so that a file of one's own space stands alone.

>>> file = read_subnet("subnet.json")  # doctest: +SKIP
>>> plan(file.space, file.subnet)  # doctest: +SKIP
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nas2edge._version import __version__
from nas2edge.errors import FormatError, SpaceError, SubnetError, UnknownNameError
from nas2edge.files import read_document, write_json
from nas2edge.space import SearchSpace, SubnetConfig, space_from_dict
from nas2edge.spaces import SPACES, load_space
from nas2edge.spaces.published import ALPHANET, SPACE, find_published

FORMAT, VERSION = "nas2edge.subnet", 1
PARETO_FORMAT = "nas2edge.pareto"
ENDS = ("smallest", "largest")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetFile:
    """The contents of a subnet.json.

    Args:
        space: The space that the sub-network is a member of.
        subnet: The sub-network.
        supernet: {"source": "builtin:tiny" or a path, "sha256": of the weights file}, or None without weights.
        device: Name of the latency table that it was searched for.
        constraints: Limits of the search, such as {"latency_ms": 20.0}.
        predicted: What the search said of it: latency_ms, latency_sigma_ms, latency_kind, accuracy (in percent),
            accuracy_source, macs, params.
    """

    space: SearchSpace
    subnet: SubnetConfig
    supernet: Mapping[str, str] | None = None
    device: str | None = None
    constraints: Mapping[str, float] = field(default_factory=dict)
    predicted: Mapping[str, Any] = field(default_factory=dict)


def read_subnet(path: Path) -> SubnetFile:
    """Reads a subnet.json.

    Raises:
        FormatError: The file cannot be read, does not parse, or is no subnet.json of version 1.
        SpaceError: "space" is an object that is incomplete or contradicts itself.
        SubnetError: The sub-network is not a member of the space.
        UnknownNameError: "space" names no known space.
    """
    raw = read_document(path, format=FORMAT, version=VERSION)
    missing = [name for name in ("space", "subnet") if name not in raw]
    if missing:
        raise FormatError(f"{path} lacks {' and '.join(map(repr, missing))}; a subnet.json needs space and subnet")
    space = _space(raw["space"], path)
    try:
        subnet = SubnetConfig.from_dict(raw["subnet"])
        space.validate(subnet)
    except SubnetError as err:
        raise SubnetError(f"{path}: {err}") from err
    device = raw.get("device")
    if device is not None and not isinstance(device, str):
        raise FormatError(f"{path}: 'device' is {device!r}; expected a name")
    return SubnetFile(
        space=space,
        subnet=subnet,
        supernet=_object(raw, "supernet", path),
        device=device,
        constraints=_object(raw, "constraints", path) or {},
        predicted=_object(raw, "predicted", path) or {},
    )


def find_subnet(name: str, space: SearchSpace | None = None) -> SubnetFile:
    """Returns a sub-network by name, or reads one from a file.

    Args:
        name: "smallest", "largest", a published network such as "alphanet-a3", or the path of a subnet.json.
        space: The space that it must be a member of; by default that of the name or the file, or tiny.

    Raises:
        UnknownNameError: The name is unknown, and no path of a JSON file.
        FormatError: The file cannot be read, or is no subnet.json.
        SubnetError: The sub-network is not a member of the space.
    """
    if name in ENDS:
        space = space or load_space("tiny")
        return SubnetFile(space=space, subnet=space.smallest() if name == ENDS[0] else space.largest())
    if Path(name).suffix == ".json":
        file = read_subnet(Path(name))
    else:
        known = (*ENDS, *(net.name for net in ALPHANET))
        if name not in known:
            raise UnknownNameError("sub-network", name, known, suffix=".json")
        file = SubnetFile(space=load_space(SPACE), subnet=find_published(name).subnet)
    if space is None:
        return file
    try:
        space.validate(file.subnet)
    except SubnetError as err:
        raise SubnetError(f"{name}: {err}") from err
    return replace(file, space=space)


def read_subnets(path: Path, space: SearchSpace) -> list[SubnetConfig]:
    """Reads many sub-networks, each once, in the order of the file.

    Args:
        path: A pareto.json, or a file of lines (.jsonl), each a JSON object that has a "subnet" or is one.
        space: The space that they must be members of.

    Raises:
        FormatError: The file cannot be read, does not parse, or holds no sub-network.
        SubnetError: One is not a member of the space; says where it stands.
    """
    found: dict[SubnetConfig, None] = {}
    for place, raw in _listed(path):
        try:
            subnet = SubnetConfig.from_dict(raw.get("subnet", raw) if isinstance(raw, Mapping) else raw)
            space.validate(subnet)
        except SubnetError as err:
            raise SubnetError(f"{path}, {place}: {err}") from err
        found[subnet] = None
    if not found:
        raise FormatError(f"{path} holds no sub-network; expected a pareto.json, or lines with a 'subnet' each")
    return list(found)


def _listed(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".json":
        points = read_document(path, format=PARETO_FORMAT, version=1).get("points")
        if not isinstance(points, list):
            raise FormatError(f"{path} has no list of 'points'; it is no complete pareto.json")
        yield from ((f"point {i}", point) for i, point in enumerate(points, start=1))
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise FormatError(f"cannot read {path}: {getattr(err, 'strerror', None) or err}") from err
    for i, line in enumerate(lines, start=1):
        try:
            yield f"line {i}", json.loads(line)
        except ValueError as err:
            raise FormatError(f"{path}, line {i} does not parse as JSON: {err}") from err


def write_subnet(path: Path, file: SubnetFile) -> None:
    """Writes a subnet.json in one step.

    Raises:
        InputError: The folder does not exist or cannot be written.
    """
    write_json(path, subnet_to_dict(file))


def subnet_to_dict(file: SubnetFile) -> dict[str, Any]:
    """Returns the JSON form."""
    named = file.space.name in SPACES and load_space(file.space.name) == file.space
    return {
        "format": FORMAT,
        "version": VERSION,
        "id": file.subnet.id,
        "space": file.space.name if named else file.space.to_dict(),
        "subnet": file.subnet.to_dict(),
        "supernet": dict(file.supernet) if file.supernet else None,
        "device": file.device,
        "constraints": dict(file.constraints),
        "predicted": dict(file.predicted),
        "tool": {"nas2edge": __version__},
    }


def _space(raw: Any, path: Path) -> SearchSpace:
    if not isinstance(raw, dict):
        return load_space(str(raw))
    try:
        return space_from_dict(raw)
    except SpaceError as err:
        raise SpaceError(f"{path}: {err}") from err


def _object(raw: Mapping[str, Any], name: str, path: Path) -> dict[str, Any] | None:
    value = raw.get(name)
    if value is not None and not isinstance(value, dict):
        raise FormatError(f"{path}: {name!r} is {value!r}; expected an object")
    return value
