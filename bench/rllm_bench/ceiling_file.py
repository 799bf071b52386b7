"""What `rllm-bench ceiling` writes: the engine alone, and the memory under it."""

from __future__ import annotations

from pathlib import Path

import msgspec


class Point(msgspec.Struct, frozen=True):
    batch: int
    tokens_per_s: float


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    model_bytes: int
    model_sha256: str
    bandwidth_bytes_s: float
    """Read bandwidth of the memory the weights live in, by a streaming read over all cores."""
    prefill_tps: float
    prompt_tokens: int
    decode: list[Point]
    """Decode tokens per second over the number of sequences in a batch, no sampling, no HTTP."""
    settings: dict[str, int | str | None] = {}

    def decode_tps(self, batch: int) -> float | None:
        return next((point.tokens_per_s for point in self.decode if point.batch == batch), None)


def load(path: Path) -> list[Ceiling]:
    return msgspec.json.decode(path.read_bytes(), type=list[Ceiling])


def save(path: Path, ceilings: list[Ceiling]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(ceilings), indent=1) + b"\n")
