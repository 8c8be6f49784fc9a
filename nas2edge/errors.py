"""Every error that nas2edge raises on purpose, and the exit code each one ends the command line with.

::

    Nas2EdgeError                          exit code
      InputError                               2   something the user gave cannot be used
        UnitError                                  a quantity such as "20ms" does not read
        UnknownNameError                           no such device, space, target or file entry
        FormatError                                a file is not what it should be
        SpaceError                                 a search space contradicts itself
        SubnetError                                a sub-network lies outside its space
        TableError                                 a latency table cannot answer
        DataError                                  images cannot be read
        CheckpointError                            weights do not fit
        DivergedError                              training met a loss that is not finite
        RuntimeFailedError                         a runtime refused a network, or failed on it
      MissingDependencyError                   2   an optional package is not installed
      EngineNotBuiltError                      3   the artefacts are complete, the engine is not
      ParityError                              4   the exported network is not the searched one
      InconclusiveError                        5   more measuring is needed than was allowed
      RegressionError                          6   a network is slower or larger than it may be
      InfeasibleError                          7   no sub-network meets the constraints

Anything else that escapes is a bug of ours and keeps its traceback (exit code 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Nas2EdgeError(Exception):
    """Raised, through its subclasses, for every condition that nas2edge reports by itself."""

    exit_code = 1


class InputError(Nas2EdgeError):
    """Raised when an option, a file or an argument cannot be used as given."""

    exit_code = 2


class UnitError(InputError):
    """Raised when a quantity with a unit does not parse, or has the wrong unit."""


class UnknownNameError(InputError):
    """Raised when a name is not among the known ones; the message lists the nearest.

    Args:
        kind: What was looked up, in the singular: "device", "space", "target".
        name: The name that was not found.
        known: All names that would have been found.
        see: What to run for the full list, such as "nas2edge devices".
        suffix: If a path would do too, the suffix that it must have, such as ".json".
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, see: str = "", suffix: str = "") -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(sorted(known))
        super().__init__(_unknown_name_message(kind, name, self.known, see, suffix))


class FormatError(InputError):
    """Raised when a file is unreadable, is not JSON or TOML, or is of another format or version."""


class SpaceError(InputError):
    """Raised when the definition of a search space is incomplete or contradicts itself."""


class SubnetError(InputError):
    """Raised when a sub-network is not a member of the search space that it names."""


class TableError(InputError):
    """Raised when a latency table is malformed or has no answer for a layer."""


class DataError(InputError):
    """Raised when an image folder is missing, empty or holds files that do not decode."""


class CheckpointError(InputError):
    """Raised when a weights file is corrupt, or does not fit the search space that it names."""


class DivergedError(InputError):
    """Raised when training meets a loss that is not finite; what was saved before is untouched."""


class RuntimeFailedError(InputError):
    """Raised when a runtime does not load a network, or fails while it runs it; says what the runtime said."""


class MissingDependencyError(Nas2EdgeError):
    """Raised when a feature needs an optional package that is not installed.

    Args:
        package: The package that could not be imported.
        extra: The extra of nas2edge that installs it.
        purpose: What needs it, as in "training a supernet".
    """

    exit_code = 2

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(
            f"{purpose} needs {package}, which is not installed; install it with: pip install 'nas2edge[{extra}]'"
        )


class EngineNotBuiltError(Nas2EdgeError):
    """Raised when every artefact but the engine was written, since its builder is missing or failed."""

    exit_code = 3


class ParityError(Nas2EdgeError):
    """Raised when an export stage changed the network's outputs or accuracy beyond its tolerance."""

    exit_code = 4


class InconclusiveError(Nas2EdgeError):
    """Raised when measurements within the budget allow neither verdict; the message says what would."""

    exit_code = 5


class RegressionError(Nas2EdgeError):
    """Raised when a network is slower, or larger, than its limit or its baseline allows."""

    exit_code = 6


class InfeasibleError(Nas2EdgeError):
    """Raised when no sub-network of the space meets a constraint; the message has the closest reachable value."""

    exit_code = 7


def _unknown_name_message(kind: str, name: str, known: tuple[str, ...], see: str, suffix: str) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    near = near or [other for other in known if name and name in other][:3]
    message = f"unknown {kind} {name!r}"
    if near:
        message += "; did you mean " + " or ".join(repr(other) for other in near) + "?"
    elif known:
        message += f"; known: {', '.join(known[:12])}" + (", ..." if len(known) > 12 else "")
    message += f" (a file's path must end in {suffix})" if suffix else ""
    return message + (f" (see: {see})" if see else "")
