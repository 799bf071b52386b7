"""What a run leaves on disk: plain records, from which every number of a report is computed again.

Times are whole microseconds since the start of their cell, so that a record read back is the record
that was written. Nothing here is derived; what can be computed is computed by `metrics`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

UsageSource = Literal["server", "length", "chunks", "none"]
"""Where a token count comes from: the server's `usage`; a `length` finish, which fixes it; the number of
content chunks, which is a guess; or nowhere."""

PromptFormat = Literal["ids", "text", "chat"]


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request as the client saw it."""

    index: int
    """Position in the workload: the same index is the same prompt for every target."""
    turn: int = 0
    role: str = ""
    """What it was in its scenario, where that has several: a stream, a newcomer."""
    process: int = 0
    scheduled_us: int
    """When the request was due. Latencies count from here, so that a late generator or a stalled server
    cannot hide a wait."""
    sent_us: int
    first_us: int | None = None
    """Arrival of the first non-empty content."""
    gaps_us: list[int] = []
    """Gaps between the following content chunks."""
    last_us: int | None = None
    """Last token: the last content, or the chunk with the finish reason where that came later."""
    closed_us: int
    status: int = 0
    finish_reason: str | None = None
    max_tokens: int
    prompt_length: int | None = None
    """Tokens sent, where the prompt was sent as token ids."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    usage_source: UsageSource = "none"
    error: str | None = None
    """Kind of failure: connect, timeout, http_NNN, stream, no_tokens. None means the request counts."""
    error_detail: str | None = None
    text_hash: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


class GeneratorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How the load generator itself did in one process: whether its clocks can be believed."""

    process: int
    wall_s: float
    cpu_s: float
    loop_lag_p50_ms: float
    loop_lag_p99_ms: float
    loop_lag_max_ms: float
    chunks: int
    priority_raised: bool
    warmup_errors: int = 0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How requests arrive. Closed loop: `concurrency` users, each sends when its last answer is complete.
    Open loop: `rate` requests per second on a schedule fixed before the run."""

    mode: Literal["closed", "open"] = "closed"
    concurrency: int | None = None
    """Closed: the number of users. Open: most requests in flight, None for no limit."""
    rate: float | None = None
    arrival: Literal["poisson", "constant", "gamma", "ramp", "trace"] = "poisson"
    burstiness: float = 1.0
    """Shape of the gamma distribution: below 1 is burstier than Poisson, above 1 is more regular."""
    ramp_to: float | None = None
    """With `ramp`: the rate at the end; `rate` is the one at the start."""

    @property
    def label(self) -> str:
        if self.mode == "closed":
            return f"c{self.concurrency}"
        return f"q{self.rate:g}"


class WorkloadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked. The same spec and seed are the same prompts, token by token."""

    kind: str = "unique"
    """The scenario."""
    prompt_tokens: int = 128
    output_tokens: int = 64
    prefix_tokens: int = 0
    """shared-prefix: tokens that groups of prompts have in common, counted inside prompt_tokens."""
    prefix_groups: int = 1
    warm_prefix: bool = False
    """shared-prefix: each prefix is asked for once before the cell."""
    turns: int = 1
    seed: int = 0
    path: str | None = None
    """file: JSONL with `prompt` or `token_ids`, and optionally `max_tokens` and `at_s`."""
    file_sha256: str | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What every server of a run is given alike; each target says it in its own options."""

    slots: int
    ctx_per_slot: int
    threads: int | None = None
    prefix_cache: bool = True
    kv_cells: int | None = None
    """Tokens that the cache of all slots together holds, where that is less than slots times context."""
    extra: dict[str, list[str]] = {}
    """Further options by engine; a report that has any calls that engine tuned."""


class CellSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement: a target under one load with one workload, once."""

    subject: str
    workload: WorkloadSpec
    load: Load
    num_requests: int
    min_duration_s: float = 0.0
    """Keep sending until this much has passed, even when num_requests have been sent."""
    max_duration_s: float | None = None
    """Send no more after this: a slow target shortens its own cell, and the report says so."""
    num_warmups: int = 0
    repeat: int = 0
    intervals: bool = True
    """False: too few requests for intervals; the report calls the cell indicative."""
    timeout_s: float = 600.0
    part: str = ""
    """Of a plan that has several."""
    body: dict[str, Any] = {}
    """Further fields of every request; null takes one away."""
    settings: Settings | None = None
    """Of its servers, where they differ from those of the run."""

    @property
    def group(self) -> str:
        """The cell without subject and repeat: what is compared across subjects."""
        work = self.workload
        kind = "" if work.kind == "unique" else f"{work.kind}-"
        extra = f"-x{work.prefix_tokens}" if work.prefix_tokens else ""
        return f"{kind}{self.load.label}-p{work.prompt_tokens}-o{work.output_tokens}{extra}"

    @property
    def id(self) -> str:
        part = f"{self.part}." if self.part else ""
        return f"{part}{self.subject}-{self.group}-r{self.repeat}"


class CellRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a finished cell that is not one request. Written last: its presence means done."""

    spec: CellSpec
    workload_hash: str
    prompt_format: PromptFormat
    target: dict[str, Any]
    """Engine, version, command line, settings and model file of the server that was measured."""
    started_at: str
    generators: list[GeneratorRecord]
    metrics_before: dict[str, float] = {}
    metrics_after: dict[str, float] = {}
    error: str | None = None
    """The cell as a whole failed (the server died, it never became ready)."""


def failed_cell(spec: CellSpec, reason: str) -> CellRecord:
    """Of a cell of which nothing was measured: its server did not start, or died."""
    engine, _, variant = spec.subject.partition("/")
    return CellRecord(
        spec=spec,
        workload_hash="",
        prompt_format="ids",
        target={"engine": engine, "variant": variant},
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        generators=[],
        error=reason,
    )


class TelemetrySample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The server and the machine at one moment of a cell."""

    at_us: int
    rss_bytes: int | None = None
    pss_bytes: int | None = None
    cpu_s: float | None = None
    """Processor time of the server's processes so far."""
    gpu_memory_bytes: int | None = None
    """Of the server's processes where NVML tells, else of the whole card."""
    gpu_card_bytes: int | None = None
    gpu_power_w: float | None = None
    gpu_utilization: float | None = None
    machine_busy: float | None = None
    """Share of all cores that was busy, with every process of the machine."""
    gauges: dict[str, float] = {}
    """Selected gauges of the server's /metrics."""


@dataclass(frozen=True)
class Cell:
    """All that was recorded of one cell."""

    record: CellRecord
    requests: Sequence[RequestRecord]
    telemetry: Sequence[TelemetrySample] = ()
