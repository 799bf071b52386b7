"""What a run was: its plan, its machine, its settings and what it compared. Written before the first cell."""

from __future__ import annotations

from typing import Any

import msgspec

from rllm_bench.records.cells import CellSpec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What every server of a run is given alike; each target says it in its own options."""

    slots: int
    ctx_per_slot: int
    threads: int | None = None
    prefix_cache: bool = True
    extra: dict[str, list[str]] = {}
    """Further options by engine; a report that has any calls that engine tuned."""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared: an engine with a variant of the model."""

    name: str
    engine: str
    variant: str
    model: str | None = None
    model_bytes: int | None = None
    model_type: str | None = None
    """How it is quantized, where a record beside the file says so."""
    model_sha256: str | None = None
    version: str | None = None
    missing: str | None = None
    """Why it could not be measured; its cells are not planned then."""


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    created_at: str
    command: str
    preset: str
    settings: Settings
    subjects: list[Subject]
    cells: list[CellSpec]
    slos: dict[str, dict[str, float]]
    price_per_hour: float | None
    price_source: str
    environment: dict[str, Any]
    vocabulary: str
    """Digest of the words that prompts were made of."""
    seed: int
    schema: int = 1
