"""How long a cell will probably take: a guess, then what was measured. No report takes anything from it."""

from __future__ import annotations

import math

from rllm_bench.records.cells import CellSpec
from rllm_bench.records.runs import RunRecord

_CPU_BYTES_S, _GPU_BYTES_S = 10e9, 2.3e12
_CPU_MOST_TPS, _GPU_MOST_TPS = 120.0, 210.0
_CELL_S = 1.5
"""Generators started, synchronised, read; records written."""
_START_S = {"rllm": 14.0, "llama-server": 10.0, "vllm": 130.0}
_SMALL_START_S = 3.0


class Pace:
    """Of one run on its machine."""

    def __init__(self, run: RunRecord) -> None:
        self._sizes = {known.name: known.model_bytes for known in run.subjects}
        self._on_gpu = bool(run.environment.get("gpus"))
        self._measured: dict[tuple[str, str], float] = {}

    def note(self, spec: CellSpec, seconds: float) -> None:
        self._measured[spec.subject, spec.group] = seconds

    def cell_s(self, spec: CellSpec) -> float:
        if (known := self._measured.get((spec.subject, spec.group))) is not None:
            return known
        return _guess_s(spec, self._sizes.get(spec.subject), self._on_gpu)

    def start_s(self, engine: str) -> float:
        return _START_S.get(engine, 10.0) if self._on_gpu else _SMALL_START_S

    def total_s(self, run: RunRecord) -> float:
        """Of all cells and starts."""
        starts: dict[object, str] = {}
        for spec in run.cells:
            again = spec.repeat if run.hosting != "kept" else 0
            starts[spec.subject, repr(spec.settings), again] = spec.subject.partition("/")[0]
        return sum(map(self.cell_s, run.cells)) + sum(map(self.start_s, starts.values()))


def _guess_s(spec: CellSpec, model_bytes: int | None, on_gpu: bool) -> float:
    """A machine that streams its weights, batches with the root of the users, and prefills faster than it
    decodes one stream: six times on processors, sixty times on a GPU."""
    size = max(model_bytes or 1_000_000_000, 1)
    bandwidth, most = (_GPU_BYTES_S, _GPU_MOST_TPS) if on_gpu else (_CPU_BYTES_S, _CPU_MOST_TPS)
    single = min(most, bandwidth / size)
    users = spec.load.concurrency or 8
    decode = single * min(16.0 if on_gpu else 2.5, math.sqrt(users))
    work = spec.workload
    own = max(1, work.prompt_tokens - work.prefix_tokens) * (1 + work.turns) / 2
    one = work.turns * (own / ((60 if on_gpu else 6) * single) + work.output_tokens / decode)
    seconds = spec.num_requests * one
    if spec.load.mode == "open" and spec.load.rate:
        seconds = max(seconds, spec.num_requests / spec.load.rate)
    elif spec.max_duration_s is not None:
        seconds = min(seconds, spec.max_duration_s + 5)
    return _CELL_S + min(spec.num_warmups, users) * one + max(seconds, spec.min_duration_s)
