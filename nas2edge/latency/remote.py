"""Measuring on a device by ssh: the pack goes there, its script runs, the results come back. Keys only.

>>> fetch = measure_by_ssh("pi@raspberrypi.local", Path("pack.tar.gz"), Path("results.tar.gz"))  # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from nas2edge.errors import InputError, RuntimeFailedError
from nas2edge.files import atomic_path
from nas2edge.latency.pack import FOLDER

_OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=30")
"""Batch mode never asks for a password: where no key is accepted, ssh fails."""


def measure_by_ssh(host: str, pack: Path, results: Path) -> None:
    """Runs a pack on another machine and fetches what it measured; goes on where an earlier run stopped.

    Args:
        host: Where, as ssh takes it: user@host, or a name of ~/.ssh/config.
        pack: The pack.
        results: Where to write the results.

    Raises:
        InputError: There is no ssh, or the name is none.
        RuntimeFailedError: The machine cannot be reached with a key, or the script failed there; says how.
    """
    if not host or host.startswith("-") or any(letter.isspace() for letter in host):
        raise InputError(f"--ssh {host!r} is no machine; expected user@host or a name of your ssh configuration")
    if shutil.which("ssh") is None:
        raise InputError("there is no ssh in PATH; install OpenSSH's client, or carry the pack over by hand (--pack)")
    content = pack.read_bytes()
    # The folder is named by the pack, so that the same one goes on and another one starts anew.
    folder = f"nas2edge-{hashlib.sha256(content).hexdigest()[:12]}"
    _ssh(host, f"test -d {folder}/{FOLDER} || (mkdir -p {folder} && tar -xzf - -C {folder})", send=content)
    _ssh(host, f"cd {folder}/{FOLDER} && sh run.sh", shown=True)
    with atomic_path(results) as part:
        part.write_bytes(_ssh(host, f"cat {folder}/{FOLDER}/results.tar.gz"))


def _ssh(host: str, command: str, *, send: bytes | None = None, shown: bool = False) -> bytes:
    """Runs a command there; returns what it printed."""
    done = subprocess.run(
        ["ssh", *_OPTIONS, "--", host, command],
        input=send,
        stdin=subprocess.DEVNULL if send is None else None,
        stdout=subprocess.PIPE,
        stderr=None if shown else subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        said = "" if shown else done.stderr.decode("utf-8", errors="replace").strip().rpartition("\n")[2]
        why = "no connection with a key" if done.returncode == 255 else f"exit code {done.returncode}"
        raise RuntimeFailedError(
            f"ssh {host}: {why}{': ' + said if said else ''}; try it by hand with: ssh -o BatchMode=yes {host} true. "
            "Passwords are never asked for: put your key there with ssh-copy-id"
        )
    return done.stdout
