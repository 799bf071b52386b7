"""What the study is held against: a figure of ours over one of theirs, and how large or small it must be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rllm_bench.study.rows import Row


@dataclass(frozen=True)
class Figure:
    """Where a number is found. Without a variant: the best of the engine's."""

    name: str
    engine: str
    variant: str | None
    group: str
    piece: str = "core"
    """What the piece's name begins with."""
    cacheless: bool = False
    """Without a variant: llama-server without its prompt cache in RAM, rather than as it comes."""

    def read(self, found: Sequence[Row]) -> float | None:
        values = [
            row.values[self.name]
            for row in found
            if row.engine == self.engine
            and self._is_of(row.subject)
            and row.group == self.group
            and row.piece.startswith(self.piece)
            and self.name in row.values
        ]
        return max(values, default=None)

    def _is_of(self, subject: str) -> bool:
        if self.variant is not None:
            return subject == f"{self.engine}/{self.variant}"
        return ("+nocache" in subject) == self.cacheless


@dataclass(frozen=True)
class Goal:
    what: str
    ours: Figure
    theirs: Figure
    limit: float
    at_least: bool = True


Q4 = "q4_k_m"


def _load(concurrency: int) -> str:
    return f"c{concurrency}-p400-o128"


def _best(engine: str, concurrency: int, *, cacheless: bool = False) -> Figure:
    return Figure("output_tps", engine, None, _load(concurrency), cacheless=cacheless)


def _warm(engine: str, variant: str | None = None, *, cacheless: bool = False) -> Figure:
    """At temperature 0.8, with the same filters on both sides."""
    return Figure("output_tps", engine, variant, _load(64), "t08", cacheless)


def _alone(name: str, engine: str, variant: str) -> Figure:
    return Figure(name, engine, variant, _load(1))


def _gap(engine: str, variant: str) -> Figure:
    return Figure("itl_p50_ms", engine, variant, _load(64))


def _shared(engine: str, variant: str) -> Figure:
    return Figure("ttft_p95_ms", engine, variant, "shared-prefix-c32-p2128-o128-x2000", "prefix")


_LS = "llama-server"
_NO_CACHE = f"{Q4}+nocache"
"""The peer without its prompt cache in RAM, which costs it speed where nothing is reused."""
_QUICK = "--cache-ram 0"
GOALS = (
    Goal("c=1 Q4_K_M, tok/s", _alone("output_tps", "rllm", Q4), _alone("output_tps", _LS, Q4), 1.02),
    Goal(
        "c=1 Q4_K_M, TTFT p50", _alone("ttft_p50_ms", "rllm", Q4), _alone("ttft_p50_ms", _LS, Q4), 0.6, False
    ),
    Goal(
        f"c=1 Q4_K_M, tok/s, {_QUICK}",
        _alone("output_tps", "rllm", Q4),
        _alone("output_tps", _LS, _NO_CACHE),
        1.02,
    ),
    Goal(
        f"c=1 Q4_K_M, TTFT p50, {_QUICK}",
        _alone("ttft_p50_ms", "rllm", Q4),
        _alone("ttft_p50_ms", _LS, _NO_CACHE),
        0.6,
        False,
    ),
    # a share of vLLM's: 1.5 times its decode rate is two thirds of its time per token
    Goal(
        "c=1 Q4_K_M, TPOT p50",
        _alone("tpot_p50_ms", "rllm", Q4),
        _alone("tpot_p50_ms", "vllm", "f16"),
        0.667,
        False,
    ),
    Goal("c=32, best variants, tok/s, as it comes", _best("rllm", 32), _best(_LS, 32), 1.8),
    Goal("c=64, best variants, tok/s, as it comes", _best("rllm", 64), _best(_LS, 64), 2.2),
    Goal("c=64, temperature 0.8, tok/s, as it comes", _warm("rllm", "f16+t08"), _warm(_LS), 1.9),
    Goal(f"c=32, best variants, tok/s, {_QUICK}", _best("rllm", 32), _best(_LS, 32, cacheless=True), 1.8),
    Goal(f"c=64, best variants, tok/s, {_QUICK}", _best("rllm", 64), _best(_LS, 64, cacheless=True), 2.2),
    Goal(
        f"c=64, temperature 0.8, tok/s, {_QUICK}", _warm("rllm", "f16+t08"), _warm(_LS, cacheless=True), 1.9
    ),
    *(Goal(f"c=64 {v}, ITL p50", _gap("rllm", v), _gap(_LS, v), 0.6, False) for v in (Q4, "q8_0", "f16")),
    Goal("c=64, best variants, tok/s", _best("rllm", 64), _best("vllm", 64), 0.40),
    *(
        Goal(
            f"c=32 {v}, 2,000 tokens shared, TTFT p95", _shared("rllm", v), _shared("vllm", "f16"), 1.5, False
        )
        for v in (Q4, "f16")
    ),
)


def table(found: Sequence[Row]) -> Iterator[str]:
    yield "| | rllm | the other | | rllm over it | goal | |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for goal in GOALS:
        ours, theirs = goal.ours.read(found), goal.theirs.read(found)
        wanted = f"{'≥' if goal.at_least else '≤'} {goal.limit:g}"
        if ours is None or not theirs:
            yield f"| {goal.what} | – | {goal.theirs.engine} | – | – | {wanted} | not measured |"
            continue
        ratio = ours / theirs
        reached = ratio >= goal.limit if goal.at_least else ratio <= goal.limit
        figures = f"{ours:,.1f} | {goal.theirs.engine} | {theirs:,.1f} | {ratio:.2f}"
        yield f"| {goal.what} | {figures} | {wanted} | {'reached' if reached else '**not reached**'} |"
