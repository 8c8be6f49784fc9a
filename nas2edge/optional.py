"""Optional packages: asked for by name before work starts, so that a missing one is an error that says what to do."""

from __future__ import annotations

import importlib.util
import sys

from nas2edge.errors import MissingDependencyError


def is_installed(module: str) -> bool:
    """Returns whether a module can be found, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # it is in sys.modules as None, or has no spec
        return sys.modules.get(module) is not None


def require(*modules: str, extra: str, purpose: str) -> None:
    """Checks that modules can be found, without importing them.

    Args:
        modules: Names as imported.
        extra: The extra of nas2edge that installs them.
        purpose: What needs them, as the start of a sentence: "training a supernet".

    Raises:
        MissingDependencyError: Names the first that is missing and the command that installs it.
    """
    for module in modules:
        if not is_installed(module):
            raise MissingDependencyError(module, extra=extra, purpose=purpose)
