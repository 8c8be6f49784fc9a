"""What the options of `nas2edge export` mean."""

from __future__ import annotations

import json
from pathlib import Path

from nas2edge.errors import FormatError, InputError
from nas2edge.export.exporter import BatchRange
from nas2edge.export.registry import target_names

MAX_BATCH = 65_536
PRECISIONS = ("fp32", "fp16", "int8")


def targets_of(to: str | None, *, every: bool) -> tuple[str, ...]:
    """Returns the targets that were asked for by --to or --all-targets.

    Raises:
        InputError: Neither or both were given, or a name is empty.
    """
    if every and to is not None:
        raise InputError("--to and --all-targets were both given; expected one of them")
    if every:
        return target_names()
    if to is None:
        raise InputError(f"no target was given; expected --to with one or more of {', '.join(target_names())}")
    return names_of(to, option="--to")


def precisions_of(text: str) -> tuple[str, ...]:
    """Returns the precisions of --precision, "all" being all of them."""
    return PRECISIONS if text == "all" else names_of(text, option="--precision")


def names_of(text: str, *, option: str) -> tuple[str, ...]:
    """Splits a list such as "onnx,trt"; a name that is there twice counts once.

    Raises:
        InputError: A name is empty.
    """
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise InputError(f"{option} {text!r} has an empty name; expected names with commas between them")
    return tuple(dict.fromkeys(names))


def batch_of(text: str) -> BatchRange:
    """Reads a batch size, or MIN:OPT:MAX.

    Raises:
        InputError: It does not read, or is out of range or order.
    """
    parts = text.split(":")
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or len(parts) not in (1, 3):
        raise InputError(f"batch {text!r} does not read; expected a size such as 1, or MIN:OPT:MAX such as 1:4:16")
    sizes = [int(part) for part in parts]
    if max(sizes) > MAX_BATCH:
        raise InputError(f"batch {text!r} is too large; expected at most {MAX_BATCH}")
    low, usual, high = sizes * 3 if len(sizes) == 1 else sizes
    if not low <= usual <= high:
        raise InputError(f"batch {text!r} is out of order; expected MIN <= OPT <= MAX")
    return low, usual, high


def labels_of(path: Path | None) -> tuple[str, ...] | None:
    """Reads class names: a JSON list, or a text file with one a line.

    Raises:
        FormatError: The file cannot be read, or is neither.
    """
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as err:
        raise FormatError(f"cannot read the labels in {path}: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise FormatError(f"{path} is not a text file; expected one label a line, or a JSON list") from err
    if path.suffix != ".json":
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    try:
        read = json.loads(text)
    except ValueError as err:
        raise FormatError(f"{path} does not parse: {err}") from err
    if not isinstance(read, list) or not all(isinstance(label, str) for label in read):
        raise FormatError(f'{path} is not a list of labels; expected JSON such as ["cat", "dog"]')
    return tuple(read)


def default_name(space: str, subnet_id: str, targets: tuple[str, ...], precisions: tuple[str, ...]) -> Path:
    """Returns where a bundle goes by default: bundles/SPACE-ID, with target and precision if there is one of each."""
    parts = [space, subnet_id]
    if len(targets) == 1:
        parts += [targets[0]]
        if len(precisions) == 1 and precisions[0] != "fp32":
            parts += [precisions[0]]
    return Path("bundles") / "-".join(parts)
