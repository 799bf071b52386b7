"""What a run was: its plan, its machine, its settings and what it compared. Written before the first cell."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from rllm_bench.records.cells import CellSpec, Settings


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
    type_shares: dict[str, float] = {}
    """Share of the weights by the type of their tensor, largest first."""
    version: str | None = None
    missing: str | None = None
    """Why it could not be measured; its cells are not planned then."""


Kind = Literal["matrix", "versus", "study"]
Hosting = Literal["alone", "together", "kept"]
"""alone: one server at a time, started anew for each of its repeats. together: all of a repeat are up at
once, idle but for the one that is measured, and started anew for the next. kept: so for the whole run."""


class Goal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A figure of ours over one of theirs, and how large or small that must be. Subjects are patterns as of
    a shell: of several that match, the best counts."""

    what: str
    figure: str
    load: str
    """The group of the cells on both sides."""
    ours: str
    theirs: str
    part: str = "*"
    at_least: float | None = None
    at_most: float | None = None


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
    kind: Kind = "matrix"
    question: str = ""
    """What a study is to find out."""
    hosting: Hosting = "alone"
    goals: list[Goal] = []
