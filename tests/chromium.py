"""A headless Chromium for tests of pages, driven over WebDriver (plain HTTP with JSON), from the standard library only.

>>> with open_browser(folder) as browser:
...     browser.go(Path("report.html").as_uri())
...     browser.click("circle[data-point='3']")
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that the WebDriver standard gives to elements
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


class Browser:
    """One window."""

    def __init__(self, base: str) -> None:
        self._base = base

    def go(self, url: str) -> None:
        self.call("POST", "/url", url=url)

    def run(self, script: str, *args: Any) -> Any:
        """Runs the body of a function and returns what it returns."""
        return self.call("POST", "/execute/sync", script=script, args=list(args))

    def text(self, selector: str) -> str:
        """What a reader sees of an element, once there is one."""
        self._find(selector)
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def click(self, selector: str) -> None:
        """Clicks as a user does: the element must be visible and not covered."""
        self.call("POST", f"/element/{self._find(selector)}/click")

    def type(self, selector: str, keys: str) -> None:
        self.call("POST", f"/element/{self._find(selector)}/value", text=keys)

    def errors(self) -> list[str]:
        """What the console has said since the last call."""
        return [entry["message"] for entry in self.call("POST", "/se/log", type="browser")]

    def call(self, method: str, path: str, **body: Any) -> Any:
        return _call(method, self._base + path, body)

    def _find(self, selector: str) -> str:
        found: dict[str, str] = self.call("POST", "/element", using="css selector", value=selector)
        return found[_ELEMENT]


@contextmanager
def open_browser(folder: Path, *, width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """Yields a window; skips the test where there is no Chromium with its driver."""
    driver = shutil.which("chromedriver")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if driver is None or chromium is None:
        pytest.skip("no chromium with chromedriver on PATH; install them to open pages in a browser")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(f"http://127.0.0.1:{port}/status")
        flags = [*_FLAGS, f"--window-size={width},{height}", f"--user-data-dir={folder / 'profile'}"]
        options = {"binary": chromium, "args": flags}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = _call("POST", f"http://127.0.0.1:{port}/session", {"capabilities": {"alwaysMatch": wanted}})
        browser = Browser(f"http://127.0.0.1:{port}/session/{session['sessionId']}")
        try:
            # What a click opens may be drawn a moment later: elements are waited for.
            browser.call("POST", "/timeouts", implicit=5000)
            yield browser
        finally:
            browser.call("DELETE", "")
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait(url: str) -> None:
    for _ in range(200):
        try:
            _call("GET", url, {})
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    pytest.fail("chromedriver did not answer within 20 s")


def _call(method: str, url: str, body: dict[str, Any]) -> Any:
    content = None if method == "GET" else json.dumps(body).encode()
    request = urllib.request.Request(url, data=content, method=method, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.loads(answer.read())["value"]
    except urllib.error.HTTPError as err:
        raise AssertionError(json.loads(err.read())["value"]["message"]) from err
