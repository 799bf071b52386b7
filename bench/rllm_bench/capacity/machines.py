"""Machines that were measured: `machines.toml`, whose figures a test compares with their records."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from rllm_bench.capacity.model import Speeds, calibrate


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    itl_p50_ms: float
    ttft_p50_ms: float
    output_tps: float


class Measured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One type of file on one machine."""

    source: str
    """The record, as docs/figures.toml names it."""
    subject: str
    prompt_tokens: int
    output_tokens: int
    step_users: tuple[int, ...]
    model_bytes: int
    num_params: int
    cells: dict[str, Cell]
    """By users."""

    def speeds(self) -> Speeds:
        cells = {int(users): msgspec.structs.asdict(cell) for users, cell in self.cells.items()}
        return calibrate(
            cells, self.step_users, self.prompt_tokens, self.output_tokens, self.model_bytes, self.num_params
        )


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    what: str
    memory_gb: float
    bandwidth_gb_s: float | None = None
    """By the maker's datasheet."""
    compute_gb: float
    """What a server takes beside weights and cache; an estimate."""
    types: dict[str, Measured]
    """By type of the file, as a GGUF names it."""


@cache
def machines() -> dict[str, Machine]:
    content = Path(__file__).with_name("machines.toml").read_bytes()
    return msgspec.toml.decode(content, type=dict[str, Machine])
