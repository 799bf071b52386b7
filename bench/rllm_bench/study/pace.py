"""How long a cell will probably take: from figures of an H100 with an 8B shape, then from what was measured.

The table is for planning only: nothing in a report comes from it.
"""

from __future__ import annotations

from rllm_bench.records.cells import CellSpec

# tok/s at 400/128 by concurrency, and prompt tokens per second of the longer prompts; on the careful side
_RATES: dict[tuple[str, str], tuple[dict[int, float], float]] = {
    ("rllm", "q4_k_m"): ({1: 210, 8: 700, 32: 1300, 64: 1600, 128: 1800}, 9_000),
    ("rllm", "q8_0"): ({1: 185, 8: 700, 32: 1400, 64: 1800, 128: 2000}, 10_000),
    ("rllm", "f16"): ({1: 145, 8: 650, 32: 1500, 64: 2300, 128: 2800}, 20_000),
    ("llama-server", "q4_k_m"): ({1: 210, 8: 610, 32: 750, 64: 850, 128: 900}, 7_000),
    ("llama-server", "q8_0"): ({1: 185, 8: 650, 32: 800, 64: 1000, 128: 1000}, 8_000),
    ("llama-server", "f16"): ({1: 145, 8: 620, 32: 800, 64: 1000, 128: 1100}, 12_000),
    ("vllm", "f16"): ({1: 155, 8: 1150, 32: 3300, 64: 5500, 128: 7000}, 25_000),
}
_UNKNOWN: tuple[dict[int, float], float] = ({1: 100, 8: 400, 32: 700}, 5_000)
_OVERHEAD_S = 1.8
"""Generators started, synchronised, read; records written."""
START_S = {"rllm": 14.0, "llama-server": 10.0, "vllm": 130.0}


class Pace:
    def __init__(self) -> None:
        self._measured: dict[tuple[str, str], float] = {}

    def note(self, spec: CellSpec, seconds: float) -> None:
        self._measured[spec.subject, spec.group] = seconds

    def cell_s(self, spec: CellSpec) -> float:
        if (known := self._measured.get((spec.subject, spec.group))) is not None:
            return known
        engine, _, variant = spec.subject.partition("/")
        rates, prefill = _RATES.get((engine, variant.partition("+")[0]), _UNKNOWN)
        users, work = spec.load.concurrency or 1, spec.workload
        rate = max((rate for c, rate in rates.items() if c <= users), default=100.0)
        further = max(0, work.prompt_tokens - work.prefix_tokens - 400)
        one = work.output_tokens / rate + further / prefill
        warming = min(spec.num_warmups, users) * one
        return _OVERHEAD_S + warming + spec.num_requests * one
