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

OPERATIONS = ("se", "swish", "relu", "hsigmoid")
"""What `forbid_operations` knows: squeeze-and-excitation, and activations."""

_OF_SE = ("se", "relu", "hsigmoid")


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


def parse_forbidden(entries: Sequence[str]) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Reads operations and GENE=VALUE entries, such as "se", "kernel_size=5" or "resolution=288".

    Returns:
        The operations, and the forbidden values by gene or field.

    Raises:
        UnknownNameError: An entry without "=" names no operation that can be forbidden.
        InputError: An entry has no whole number after "=".
    """
    values: dict[str, tuple[int, ...]] = {}
    operations = []
    for entry in entries:
        gene, equals, text = (part.strip() for part in entry.partition("="))
        if not equals:
            if gene not in OPERATIONS:
                raise UnknownNameError("operation to forbid", gene, OPERATIONS, see="or GENE=VALUE: kernel_size=5")
            operations.append(gene)
        elif not text.removeprefix("-").isdecimal():
            raise InputError(f"--forbid {entry!r} is not GENE=VALUE with a whole number; for example kernel_size=5")
        else:
            values[gene] = (*values.get(gene, ()), int(text))
    return tuple(operations), values


def restrict(
    space: SearchSpace, fixed: Mapping[str, int], forbidden: Mapping[str, Sequence[int]] | None = None
) -> Part:
    """Returns the part of a space in which genes have the given values, and others have none of the forbidden ones.

    Args:
        fixed: Values by gene, as `space.genes` names them, or by field ("kernel_size"), which fixes all its genes.
        forbidden: Values that no gene may have, by gene or by field.

    Raises:
        InputError: A gene has no such choice, or two entries contradict each other.
        InfeasibleError: All choices of a gene are forbidden.
        UnknownNameError: The space has no such gene.
    """
    every = tuple(tuple(range(len(values))) for values in space.choices)
    if not fixed and not forbidden:
        return Part(outer=space, inner=space, kept=every)
    said = _by_gene(space, fixed)
    banned = _banned(space, forbidden or {})
    kept = []
    for gene, values in zip(space.genes, space.choices, strict=True):
        if gene in said and said[gene][1] in banned[gene]:
            name, value = said[gene]
            raise InputError(f"{gene} is fixed ({name}={value}) and forbidden to be {value}; leave one of both out")
        left = tuple(i for i, value in enumerate(values) if value not in banned[gene])
        if not left:
            raise InfeasibleError(
                f"every sub-network of the space {space.name!r} has {gene} = {' or '.join(map(str, values))}, and that "
                "is forbidden; leave it out, or search another space"
            )
        kept.append((values.index(said[gene][1]),) if gene in said else left)
    parts = [f"{name}={value}" for name, value in fixed.items()]
    parts += [f"{name}≠{value}" for name, values in (forbidden or {}).items() for value in values]
    return Part(outer=space, inner=_inner(space, kept, ", ".join(parts)), kept=tuple(kept))


def forbid_operations(space: SearchSpace, operations: Sequence[str]) -> None:
    """Checks that no sub-network of a space has an operation, one of `OPERATIONS`.

    Raises:
        InfeasibleError: Sub-networks have it; it belongs to the space, so no choice removes it.
    """
    with_se = [str(i) for i, stage in enumerate(space.stages) if stage.se]
    for operation in operations:
        if operation == space.act:
            raise InfeasibleError(
                f"every sub-network of the space {space.name!r} has the activation {operation}: it belongs to the "
                f"space, not to a choice; train and search a space with another act (docs/spaces.md shows how)"
            )
        if with_se and operation in _OF_SE:
            named = f"stage{'s' * (len(with_se) > 1)} {', '.join(with_se)}"
            own = "" if operation == "se" else f", which computes {operation}"
            raise InfeasibleError(
                f"every sub-network of the space {space.name!r} has squeeze-and-excitation in {named}{own}: it belongs "
                "to the space, not to a choice; train and search a space whose stages say se = false (docs/spaces.md "
                "shows how to write one)"
            )


def _banned(space: SearchSpace, forbidden: Mapping[str, Sequence[int]]) -> dict[str, set[int]]:
    """Returns the forbidden values of each gene."""
    banned: dict[str, set[int]] = {gene: set() for gene in space.genes}
    for name, values in forbidden.items():
        genes = _genes_of(space, name)
        for value in values:
            having = [gene for gene in genes if value in space.choices[space.genes.index(gene)]]
            if not having:
                offered = sorted({v for gene in genes for v in space.choices[space.genes.index(gene)]})
                raise InputError(
                    f"cannot forbid {name}={value}: no sub-network of the space {space.name!r} has it; {name} may be "
                    f"{', '.join(map(str, offered))}"
                )
            for gene in having:
                banned[gene].add(value)
    return banned


def _genes_of(space: SearchSpace, name: str) -> list[str]:
    genes = [gene for gene in space.genes if name in (gene, gene.partition(".")[0])]
    if not genes:
        fields = [gene.partition(".")[0] for gene in space.genes]
        raise UnknownNameError("gene", name, {*space.genes, *fields}, see=f"nas2edge show --space {space.name}")
    return genes


def _by_gene(space: SearchSpace, fixed: Mapping[str, int]) -> dict[str, tuple[str, int]]:
    """Returns the value of each fixed gene, with the name under which it was given."""
    said: dict[str, tuple[str, int]] = {}
    for name, value in fixed.items():
        genes = _genes_of(space, name)
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


def _inner(space: SearchSpace, kept: Sequence[Sequence[int]], what: str) -> SearchSpace:
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
        name=f"{space.name} with {what}",
        resolution=choices["resolution"],
        stem_width=choices["width.0"],
        stages=stages,
        head_width=choices[f"width.{len(space.stages) + 1}"],
    )
