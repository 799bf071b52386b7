"""A real headless Chromium. Without Playwright or a Chromium the tests are skipped, and say what is missing.

Playwright's own browsers cannot be fetched everywhere; Debian's can be installed: ``scripts/browser``.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

WAIT_S = 30
SWITCHES = [
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
]


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Not longer than a module: while it is open, no test can run an event loop of its own."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    path = _chromium()
    if path is None:
        pytest.skip("no Chromium in PATH: scripts/browser installs Debian's")
    switches = [*SWITCHES, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=switches)
        yield chromium
        chromium.close()


class Visit:
    """One tab of a fresh profile, and what its console complained about."""

    def __init__(self, context: Any, url: str, path: str) -> None:
        self.context = context
        self.page = context.new_page()
        self.page.set_default_timeout(WAIT_S * 1000)
        self.complaints: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(f"{url}{path}")

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())

    def wait(self, expression: str, argument: object = None, *, at_most_s: float = WAIT_S) -> None:
        """Until a JavaScript expression (or function of ``argument``) is true.

        Playwright's own wait_for_function needs a page that allows eval, and this one does not.
        """
        last = time.monotonic() + at_most_s
        while not self.page.evaluate(expression, argument):
            assert time.monotonic() < last, f"still not true after {at_most_s} s: {expression}"
            self.page.wait_for_timeout(50)

    def is_live(self) -> None:
        self.page.wait_for_selector('#link[data-state="live"]')


@contextmanager
def visit(
    browser: Any,
    url: str,
    *,
    path: str = "/ui",
    width: int = 1280,
    height: int = 800,
    scheme: str = "light",
) -> Iterator[Visit]:
    """Leaves nothing open, and nothing may have gone wrong in the page."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    )
    try:
        tab = Visit(context, url, path)
        yield tab
        assert tab.complaints == []
    finally:
        context.close()
