"""Bundles: folders with a network, its proof and how to run it; complete under their name, or not there at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nas2edge.errors import FormatError, InputError
from nas2edge.files import read_document

MANIFEST_NAME, MODEL_NAME, PARITY_NAME = "manifest.json", "model.onnx", "parity.npz"
REPORT_NAME, PAGE_NAME = "report.json", "report.md"
FORMAT, VERSION = "nas2edge.bundle", 1


def check_replaceable(folder: Path, *, subnet_id: str, force: bool) -> None:
    """Checks that a bundle may be written under a name.

    Args:
        folder: The bundle to be.
        subnet_id: The sub-network that it will hold.
        force: Whether a bundle of another network may be replaced.

    Raises:
        InputError: Something else is there.
    """
    if not folder.name:
        raise InputError(
            f"{str(folder)!r} has no name of its own; give --out a folder to be made, such as bundles/mine"
        )
    failed = failed_name(folder)
    if failed.exists() and not (failed / REPORT_NAME).exists():
        raise InputError(f"{failed} is in the way of a failed export's report; move it, or give --out another name")
    if not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST_NAME).exists()):
        raise InputError(f"{folder} exists and is no bundle; give --out another name")
    if force or not any(folder.iterdir()):
        return
    try:
        there = read_document(folder / MANIFEST_NAME, format=FORMAT, version=VERSION)["subnet"]["id"]
    except (FormatError, KeyError, TypeError) as err:
        raise InputError(
            f"{folder} holds a bundle that does not read ({err}); give --out another name, or --force"
        ) from err
    if there != subnet_id:
        raise InputError(
            f"{folder} holds another sub-network ({there}, not {subnet_id}); give --out another name, or --force"
        )


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `folder`, which takes its name when the block succeeds.

    An older bundle of that name is replaced in that moment. If the block raises, the temporary folder is removed,
    unless `keep_as_failed` has moved it away.

    Raises:
        InputError: The folder above does not exist or cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    except OSError as err:
        raise InputError(f"cannot write {folder}: {err.strerror}; give --out a folder that is writable") from err
    try:
        yield part
        _publish(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def changed_files(part: Path, folder: Path, *, subnet_id: str) -> list[str] | None:
    """Returns what a new bundle has other than the one that it will replace.

    Args:
        part: The new one, complete.
        folder: The name of both.
        subnet_id: The new one's sub-network.

    Returns:
        Names of files that differ or are missing on one side; those that both manifests give no hash are passed, being
        other from build to build. None if there is no bundle of this sub-network.
    """
    try:
        old, new = (read_document(where / MANIFEST_NAME, format=FORMAT, version=VERSION) for where in (folder, part))
        if old["subnet"]["id"] != subnet_id:
            return None
        before, after = (manifest["files"] for manifest in (old, new))
        unstable = {
            name for name in after if "sha256" not in after[name] and "sha256" not in before.get(name, {"sha256": ""})
        }
    except (FormatError, KeyError, TypeError):
        return None
    changed = [
        name for name in sorted({*before, *after}) if name not in unstable and before.get(name) != after.get(name)
    ]
    stated = [{**manifest, "files": {}} for manifest in (old, new)]
    return changed + ([MANIFEST_NAME] if stated[0] != stated[1] else [])


def failed_name(folder: Path) -> Path:
    """Returns where a failed export of a bundle is kept: `<folder>.failed`."""
    return folder.with_name(f"{folder.name}.failed")


def keep_as_failed(part: Path, folder: Path) -> Path:
    """Moves an unfinished bundle to its failed name, for a look at what went wrong; returns that name."""
    failed = failed_name(folder)
    shutil.rmtree(failed, ignore_errors=True)
    part.chmod(0o755)
    part.replace(failed)
    return failed


def _publish(part: Path, folder: Path) -> None:
    part.chmod(0o755)
    for file in part.iterdir():
        with open(file, "rb") as handle:
            os.fsync(handle.fileno())
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)
    try:
        part.replace(folder)
    except OSError:
        if old.exists():
            old.replace(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
