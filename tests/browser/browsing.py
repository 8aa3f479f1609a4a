"""What the browser tests share: finding Chromium, servers on loopback, pages whose errors are noticed, screenshots."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest
from playwright.sync_api import Browser, Page, Route

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = (f"no Chromium on this machine (looked for {', '.join(NAMES)} and $PPLKIT_CHROMIUM); "
           "Debian, Ubuntu: sudo apt-get install chromium")
DESKTOP, NARROW = {"width": 1280, "height": 900}, {"width": 400, "height": 800}


def find_chromium() -> str | None:
    """The system's Chromium; None where there is none."""
    named = os.environ.get("PPLKIT_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


def required() -> bool:
    """Whether a missing browser is a failure: in continuous integration, where nobody would read why tests were skipped."""
    return os.environ.get("CI", "").lower() == "true"


def refuse() -> NoReturn:
    """End a test that needs the missing Chromium: skipped with the reason, failed where it is required."""
    (pytest.fail if required() else pytest.skip)(MISSING)


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(module: str, arguments: list[str], folder: Path, url: str, environment: dict[str, str],
            timeout: float = 60) -> Iterator[None]:
    """Run `python -m module arguments` in a folder until the block ends; enter it when `url` answers.

    Raises:
        RuntimeError: the server ended or did not answer in time; with its last output.
    """
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=folder, stdout=output,
                                   stderr=subprocess.STDOUT, env={**os.environ, **environment}, start_new_session=True)
        try:
            stop = time.monotonic() + timeout
            while not answers(url):
                if process.poll() is not None or time.monotonic() > stop:
                    raise RuntimeError(f"{module} does not serve {url}:\n{log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.1)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):  # the server and its kernels, a group of their own
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def answers(url: str) -> bool:
    """Whether something answers there, with whatever status."""
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@dataclass
class Watched:
    """A page, and what went wrong on it."""

    page: Page
    errors: list[str] = field(default_factory=list)  # console errors and uncaught exceptions
    refused: list[str] = field(default_factory=list)  # requests that left this machine, and were stopped

    def screenshot(self, name: str, *, whole: bool = False) -> Path:
        """Keep what the page looks like, build/screenshots/NAME.png."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        target = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=target, full_page=whole)
        return target


@contextlib.contextmanager
def watched(browser: Browser, viewport: dict[str, int] = DESKTOP, *, offline: bool = False) -> Iterator[Watched]:
    """A new page that notices errors and lets no request leave this machine; offline: not even to loopback."""
    context = browser.new_context(viewport=viewport, offline=offline)
    page = context.new_page()
    seen = Watched(page)
    page.on("console", lambda message: seen.errors.append(f"{message.text} ({message.location.get('url', '')})")
            if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))

    def decide(route: Route) -> None:
        if route.request.url.startswith(("http://127.0.0.1", "http://localhost")):
            route.continue_()
        else:
            seen.refused.append(route.request.url)
            route.abort()

    context.route(lambda url: url.startswith(("http:", "https:")), decide)
    try:
        yield seen
    except BaseException:  # what it looked like when a test gave up
        seen.screenshot("failed")
        raise
    finally:
        context.close()
