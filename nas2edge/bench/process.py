"""The other end of `nas2edge.bench._worker`: a process of its own for an artefact, with a time limit on every answer.

A runtime that crashes takes only its process with it, and one that hangs is killed; both are said in its own words.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Any, final

from nas2edge.errors import RuntimeFailedError

DEFAULT_TIME_LIMIT_S = 60.0
_SAID_LINES = 3
_CHUNK = 1 << 16


@final
class Worker:
    """One artefact in a fresh process. A context manager; leaving it ends the process.

    Args:
        name: What errors call the artefact.
        runtime: One of `nas2edge.runtimes.RUNTIMES`; it is imported while the caller goes on.
        time_limit_s: Seconds that one answer may take.
        module: The module to run; another one in tests.
    """

    def __init__(self, name: str, runtime: str, *, time_limit_s: float, module: str = "nas2edge.bench._worker") -> None:
        self._name, self._limit_s = name, time_limit_s
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, runtime],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            bufsize=0,
            # Files of the folder that we are in are no modules (Python 3.11 and newer).
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )
        self._buffer = b""

    @property
    def returncode(self) -> int | None:
        """How the process ended, as `subprocess` has it; None while it runs."""
        return self._process.poll()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request and returns the reply; see `nas2edge.bench._worker`.

        Raises:
            RuntimeFailedError: The artefact cannot be run; or the process ended, or did not answer and was killed.
        """
        self._send(request)
        reply: dict[str, Any] = json.loads(self._line())
        if "error" in reply:
            raise RuntimeFailedError(f"{self._name}: {reply['error']}")
        return reply

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin and self._process.stdout
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._kill()
        self._process.stdout.close()
        self._said.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._kill()
        self.close()

    def _send(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):  # it has ended; reading says how
            self._process.stdin.write(json.dumps(request).encode() + b"\n")

    def _line(self) -> bytes:
        assert self._process.stdout
        deadline = monotonic() + self._limit_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, deadline - monotonic())):
                    self._kill()
                    raise RuntimeFailedError(
                        f"{self._name}: no answer within {self._limit_s:g} s, so its process was killed"
                        + self._words("; it had said")
                    )
                chunk = os.read(self._process.stdout.fileno(), _CHUNK)
                if not chunk:
                    raise RuntimeFailedError(f"{self._name}: {self._how_it_ended()}{self._words('; it said')}")
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"its process ended with exit code {code}"
        try:
            return f"its process crashed ({signal.Signals(-code).name})"
        except ValueError:
            return f"its process crashed (signal {-code})"

    def _words(self, lead: str) -> str:
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        return f"{lead}: {' | '.join(lines[-_SAID_LINES:])}" if lines else "; it said nothing"

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
