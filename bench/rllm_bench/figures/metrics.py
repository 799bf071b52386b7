"""From the records of one cell to its numbers. Pure: the same records give the same numbers.

Definitions follow `vllm bench serve` with one difference: latencies count from when a request was due,
not from when it was sent (`vllm_format` has vLLM's own for its files).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rllm_bench import scenarios
from rllm_bench.figures.stats import PERCENTILES, Array
from rllm_bench.records.cells import Cell, RequestRecord

STEADY_REQUESTS_PER_USER = 10
"""From this many requests per user on, figures are taken from the steady window only."""
KEPT = 0.95
"""A goal is kept under a load when at least this share of the requests meets it."""
_STEP_TOKENS = ("rllm_decode_tokens_total", "rllm_accepted_tokens_total")
"""Of rllm: tokens drawn in decode steps, and guessed ones that were right."""
BLOCKS = 20
"""Slices of the window whose throughput is resampled."""


@dataclass(frozen=True)
class CellData(Cell):
    """A cell's records, and the window over which it is judged."""

    @classmethod
    def of(cls, cell: Cell) -> CellData:
        return cls(cell.record, cell.requests, cell.telemetry)

    @cached_property
    def good(self) -> list[RequestRecord]:
        return [request for request in self.requests if request.ok]

    @cached_property
    def duration_s(self) -> float:
        """Of the whole run, ramp and drain included."""
        return max((request.closed_us for request in self.requests), default=0) / 1e6

    @cached_property
    def users(self) -> int:
        return self.record.spec.load.concurrency or 1

    @cached_property
    def steady_window(self) -> tuple[float, float] | None:
        """Seconds from when all users have had a first token to when the last request was sent: all
        places are taken in between. None where that leaves nothing."""
        firsts = sorted(request.first_us for request in self.good if request.first_us is not None)
        needed = self.users if self.record.spec.load.mode == "closed" else 1
        if len(firsts) < needed:
            return None
        begin = firsts[needed - 1] / 1e6
        end = max(request.sent_us for request in self.requests) / 1e6
        return (begin, end) if end - begin > 0.2 * self.duration_s else None

    @property
    def is_steady(self) -> bool:
        """Whether figures come from the steady window: decided by the plan, not by the outcome."""
        enough = self.record.spec.num_requests >= STEADY_REQUESTS_PER_USER * self.users
        return enough and self.steady_window is not None

    @cached_property
    def window(self) -> tuple[float, float]:
        if self.is_steady and self.steady_window is not None:
            return self.steady_window
        return 0.0, self.duration_s

    @cached_property
    def scope(self) -> list[RequestRecord]:
        """Successful requests that latencies are taken from: those due in the window."""
        begin, end = self.window
        inside = [request for request in self.good if begin <= request.scheduled_us / 1e6 <= end]
        return inside or self.good

    @cached_property
    def ttft_ms(self) -> Array:
        return _array((r.first_us - r.scheduled_us) / 1e3 for r in self.scope if r.first_us is not None)

    @cached_property
    def e2e_ms(self) -> Array:
        return _array((r.last_us - r.scheduled_us) / 1e3 for r in self.scope if r.last_us is not None)

    @cached_property
    def tpot_ms(self) -> Array:
        return _array(value for r in self.scope if (value := tpot_ms(r)) is not None)

    @cached_property
    def itl_ms(self) -> list[Array]:
        """Gaps between content chunks, one array per request."""
        return [np.asarray(r.gaps_us, dtype=np.float64) / 1e3 for r in self.scope if r.gaps_us]

    @cached_property
    def block_output_tps(self) -> Array:
        """Output tokens per second in equal slices of the window."""
        begin, end = self.window
        times, weights = token_times(self.good)
        counts, _ = np.histogram(times, bins=BLOCKS, range=(begin, end), weights=weights)
        return np.asarray(counts / ((end - begin) / BLOCKS), dtype=np.float64)


def _array(values: object) -> Array:
    return np.fromiter(values, dtype=np.float64)  # type: ignore[call-overload,no-any-return]  # any iterable


def tpot_ms(request: RequestRecord) -> float | None:
    """Time per output token after the first; a single token has none."""
    tokens = request.completion_tokens or 0
    if tokens < 2 or request.first_us is None or request.last_us is None:
        return None
    return (request.last_us - request.first_us) / 1e3 / (tokens - 1)


def token_times(requests: Sequence[RequestRecord]) -> tuple[Array, Array]:
    """When tokens arrived (seconds), and how many each arrival stands for: a chunk may hold several."""
    times, weights = [], []
    for request in requests:
        if request.first_us is None:
            continue
        arrivals = np.cumsum([request.first_us, *request.gaps_us]) / 1e6
        times.append(arrivals)
        weights.append(np.full(len(arrivals), (request.completion_tokens or 0) / len(arrivals)))
    if not times:
        return np.zeros(0), np.zeros(0)
    return np.concatenate(times), np.concatenate(weights)


def throughput(cell: CellData, *, steady: bool) -> dict[str, float]:
    window = cell.steady_window if steady else (0.0, cell.duration_s)
    if window is None or window[1] <= window[0]:
        return {}
    begin, end = window
    span = end - begin
    times, weights = token_times(cell.good)
    inside = (times >= begin) & (times <= end)
    finished = [r for r in cell.good if r.last_us is not None and begin <= r.last_us / 1e6 <= end]
    prompts = sum(r.prompt_tokens or r.prompt_length or 0 for r in finished)
    output = float(weights[inside].sum())
    return {
        "output_tps": output / span,
        "total_tps": (output + prompts) / span,
        "request_rps": len(finished) / span,
    }


def meets(request: RequestRecord, slo: Mapping[str, float], since_us: int | None = None) -> bool:
    """Whether a request meets every limit (ms) of a goal: ttft, tpot, e2el, from when it was due on."""
    if request.first_us is None or request.last_us is None:
        return False
    begin = request.scheduled_us if since_us is None else since_us
    found = {
        "ttft": (request.first_us - begin) / 1e3,
        "tpot": tpot_ms(request) or 0.0,
        "e2el": (request.last_us - begin) / 1e3,
    }
    return all(found[name] <= limit for name, limit in slo.items())


def goodput(cell: CellData, slo: Mapping[str, float]) -> tuple[float, float]:
    """Requests per second that meet the goal, and their share of all that were due in the window."""
    begin, end = cell.window
    due = [r for r in cell.requests if begin <= r.scheduled_us / 1e6 <= end]
    if not due or end <= begin:
        return 0.0, 0.0
    met = sum(1 for request in due if request.ok and meets(request, slo))
    return met / (end - begin), met / len(due)


def latencies(cell: CellData) -> dict[str, float]:
    gaps = np.concatenate(cell.itl_ms) if cell.itl_ms else np.zeros(0)
    values: dict[str, float] = {}
    for name, data in (("ttft", cell.ttft_ms), ("tpot", cell.tpot_ms), ("itl", gaps), ("e2e", cell.e2e_ms)):
        if len(data):
            values[f"{name}_mean_ms"] = float(data.mean())
            for q in PERCENTILES:
                values[f"{name}_p{q}_ms"] = float(np.percentile(data, q))
    return values


def server_load(cell: CellData) -> dict[str, float]:
    """Memory, processor time, GPU and cache use of the server while the cell ran."""
    samples = cell.telemetry
    values: dict[str, float] = {}
    for name, found in (
        ("rss_peak_mb", [s.rss_bytes / 1e6 for s in samples if s.rss_bytes]),
        ("pss_peak_mb", [s.pss_bytes / 1e6 for s in samples if s.pss_bytes]),
        ("gpu_memory_peak_mb", [s.gpu_memory_bytes / 1e6 for s in samples if s.gpu_memory_bytes]),
        ("kv_usage_peak", [s.gauges["kv_usage"] for s in samples if "kv_usage" in s.gauges]),
    ):
        if found:
            values[name] = max(found)
    power = [s.gpu_power_w for s in samples if s.gpu_power_w is not None]
    if power:
        values["gpu_power_mean_w"] = sum(power) / len(power)
    clocked = [s for s in samples if s.cpu_s is not None]
    if len(clocked) > 1 and clocked[-1].at_us > clocked[0].at_us:
        used = (clocked[-1].cpu_s or 0.0) - (clocked[0].cpu_s or 0.0)
        values["server_cpu_cores"] = used / ((clocked[-1].at_us - clocked[0].at_us) / 1e6)
    busy = [s.machine_busy for s in samples[1:] if s.machine_busy is not None]
    if busy:
        values["machine_busy"] = sum(busy) / len(busy)
    return values


def client_load(cell: CellData) -> dict[str, float]:
    """How the load generator did: its own lag, lateness and use of processors."""
    late = [(r.sent_us - r.scheduled_us) / 1e3 for r in cell.requests]
    generators = cell.record.generators
    if not generators:
        return {}
    return {
        "client_lag_p99_ms": max(g.loop_lag_p99_ms for g in generators),
        "client_late_p99_ms": float(np.percentile(late, 99)) if late else 0.0,
        "client_cpu_cores": sum(g.cpu_s / g.wall_s for g in generators if g.wall_s > 0),
        "chunks_per_s": sum(g.chunks / g.wall_s for g in generators if g.wall_s > 0),
    }


def tokens(cell: CellData) -> dict[str, float]:
    asked = sum(r.prompt_tokens or r.prompt_length or 0 for r in cell.good)
    cached = [r.cached_tokens for r in cell.good if r.cached_tokens is not None]
    output = sum(r.completion_tokens or 0 for r in cell.good)
    chunks = sum(1 + len(r.gaps_us) for r in cell.good)
    values = {
        "requests_ok": float(len(cell.good)),
        "requests_failed": float(len(cell.requests) - len(cell.good)),
        "input_tokens": float(asked),
        "output_tokens": float(output),
        "tokens_per_chunk": output / chunks if chunks else 0.0,
        "duration_s": cell.duration_s,
    }
    if cached and asked:
        values["prefix_hit_share"] = sum(cached) / asked
    before, after = cell.record.metrics_before, cell.record.metrics_after
    drawn, guessed = (after.get(name, 0.0) - before.get(name, 0.0) for name in _STEP_TOKENS)
    if drawn > 0:
        values["tokens_per_step"] = (drawn + guessed) / drawn
    return values


def summarize(cell: CellData, slos: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Every figure of one cell, by name. Headline throughput is that of the judged window."""
    values = {**tokens(cell), **latencies(cell), **server_load(cell), **client_load(cell)}
    whole, steady = throughput(cell, steady=False), throughput(cell, steady=True)
    values |= {f"{name}_whole": value for name, value in whole.items()}
    values |= {f"{name}_steady": value for name, value in steady.items()}
    values |= steady if cell.is_steady else whole
    kind = scenarios.known().get(cell.record.spec.workload.kind)
    values |= kind.figures(cell.good) if kind else {}
    for name, slo in slos.items():
        values[f"goodput_{name}_rps"], values[f"attained_{name}"] = goodput(cell, slo)
    return values


def errors(cell: CellData) -> dict[str, int]:
    return dict(sorted(Counter(r.error for r in cell.requests if r.error is not None).items()))
