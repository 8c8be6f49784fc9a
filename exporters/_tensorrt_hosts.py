"""Where trtexec runs: on this machine, or on a device over ssh. Both run commands and move files, and no more.

Over ssh, only keys count (BatchMode): nothing ever asks for a password, and none is passed on a command line.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import final
from urllib.parse import urlsplit

from nas2edge.errors import EngineNotBuiltError, InputError

_QUICK_S = 60.0
_OPTIONS = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15")
_SSH_FAILED = 255  # the exit code that ssh keeps for itself
_FOLDER = re.compile(r"/[\w./-]+/nas2edge\.\w+")
_USER, _HOST = re.compile(r"[A-Za-z0-9_][\w.-]*"), re.compile(r"[A-Za-z0-9_][\w.:-]*")


class Host(ABC):
    """A machine that commands run on."""

    name: str

    @abstractmethod
    def run(self, command: Sequence[str], on_line: Callable[[str], None] = lambda line: None) -> tuple[int, str]:
        """Runs a command; returns its exit code and what it printed, errors included. Ctrl-C ends it.

        Args:
            command: The program and its arguments; none is read by a shell.
            on_line: Called with every line as it comes.

        Raises:
            EngineNotBuiltError: The machine cannot be reached, or the program does not start.
        """

    @abstractmethod
    def shell(self, script: str) -> tuple[int, str]:
        """Runs a short script of sh; returns its exit code and what it printed on stdout.

        Raises:
            EngineNotBuiltError: The machine cannot be reached.
        """

    @abstractmethod
    def folder(self) -> AbstractContextManager[str]:
        """Makes a new folder there, which is removed at the end.

        Raises:
            EngineNotBuiltError: The machine cannot be reached, or makes none.
        """

    @abstractmethod
    def put(self, file: Path, there: str) -> None:
        """Copies a file of this machine there.

        Raises:
            EngineNotBuiltError: It cannot be copied.
        """

    @abstractmethod
    def get(self, there: str, file: Path) -> None:
        """Copies a file from there.

        Raises:
            EngineNotBuiltError: It cannot be copied.
        """


@final
class LocalHost(Host):
    """This machine."""

    name = "this machine"

    def run(self, command: Sequence[str], on_line: Callable[[str], None] = lambda line: None) -> tuple[int, str]:
        return _stream(command, on_line)

    def shell(self, script: str) -> tuple[int, str]:
        return _quick(["sh", "-c", script])

    @contextmanager
    def folder(self) -> Iterator[str]:
        with tempfile.TemporaryDirectory(prefix="nas2edge.") as folder:
            yield folder

    def put(self, file: Path, there: str) -> None:
        shutil.copyfile(file, there)

    def get(self, there: str, file: Path) -> None:
        try:
            shutil.copyfile(there, file)
        except OSError as err:
            raise EngineNotBuiltError(f"cannot read {there}: {err.strerror}") from err


@final
class SshHost(Host):
    """A device that a key opens: ssh://USER@HOST or ssh://USER@HOST:PORT.

    Raises:
        InputError: The address does not read.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        try:
            port = parts.port
        except ValueError:
            port = -1
        user, host = parts.username, parts.hostname or ""
        plain = not (parts.path.strip("/") or parts.query or parts.fragment or parts.password)
        if not plain or port == -1 or not _HOST.fullmatch(host) or (user and not _USER.fullmatch(user)):
            raise InputError(
                f"{_without_password(address)!r} is no address; expected ssh://USER@HOST or ssh://USER@HOST:PORT "
                "(no password: only keys are used)"
            )
        self.name = f"{user}@{host}" if user else host
        self._bracketed = f"{user}@[{host}]" if user and ":" in host else self.name
        self._port = port

    def run(self, command: Sequence[str], on_line: Callable[[str], None] = lambda line: None) -> tuple[int, str]:
        # With a terminal there (-tt), a broken connection or Ctrl-C ends the program on the device as well.
        code, said = _stream([*self._ssh("-tt"), shlex.join(command)], on_line)
        self._check(code, said)
        return code, said

    def shell(self, script: str) -> tuple[int, str]:
        code, said = _quick([*self._ssh(), script])
        self._check(code, said)
        return code, said

    @contextmanager
    def folder(self) -> Iterator[str]:
        code, said = self.shell("mktemp -d /tmp/nas2edge.XXXXXXXX")
        folder = said.strip().splitlines()[-1] if said.strip() else ""
        if code or not _FOLDER.fullmatch(folder):
            raise EngineNotBuiltError(f"{self.name} makes no temporary folder: {said.strip() or 'it gave no reason'}")
        try:
            yield folder
        finally:
            with suppress(EngineNotBuiltError):  # a connection that is gone was told of already
                self.shell(f"rm -rf -- {shlex.quote(folder)}")

    def put(self, file: Path, there: str) -> None:
        self._copy(str(file), f"{self._bracketed}:{there}")

    def get(self, there: str, file: Path) -> None:
        self._copy(f"{self._bracketed}:{there}", str(file))

    def _ssh(self, *options: str) -> list[str]:
        port = ["-p", str(self._port)] if self._port else []
        return ["ssh", *_OPTIONS, *port, *options, "--", self.name]

    def _copy(self, source: str, target: str) -> None:
        port = ["-P", str(self._port)] if self._port else []
        code, said = _stream(["scp", "-q", *_OPTIONS, *port, "--", source, target], lambda line: None)
        if code:
            raise EngineNotBuiltError(f"cannot copy {source} to {target}: {_last(said)}")

    def _check(self, code: int, said: str) -> None:
        if code != _SSH_FAILED:
            return
        hint = ""
        if "Host key verification failed" in said:
            hint = f"; connect once by hand, so that its key is known: ssh {self.name}"
        elif "Permission denied" in said:
            hint = f"; only keys are used: ssh-copy-id {self.name}"
        raise EngineNotBuiltError(f"cannot reach {self.name}: {_last(said).rstrip('.')}{hint}")


def _stream(command: Sequence[str], on_line: Callable[[str], None]) -> tuple[int, str]:
    """Runs a command to its end, line by line; whatever ends this early ends it too."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as err:
        raise EngineNotBuiltError(f"{command[0]} does not start: {err.strerror}") from err
    lines = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            on_line(line.rstrip())
        return process.wait(), "".join(lines)
    finally:
        if process.poll() is None:
            process.kill()  # trtexec ignores SIGTERM while it times kernels; it writes its engine in one go at the end
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _quick(command: Sequence[str]) -> tuple[int, str]:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_QUICK_S
        )
    except OSError as err:
        raise EngineNotBuiltError(f"{command[0]} does not start: {err.strerror}") from err
    except subprocess.TimeoutExpired as err:
        raise EngineNotBuiltError(f"{command[0]} did not answer within {_QUICK_S:.0f} s") from err
    return done.returncode, done.stdout if done.returncode != _SSH_FAILED else done.stderr


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "it gave no reason"


def _without_password(address: str) -> str:
    return re.sub(r"(//[^:@/]*):[^@/]*@", r"\1:***@", address)
