"""Search spaces and their members.

A `SearchSpace` says which values each choice of a network may take; a `SubnetConfig` is one member. Populations are
integer matrices, one row a sub-network and one column a gene, so that millions of candidates cost no Python objects:

>>> space = load_space("tiny")  # from nas2edge.spaces
>>> rng = np.random.default_rng(0)
>>> codes = space.sample(100, rng)
>>> children = space.mutate(codes, rng, rate=0.1)
>>> subnet = space.decode(children)[0]

Choices are made per *stage*: its blocks share width, kernel size and expansion ratio (AttentiveNAS, Table 7).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from nas2edge.errors import SpaceError, SubnetError

Codes = npt.NDArray[np.int64]
"""A population: shape (n, genes), the index of the chosen value in each gene's choices."""

FORMAT, VERSION = "nas2edge.space", 1
ACTIVATIONS = ("swish", "relu")
CHANNEL_DIVISOR = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSpace:
    """The choices of one stage of inverted-bottleneck (MBConv) blocks.

    Args:
        width: Output channels, each a multiple of 8.
        depth: Number of blocks.
        kernel_size: Side of the depthwise kernel, odd.
        expand_ratio: Middle channels as a multiple of the block's input channels; 1 leaves the expansion conv out.
        stride: Stride of the stage's first block, 1 or 2.
        se: Whether the blocks carry squeeze-and-excitation.
    """

    width: tuple[int, ...]
    depth: tuple[int, ...]
    kernel_size: tuple[int, ...]
    expand_ratio: tuple[int, ...]
    stride: int
    se: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetConfig:
    """One sub-network: what was chosen for each gene. Hashable; equality is meaning.

    Args:
        resolution: Side of the square input, in pixels.
        width: Channels of the stem, of every stage, and of the head: stages + 2 entries.
        depth: Blocks of every stage.
        kernel_size: Depthwise kernel side of every stage.
        expand_ratio: Expansion ratio of every stage.
    """

    resolution: int
    width: tuple[int, ...]
    depth: tuple[int, ...]
    kernel_size: tuple[int, ...]
    expand_ratio: tuple[int, ...]

    @property
    def id(self) -> str:
        """First twelve hex digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(_canonical_json(self.to_dict()).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form, as it stands under "subnet" in subnet.json."""
        return {
            "resolution": self.resolution,
            "width": list(self.width),
            "depth": list(self.depth),
            "kernel_size": list(self.kernel_size),
            "expand_ratio": list(self.expand_ratio),
        }

    @classmethod
    def from_dict(cls, raw: Any) -> SubnetConfig:
        """Reads the JSON form.

        Raises:
            SubnetError: A field is missing, unknown, or no whole number.
        """
        fields = ("resolution", "width", "depth", "kernel_size", "expand_ratio")
        if not isinstance(raw, Mapping):
            raise SubnetError(f"a sub-network is an object with {', '.join(fields)}; got {raw!r}")
        unknown, missing = sorted(set(raw) - set(fields)), [name for name in fields if name not in raw]
        if unknown or missing:
            raise SubnetError(
                f"a sub-network has the fields {', '.join(fields)}; missing: {missing}, unknown: {unknown}"
            )
        values = {name: _ints(raw[name], where=f"sub-network field {name!r}", error=SubnetError) for name in fields[1:]}
        (resolution,) = _ints([raw["resolution"]], where="sub-network field 'resolution'", error=SubnetError)
        return cls(resolution=resolution, **values)


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """All choices of a network family: a stem, stages of MBConv blocks, and an MBPool head.

    Args:
        name: What `--space` calls it.
        image_size: Side to which the data pipeline crops images; the network itself resizes to the resolution.
        resolution: Sides that a sub-network's input may have.
        num_classes: Outputs of the classifier.
        stem_width: Output channels of the stem convolution.
        stages: The stages in order.
        head_width: Channels of the head's last convolution, before the classifier.
        head_expand_ratio: Channels of the head's first convolution as a multiple of its input.
        stem_kernel_size: Side of the stem's kernel.
        stem_stride: Stride of the stem, 1 or 2.
        act: Activation everywhere but inside squeeze-and-excitation: "swish" or "relu".

    Raises:
        SpaceError: A field is empty, out of range or contradicts another.
    """

    name: str
    image_size: int
    resolution: tuple[int, ...]
    num_classes: int
    stem_width: tuple[int, ...]
    stages: tuple[StageSpace, ...]
    head_width: tuple[int, ...]
    head_expand_ratio: int
    stem_kernel_size: int = 3
    stem_stride: int = 2
    act: str = "swish"

    def __post_init__(self) -> None:
        _check_space(self)

    @cached_property
    def genes(self) -> tuple[str, ...]:
        """Names of the columns of a population, such as "resolution" and "depth.2"."""
        names = ["resolution"] + [f"width.{i}" for i in range(len(self.stages) + 2)]
        for field in ("depth", "kernel_size", "expand_ratio"):
            names += [f"{field}.{i}" for i in range(len(self.stages))]
        return tuple(names)

    @cached_property
    def choices(self) -> tuple[tuple[int, ...], ...]:
        """The values of each gene, ascending, in the order of `genes`."""
        stages = self.stages
        widths = (self.stem_width, *(stage.width for stage in stages), self.head_width)
        return (
            self.resolution,
            *widths,
            *(stage.depth for stage in stages),
            *(stage.kernel_size for stage in stages),
            *(stage.expand_ratio for stage in stages),
        )

    @cached_property
    def cardinalities(self) -> Codes:
        """Number of choices of each gene: shape (genes,)."""
        return np.array([len(values) for values in self.choices], dtype=np.int64)

    @property
    def size(self) -> int:
        """Number of distinct sub-networks."""
        return math.prod(len(values) for values in self.choices)

    def smallest(self) -> SubnetConfig:
        """Returns the member with the least value of every gene."""
        return self._from_values([values[0] for values in self.choices])

    def largest(self) -> SubnetConfig:
        """Returns the member with the greatest value of every gene."""
        return self._from_values([values[-1] for values in self.choices])

    def sample(self, n: int, rng: np.random.Generator) -> Codes:
        """Draws n members, every gene uniform and independent: shape (n, genes)."""
        return rng.integers(0, self.cardinalities, size=(n, len(self.genes)), dtype=np.int64)

    def mutate(self, codes: Codes, rng: np.random.Generator, *, rate: float) -> Codes:
        """Changes each gene with probability `rate`, always to a different value; returns a new (n, genes) matrix."""
        changed = (rng.random(codes.shape, dtype=np.float32) < rate) & (self.cardinalities > 1)
        rows, columns = np.nonzero(changed)
        choices = self.cardinalities[columns]
        mutated = codes.copy()
        mutated[rows, columns] = (codes[rows, columns] + rng.integers(1, choices, dtype=np.int64)) % choices
        return mutated

    def crossover(self, a: Codes, b: Codes, rng: np.random.Generator) -> Codes:
        """Takes each gene from one of two parents with equal probability; all shapes (n, genes)."""
        return np.where(rng.integers(0, 2, size=a.shape, dtype=np.bool_), a, b)

    def encode(self, subnets: Iterable[SubnetConfig]) -> Codes:
        """Returns the matrix of the given members: shape (n, genes).

        Raises:
            SubnetError: A sub-network is not a member of this space.
        """
        rows = [self._row(subnet) for subnet in subnets]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(self.genes))

    def decode(self, codes: Codes) -> list[SubnetConfig]:
        """Returns the members of a matrix: the inverse of `encode`."""
        return [
            self._from_values([values[i] for values, i in zip(self.choices, row, strict=True)])
            for row in codes.tolist()
        ]

    def validate(self, subnet: SubnetConfig) -> None:
        """Checks that a sub-network is a member.

        Raises:
            SubnetError: Names each gene outside the space, and what it may be.
        """
        self._row(subnet)

    def only(self, subnet: SubnetConfig) -> SearchSpace:
        """Returns the space that has this member and no other.

        Raises:
            SubnetError: The sub-network is not a member of this space.
        """
        self.validate(subnet)
        chosen = zip(
            self.stages, subnet.width[1:-1], subnet.depth, subnet.kernel_size, subnet.expand_ratio, strict=True
        )
        return replace(
            self,
            name=f"{self.name}-{subnet.id}",
            resolution=(subnet.resolution,),
            stem_width=subnet.width[:1],
            stages=tuple(
                replace(stage, width=(width,), depth=(depth,), kernel_size=(kernel,), expand_ratio=(ratio,))
                for stage, width, depth, kernel, ratio in chosen
            ),
            head_width=subnet.width[-1:],
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON or TOML form, the inverse of `space_from_dict`."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "image_size": self.image_size,
            "resolution": list(self.resolution),
            "num_classes": self.num_classes,
            "act": self.act,
            "stem": {
                "width": list(self.stem_width),
                "kernel_size": self.stem_kernel_size,
                "stride": self.stem_stride,
            },
            "stage": [
                {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(stage).items()}
                for stage in self.stages
            ],
            "head": {"width": list(self.head_width), "expand_ratio": self.head_expand_ratio},
        }

    @property
    def digest(self) -> str:
        """First twelve hex digits of the SHA-256 of the canonical JSON: equal spaces have equal digests."""
        return hashlib.sha256(_canonical_json(self.to_dict()).encode()).hexdigest()[:12]

    def _values(self, subnet: SubnetConfig) -> tuple[int, ...]:
        return (subnet.resolution, *subnet.width, *subnet.depth, *subnet.kernel_size, *subnet.expand_ratio)

    def _row(self, subnet: SubnetConfig) -> list[int]:
        n = len(self.stages)
        lengths = {"width": n + 2, "depth": n, "kernel_size": n, "expand_ratio": n}
        for field, expected in lengths.items():
            got = len(getattr(subnet, field))
            if got != expected:
                raise SubnetError(f"{field} has {got} entries; space {self.name!r} has {expected}")
        row, problems = [], []
        for gene, values, value in zip(self.genes, self.choices, self._values(subnet), strict=True):
            if value in values:
                row.append(values.index(value))
            else:
                problems.append(f"{gene} is {value}, expected one of {', '.join(map(str, values))}")
        if problems:
            raise SubnetError(f"the sub-network is outside the space {self.name!r}: " + "; ".join(problems))
        return row

    def _from_values(self, values: Sequence[int]) -> SubnetConfig:
        n = len(self.stages)
        ends = np.cumsum([1, n + 2, n, n]).tolist()
        return SubnetConfig(
            resolution=values[0],
            width=tuple(values[ends[0] : ends[1]]),
            depth=tuple(values[ends[1] : ends[2]]),
            kernel_size=tuple(values[ends[2] : ends[3]]),
            expand_ratio=tuple(values[ends[3] :]),
        )


_SPACE_FIELDS = ("name", "image_size", "resolution", "num_classes", "stem", "stage", "head")
_STAGE_FIELDS = ("width", "depth", "kernel_size", "expand_ratio", "stride", "se")


def space_from_dict(raw: Mapping[str, Any]) -> SearchSpace:
    """Builds a space from its JSON or TOML form (docs/spaces.md shows one).

    Raises:
        SpaceError: A field is missing, unknown, of the wrong type or out of range.
    """
    _check_fields(raw, required=_SPACE_FIELDS, optional=("format", "version", "act"), where="the space")
    if raw.get("format", FORMAT) != FORMAT:
        raise SpaceError(f"format is {raw['format']!r}; expected {FORMAT!r}")
    if raw.get("version", VERSION) != VERSION:
        raise SpaceError(f"version is {raw['version']!r}; this nas2edge reads version {VERSION} of {FORMAT}")
    if not isinstance(raw["name"], str):
        raise SpaceError(f"name is {raw['name']!r}; expected text")
    stem, head, stages = raw["stem"], raw["head"], raw["stage"]
    if not isinstance(stages, list):
        raise SpaceError(f"'stage' is a list of tables ([[stage]] in TOML); got {stages!r}")
    _check_fields(stem, required=("width",), optional=("kernel_size", "stride"), where="[stem]")
    _check_fields(head, required=("width", "expand_ratio"), where="[head]")
    return SearchSpace(
        name=raw["name"],
        image_size=_int(raw["image_size"], where="image_size"),
        resolution=_ints(raw["resolution"], where="resolution"),
        num_classes=_int(raw["num_classes"], where="num_classes"),
        act=str(raw.get("act", "swish")),
        stem_width=_ints(stem["width"], where="stem.width"),
        stem_kernel_size=_int(stem.get("kernel_size", 3), where="stem.kernel_size"),
        stem_stride=_int(stem.get("stride", 2), where="stem.stride"),
        stages=tuple(_stage_from_dict(stage, i) for i, stage in enumerate(stages)),
        head_width=_ints(head["width"], where="head.width"),
        head_expand_ratio=_int(head["expand_ratio"], where="head.expand_ratio"),
    )


def _stage_from_dict(raw: Any, index: int) -> StageSpace:
    where = f"stage {index}"
    _check_fields(raw, required=_STAGE_FIELDS, where=where)
    if not isinstance(raw["se"], bool):
        raise SpaceError(f"{where}: se is true or false; got {raw['se']!r}")
    lists = {name: _ints(raw[name], where=f"{where}: {name}") for name in _STAGE_FIELDS[:4]}
    return StageSpace(**lists, stride=_int(raw["stride"], where=f"{where}: stride"), se=raw["se"])


def _check_fields(raw: Any, *, required: Sequence[str], where: str, optional: Sequence[str] = ()) -> None:
    if not isinstance(raw, Mapping):
        raise SpaceError(f"{where} is a table with {', '.join(required)}; got {raw!r}")
    missing = [name for name in required if name not in raw]
    unknown = sorted(set(raw) - set(required) - set(optional))
    if missing or unknown:
        raise SpaceError(f"{where} has the fields {', '.join(required)}; missing: {missing}, unknown: {unknown}")


def _check_space(space: SearchSpace) -> None:
    if not space.name:
        raise SpaceError("the space has no name; set name to what --space should call it")
    if not space.stages:
        raise SpaceError(f"space {space.name!r} has no stage; add at least one [[stage]]")
    if space.act not in ACTIVATIONS:
        raise SpaceError(f"act is {space.act!r}; expected one of {', '.join(ACTIVATIONS)}")
    widths = {"stem.width": space.stem_width, "head.width": space.head_width}
    ascending = {"resolution": space.resolution, **widths}
    strides = {"stem.stride": space.stem_stride}
    kernels: dict[str, tuple[int, ...]] = {"stem.kernel_size": (space.stem_kernel_size,)}
    for i, stage in enumerate(space.stages):
        widths[f"stage {i}: width"] = stage.width
        kernels[f"stage {i}: kernel_size"] = stage.kernel_size
        strides[f"stage {i}: stride"] = stage.stride
        ascending |= {f"stage {i}: {name}": getattr(stage, name) for name in _STAGE_FIELDS[:4]}
    for where, values in ascending.items():
        if not values or any(value < 1 for value in values) or list(values) != sorted(set(values)):
            raise SpaceError(f"{where} is {list(values)}; expected positive whole numbers, ascending, no repeats")
    for where, values in widths.items():
        if any(value % CHANNEL_DIVISOR for value in values):
            raise SpaceError(f"{where} is {list(values)}; expected multiples of {CHANNEL_DIVISOR}")
    for where, values in kernels.items():
        if any(value % 2 == 0 for value in values):
            raise SpaceError(f"{where} is {list(values)}; expected odd numbers")
    for where, stride in strides.items():
        if stride not in (1, 2):
            raise SpaceError(f"{where} is {stride}; expected 1 or 2")
    for where, value in (("image_size", space.image_size), ("num_classes", space.num_classes),
                         ("stem.kernel_size", space.stem_kernel_size),
                         ("head.expand_ratio", space.head_expand_ratio)):  # fmt: skip
        if value < 1:
            raise SpaceError(f"{where} is {value}; expected a positive whole number")


def _ints(raw: Any, *, where: str, error: type[SpaceError] | type[SubnetError] = SpaceError) -> tuple[int, ...]:
    if not isinstance(raw, list | tuple) or any(isinstance(value, bool) or not isinstance(value, int) for value in raw):
        raise error(f"{where} is {raw!r}; expected a list of whole numbers")
    return tuple(raw)


def _int(raw: Any, *, where: str) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise SpaceError(f"{where} is {raw!r}; expected a whole number")
    return raw


def _canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
