"""Text on the live page can be read: WCAG contrast of 4.5 wherever two colours meet, in both schemes."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

STYLE = (files("rllm.api.doors.live") / "ui" / "style.css").read_text()
PAIRS = [
    *((text, ground) for text in ("text", "muted") for ground in ("bg", "panel", "sunk")),
    *((text, "panel") for text in ("ok", "warn", "bad", "reused")),
    *((text, ground) for text in ("text", "muted") for ground in ("ok-soft", "warn-soft", "bad-soft")),
    *((tone, f"{tone}-soft") for tone in ("ok", "warn", "bad")),
]


def palettes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[:2]
    colours = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in (light, dark)]
    return {"light": colours[0], "dark": {**colours[0], **colours[1]}}


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(scheme: str) -> None:
    colours = palettes()[scheme]
    for text, ground in PAIRS:
        high, low = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        contrast = (high + 0.05) / (low + 0.05)
        assert contrast >= 4.5, f"{text} on {ground}: {contrast:.2f}"
