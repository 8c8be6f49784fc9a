"""Bundles: folders with a network, its proof and how to run it; complete under their name, or not there at all."""

from __future__ import annotations

import errno
import glob
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
_UNWRITABLE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG}
)


def check_replaceable(folder: Path, *, subnet_id: str, force: bool, sha256: str = "") -> None:
    """Checks that a bundle may be written under a name.

    Args:
        folder: The bundle to be.
        subnet_id: The sub-network that it will hold.
        force: Whether a bundle of another network may be replaced.
        sha256: Of the weights that it will hold; other weights are another network.

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
        manifest = read_document(folder / MANIFEST_NAME, format=FORMAT, version=VERSION)
        there, weights = manifest["subnet"]["id"], manifest.get("supernet", {}).get("sha256", sha256)
    except (FormatError, KeyError, TypeError) as err:
        raise InputError(
            f"{folder} holds a bundle that does not read ({err}); give --out another name, or --force"
        ) from err
    if there != subnet_id:
        raise InputError(
            f"{folder} holds another sub-network ({there}, not {subnet_id}); give --out another name, or --force"
        )
    if sha256 and weights != sha256:
        raise InputError(
            f"{folder} holds this sub-network with other weights (sha256 {weights[:12]}, not {sha256[:12]}); give "
            "--out another name, or --force"
        )


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `folder`, which takes its name when the block succeeds.

    An older bundle of that name is replaced in that moment. If the block raises, the temporary folder is removed,
    unless `keep_as_failed` has moved it away. What an export that was killed has left is cleared away first.

    Raises:
        InputError: The folder above does not exist or cannot be written, or the disk is full.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_up(folder)
        prefix = f".{folder.name}.{os.getpid()}."
        part = Path(tempfile.mkdtemp(prefix=prefix, suffix=".part", dir=folder.parent))
    except OSError as err:
        raise InputError(f"cannot write {folder}: {err.strerror}; give --out a folder that is writable") from err
    try:
        yield part
        _publish(part, folder)
    except (OSError, InputError) as err:
        cause = err if isinstance(err, OSError) else err.__cause__
        if not isinstance(cause, OSError) or cause.errno not in _UNWRITABLE:
            raise
        older = f"; the older bundle in {folder} is as it was" if folder.exists() else ""
        raise InputError(
            f"cannot write {folder}: {cause.strerror}; make room or give --out another folder. "
            f"Nothing was written{older}"
        ) from err
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _clear_up(folder: Path) -> None:
    """Puts back a bundle that was being replaced, and removes unfinished ones of processes that are gone."""
    old = folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():
        old.replace(folder)
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*.part"):
        process = left.name.removeprefix(f".{folder.name}.").split(".")[0]
        if process.isdecimal() and not _runs(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def _runs(process: int) -> bool:
    if os.name != "posix":  # elsewhere the signal 0 is not a question
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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
