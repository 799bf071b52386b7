"""What `rllm-bench ceiling` asks and writes: the engine alone, and the memory under it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rllm_bench.records import archive


class CeilingJob(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    batches: tuple[int, ...] = (1, 4, 8, 16)
    prompt_tokens: int = 128
    output_tokens: int = 32
    threads: int = 0
    """0: as many as rllm-serve takes."""
    kv_unified: bool = False
    gpu_layers: int = -1
    batch_size: int = 2048
    ubatch_size: int = 512


class Point(msgspec.Struct, frozen=True):
    batch: int
    tokens_per_s: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What the process with the model can tell."""

    prefill_tps: float
    decode: list[Point]
    """Decode tokens per second over the number of sequences in a batch."""
    threads: int


class Ceiling(msgspec.Struct, frozen=True, kw_only=True):
    job: CeilingJob
    model_bytes: int
    model_sha256: str
    bandwidth_bytes_s: float
    bandwidth_source: str
    """How the memory that holds the weights was judged: measured, or by the card's clock and width."""
    measured: Measured

    def decode_tps(self, batch: int) -> float | None:
        return next((p.tokens_per_s for p in self.measured.decode if p.batch == batch), None)


def load(path: Path) -> list[Ceiling]:
    return msgspec.json.decode(archive.read_bytes(path), type=list[Ceiling])


def save(path: Path, ceilings: list[Ceiling]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(ceilings), indent=1) + b"\n")
