"""What stands on the page: `reports/summary.toml` names records, and says what they cannot say themselves."""

from __future__ import annotations

from pathlib import Path

import msgspec

Words = dict[str, str]
"""The same text by language: en, zh."""


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One server with one variant."""

    name: str
    zh: str | None = None
    """The Chinese name, where it differs."""
    subject: str
    source: str | None = None
    """Where its cells are, if not in the table's source."""
    weights_of: str | None = None
    """The subject whose file tells the size of the weights; its own where nothing is said."""
    ours: bool = False
    peer: bool = False
    """One of those that the sentences compare with: at each load with the fastest of them."""
    quality: str | None = None
    """A key of the figure; without one the page says that quality is unknown."""


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One machine with one shape of request."""

    title: Words
    source: str
    prompt_tokens: int
    output_tokens: int
    loads: list[int]
    kv_bytes_per_token: int
    """2 x layers x KV heads x head size x bytes per value."""
    memory: str
    """The metric that tells what the server held: gpu_memory_peak_mb or pss_peak_mb."""
    rows: list[Row]
    notes: list[Words] = []

    def group(self, users: int) -> str:
        """The cell's name at so many users, as runs name it."""
        return f"c{users}-p{self.prompt_tokens}-o{self.output_tokens}"


class Tuned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Baseline against tuned: one row a setting."""

    title: Words
    source: str
    group: str
    rows: dict[str, str]
    """Subject by the setting's name."""


class Page(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    heading: Words
    lead: Words
    tables: list[Table]
    tuned: list[Tuned] = []
    doubts: list[Words] = []


def load(path: Path) -> Page:
    """Raises `msgspec.ValidationError` that names the field which is wrong."""
    return msgspec.toml.decode(path.read_bytes(), type=Page)
