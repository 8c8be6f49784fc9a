"""A part of a space: some choices fixed. Everything else then works as in any space, exact bounds included.

>>> part = restrict(space, {"resolution": 224, "kernel_size": 3})
>>> part.inner.resolution
(224,)

Every sub-network of the part is a member of the whole space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from nas2edge.errors import InfeasibleError, InputError, UnknownNameError
from nas2edge.search.ledger import Vector
from nas2edge.space import Codes, SearchSpace


@runtime_checkable
class Restrictable(Protocol):
    """A metric that can be had for a part of its space; `AdditiveMetric` is one."""

    def restricted(self, kept: Sequence[Sequence[int]]) -> Callable[[Codes], Vector]: ...


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a space.

    Args:
        outer: The whole space.
        inner: The part, a space of its own.
        kept: Of every gene, the indices of the outer choices that are kept.
    """

    outer: SearchSpace
    inner: SearchSpace
    kept: tuple[tuple[int, ...], ...]

    def lift(self, codes: Codes) -> Codes:
        """Turns a population of the part into one of the whole space."""
        columns = [np.array(indices)[codes[:, i]] for i, indices in enumerate(self.kept)]
        return np.stack(columns, axis=1)

    def metric(self, metric: Callable[[Codes], Vector]) -> Callable[[Codes], Vector]:
        """Turns a metric of the whole space into one of the part."""
        if self.inner is self.outer:
            return metric
        if isinstance(metric, Restrictable):
            return metric.restricted(self.kept)
        return lambda codes: metric(self.lift(codes))


def parse_fixed(entries: Sequence[str]) -> dict[str, int]:
    """Reads GENE=VALUE entries, such as "resolution=224", "depth.2=3" or, for all stages, "kernel_size=3".

    Raises:
        InputError: An entry has no "=" or no whole number, or contradicts another of the same gene.
    """
    fixed: dict[str, int] = {}
    for entry in entries:
        gene, equals, text = (part.strip() for part in entry.partition("="))
        if not equals or not text.removeprefix("-").isdecimal():
            raise InputError(f"--fix {entry!r} is not GENE=VALUE with a whole number; for example resolution=224")
        value = int(text)
        if fixed.setdefault(gene, value) != value:
            raise InputError(f"--fix {gene}={fixed[gene]} and --fix {gene}={value} contradict each other; give one")
    return fixed


def restrict(space: SearchSpace, fixed: Mapping[str, int]) -> Part:
    """Returns the part of a space in which genes have the given values.

    Args:
        fixed: Values by gene, as `space.genes` names them, or by field ("kernel_size"), which fixes all its genes.

    Raises:
        InputError: A gene has no such choice, or two entries contradict each other.
        UnknownNameError: The space has no such gene.
    """
    if not fixed:
        every = tuple(tuple(range(len(values))) for values in space.choices)
        return Part(outer=space, inner=space, kept=every)
    said = _by_gene(space, fixed)
    kept = tuple(
        (values.index(said[gene][1]),) if gene in said else tuple(range(len(values)))
        for gene, values in zip(space.genes, space.choices, strict=True)
    )
    return Part(outer=space, inner=_inner(space, kept, fixed), kept=kept)


def forbid_se(space: SearchSpace) -> None:
    """Checks that no sub-network of a space has squeeze-and-excitation.

    Raises:
        InfeasibleError: Stages have it; it is fixed for a stage, so no choice removes it.
    """
    stages = [str(i) for i, stage in enumerate(space.stages) if stage.se]
    if stages:
        named = f"stage{'s' * (len(stages) > 1)} {', '.join(stages)}"
        raise InfeasibleError(
            f"every sub-network of the space {space.name!r} has squeeze-and-excitation in {named}: it belongs to the "
            "space, not to a choice; train and search a space whose stages say se = false (docs/spaces.md shows how to "
            "write one)"
        )


def _by_gene(space: SearchSpace, fixed: Mapping[str, int]) -> dict[str, tuple[str, int]]:
    """Returns the value of each fixed gene, with the name under which it was given."""
    said: dict[str, tuple[str, int]] = {}
    for name, value in fixed.items():
        genes = [gene for gene in space.genes if name in (gene, gene.partition(".")[0])]
        if not genes:
            fields = [gene.partition(".")[0] for gene in space.genes]
            raise UnknownNameError("gene", name, {*space.genes, *fields}, see=f"nas2edge show --space {space.name}")
        for gene in genes:
            choices = space.choices[space.genes.index(gene)]
            if value not in choices:
                hint = f"; name single genes, such as {genes[-1]}" if len(genes) > 1 else ""
                raise InputError(
                    f"cannot fix {name}={value}: {gene} of the space {space.name!r} may be "
                    f"{', '.join(map(str, choices))}{hint}"
                )
            other, fixed_value = said.setdefault(gene, (name, value))
            if fixed_value != value:
                raise InputError(f"{other}={fixed_value} and {name}={value} contradict each other in {gene}; give one")
    return said


def _inner(space: SearchSpace, kept: Sequence[Sequence[int]], fixed: Mapping[str, int]) -> SearchSpace:
    choices = {
        gene: tuple(values[i] for i in indices)
        for gene, values, indices in zip(space.genes, space.choices, kept, strict=True)
    }
    stages = tuple(
        replace(
            stage,
            width=choices[f"width.{i + 1}"],
            depth=choices[f"depth.{i}"],
            kernel_size=choices[f"kernel_size.{i}"],
            expand_ratio=choices[f"expand_ratio.{i}"],
        )
        for i, stage in enumerate(space.stages)
    )
    return replace(
        space,
        name=f"{space.name} with {', '.join(f'{name}={value}' for name, value in fixed.items())}",
        resolution=choices["resolution"],
        stem_width=choices["width.0"],
        stages=stages,
        head_width=choices[f"width.{len(space.stages) + 1}"],
    )
