"""Pictures of the page under a real load, for the documentation.

    SCREENSHOTS=docs/images python -m pytest tests/page/test_screenshots.py

Without SCREENSHOTS they go to a temporary folder, and only what can be checked of a picture is checked.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.server import RunningServer, running
from tests.conftest import MODELS
from tests.page.conftest import Visit, visit
from tests.page.traffic import Body, traffic

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(400)]

MANUAL = (
    "You are the assistant of a small library. Answer briefly and kindly, and say so when you do not know. "
)
TOPICS = (
    "the moon",
    "a lighthouse",
    "the first trains",
    "bees",
    "a quiet harbour",
    "chess",
    "the desert",
    "tea",
)
LOADED = "document.querySelectorAll('.panel')[0]?.querySelectorAll(\"[data-phase='decode']\").length >= 4"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    models = [part for name in ("q4", "q8") for part in ("--gguf", MODELS / f"{name}.gguf")]
    if missing := [path for path in models[1::2] if not Path(path).exists()]:
        pytest.fail(f"{missing} missing; scripts/test makes them")
    with running(*models, "--slots", "6", "--ctx-size", "1024", "--threads", "1") as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = os.environ.get("SCREENSHOTS")
    return Path(chosen).resolve() if chosen else tmp_path_factory.mktemp("screenshots")


def mixed(rng: random.Random) -> Body:
    """Short and long answers; most share a system prompt, so that its prefix is reused."""
    system = MANUAL * 6 if rng.random() < 0.7 else f"{rng.random()} " * 8
    text = f"Write {rng.choice(('a line', 'a paragraph', 'a story'))} about {rng.choice(TOPICS)}."
    return {
        "model": "q4" if rng.random() < 0.5 else "q8",
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": text}],
        "max_tokens": rng.choice((16, 32, 60, 120)),
        "temperature": 0.8,
        "stream": True,
    }


def shrink(path: Path) -> None:
    """A page has few colours."""
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(
            256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
        few.save(path, optimize=True)


def ask(tab: Visit, compare: bool) -> None:
    if compare:
        tab.page.get_by_label("Compare with").check()
    tab.page.locator("summary").click()
    tab.page.get_by_label("Max tokens").fill("48")
    tab.page.get_by_label("Seed").fill("7")
    tab.page.locator("summary").click()
    tab.page.get_by_label("Message").fill("What is the capital of France, and what is it known for?")
    tab.page.get_by_label("Message").press("Enter")


def test_pictures_under_load(browser: Any, server: RunningServer, folder: Path) -> None:
    url = f"http://127.0.0.1:{server.port}"
    with traffic(server.port, 14, mixed):
        with visit(browser, url) as tab:  # the page's own history begins with the load, before anybody looks
            tab.wait(LOADED)
            tab.page.wait_for_timeout(60_000)
        for width, scheme, compare in (
            (1280, "light", False),
            (1280, "dark", True),
            (390, "light", False),
            (390, "dark", False),
        ):
            with visit(browser, url, width=width, height=900, scheme=scheme) as tab:
                tab.is_live()
                ask(tab, compare)
                number = 2 if compare else 1
                tab.wait(
                    f"document.querySelectorAll(\".answer[data-state='done']\").length === {number}",
                    at_most_s=120,
                )
                tab.wait(LOADED, at_most_s=120)
                path = folder / f"live-{width}-{scheme}.png"
                tab.page.screenshot(path=path, full_page=True)
                shrink(path)
                assert 10_000 < path.stat().st_size < 200_000
