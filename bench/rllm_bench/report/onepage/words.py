"""The page's own words, in each of its languages."""

from __future__ import annotations

import tomllib
from pathlib import Path

LANGUAGES = {"en": "SUMMARY.md", "zh": "SUMMARY.zh-CN.md"}
"""The file each language goes to."""
WORDS: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("words.toml").read_text())
