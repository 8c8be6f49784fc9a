"""Measurements in progress: saved on the way, and gone on from after an interruption."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nas2edge.errors import FormatError, InputError
from nas2edge.files import read_document, write_json
from nas2edge.latency.protocol import Visits, visits_from_dict

logger = logging.getLogger(__name__)

FORMAT, VERSION = "nas2edge.latency_partial", 4


def partial_path(out: Path) -> Path:
    """Returns where a measurement that will be written to `out` saves on the way."""
    return out.with_suffix(".partial")


def resume(partial: Path | None, context: Mapping[str, Any]) -> Visits:
    """Returns the visits of an interrupted measurement; none if there is no file.

    Raises:
        InputError: The file belongs to another measurement.
        FormatError: The file cannot be read.
    """
    if partial is None or not partial.exists():
        return {}
    try:
        raw = read_document(partial, format=FORMAT, version=VERSION)
    except FormatError as err:
        raise FormatError(f"{err}; or start over with --restart") from err
    if raw.get("context") != context:
        raise InputError(
            f"{partial} was left by a measurement of another device, space or protocol; "
            "go on with that one's options, or start over with --restart"
        )
    try:
        visits = visits_from_dict(raw["visits"])
    except (KeyError, TypeError, AttributeError) as err:
        raise FormatError(f"{partial} is damaged: {err!r}; start over with --restart") from err
    logger.info("going on from %s: %d items were visited", partial, len(visits))
    return visits


def count_visits(visits: Visits) -> int:
    """Returns how many visits there are; of those that were resumed, a table's protocol says it (`resumed_visits`)."""
    return sum(map(len, visits.values()))


def saver(partial: Path | None, context: Mapping[str, Any]) -> Callable[[Visits], None]:
    """Returns a function that saves visits; it does nothing without a file."""

    def save(visits: Visits) -> None:
        if partial is not None:
            entries = {name: [visit.to_dict() for visit in found] for name, found in visits.items()}
            write_json(partial, {"format": FORMAT, "version": VERSION, "context": context, "visits": entries})

    return save
