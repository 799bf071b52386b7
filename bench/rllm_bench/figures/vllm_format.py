"""A cell in the keys of `vllm bench serve --save-result --save-detailed`, by its definitions: latencies
from when a request was sent, all requests of the run, population standard deviation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rllm_bench.figures.metrics import CellData, meets, token_times, tpot_ms
from rllm_bench.figures.stats import PERCENTILES, Array
from rllm_bench.records.cells import RequestRecord


def result(cell: CellData, slo: Mapping[str, float] | None) -> dict[str, Any]:
    record, good = cell.record, cell.good
    spec, duration = record.spec, cell.duration_s
    inputs = sum(r.prompt_tokens or r.prompt_length or 0 for r in good)
    outputs = sum(r.completion_tokens or 0 for r in good)
    fields: dict[str, Any] = {
        "date": record.started_at,
        "endpoint_type": "openai" if record.prompt_format != "chat" else "openai-chat",
        "backend": record.target.get("engine"),
        "label": spec.subject,
        "model_id": record.target.get("model_name"),
        "tokenizer_id": None,
        "num_prompts": len(cell.requests),
        "request_rate": spec.load.rate if spec.load.mode == "open" else "inf",
        "burstiness": spec.load.burstiness,
        "max_concurrency": spec.load.concurrency,
        "duration": duration,
        "completed": len(good),
        "failed": len(cell.requests) - len(good),
        "total_input_tokens": inputs,
        "total_output_tokens": outputs,
        "request_throughput": len(good) / duration,
        "request_goodput": None if slo is None else sum(meets(r, slo, r.sent_us) for r in good) / duration,
        "output_throughput": outputs / duration,
        "total_token_throughput": (inputs + outputs) / duration,
        **_peaks(cell),
    }
    for name, values in _series(good).items():
        fields |= _spread(name, values)
    return {**fields, **_detail(cell)}


def _series(good: list[RequestRecord]) -> dict[str, Array]:
    ttft = [(r.first_us - r.sent_us) / 1e3 for r in good if r.first_us is not None]
    tpot = [value for r in good if (value := tpot_ms(r)) is not None]
    itl = [gap / 1e3 for r in good for gap in r.gaps_us]
    e2el = [(r.last_us - r.sent_us) / 1e3 for r in good if r.last_us is not None]
    return {
        name: np.asarray(values, dtype=np.float64)
        for name, values in (("ttft", ttft), ("tpot", tpot), ("itl", itl), ("e2el", e2el))
    }


def _spread(name: str, values: Array) -> dict[str, float]:
    if not len(values):
        return {}
    return {
        f"mean_{name}_ms": float(values.mean()),
        f"median_{name}_ms": float(np.median(values)),
        f"std_{name}_ms": float(values.std()),
        **{f"p{q}_{name}_ms": float(np.percentile(values, q)) for q in PERCENTILES},
    }


def _peaks(cell: CellData) -> dict[str, float]:
    """Most tokens within one whole second, and most requests in flight at the same time."""
    times, weights = token_times(cell.good)
    per_second = np.bincount(times.astype(np.int64), weights=weights) if len(times) else np.zeros(1)
    moves = sorted([(r.sent_us, 1) for r in cell.requests] + [(r.closed_us, -1) for r in cell.requests])
    running, most = 0, 0
    for _, step in moves:
        running += step
        most = max(most, running)
    return {"max_output_tokens_per_s": float(per_second.max()), "max_concurrent_requests": most}


def _detail(cell: CellData) -> dict[str, Any]:
    rows = cell.requests
    return {
        "input_lens": [r.prompt_tokens or r.prompt_length or 0 for r in rows],
        "output_lens": [r.completion_tokens or 0 for r in rows],
        "ttfts": [0.0 if r.first_us is None else (r.first_us - r.sent_us) / 1e6 for r in rows],
        "itls": [[gap / 1e6 for gap in r.gaps_us] for r in rows],
        "latencies": [0.0 if r.last_us is None else (r.last_us - r.sent_us) / 1e6 for r in rows],
        "start_times": [r.sent_us / 1e6 for r in rows],
        "queue_times": [(r.sent_us - r.scheduled_us) / 1e6 for r in rows],
        "errors": [r.error or "" for r in rows],
    }
