"""What `rllm-serve top` shows: the numbers of one moment as rich tables."""

from __future__ import annotations

import time

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rllm.top.history import History
from rllm.top.scrape import Reading
from rllm.top.words import bar, count, duration, memory, number, share

_GOOD = {"ready": "green", "closed": "green", "loading": "yellow", "half_open": "yellow"}


def frame(history: History, url: str, trouble: str | None = None) -> RenderableType:
    """Fits 80 columns. ``trouble``: why there is nothing newer."""
    parts: list[RenderableType] = [_heading(history, url)]
    if trouble:
        parts.append(Text(f"stale: {trouble}", style="bold red"))
    parts += [_instances(history.last), _speeds(history), _latencies(history), _outcomes(history.last)]
    if history.last.samples.get("rllm_gpu_memory_bytes"):
        parts.append(_gpus(history.last))
    parts.append(_processes(history))
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def _heading(history: History, url: str) -> Text:
    now = history.last
    version = next(iter(now.labels("rllm_build_info", "version")), "")
    started = now.total("rllm_process_start_time_seconds", process="api")
    up = "" if started is None else f", up {duration(time.time() - started)}"
    in_flight = count(now.total("rllm_requests_in_flight"))
    return Text.assemble((f"rllm {version}", "bold"), f" at {url}{up}, {in_flight} requests in flight")


def _instances(now: Reading) -> Table:
    table = _table("Instance", "State", "Breaker", "Slots", "Queue", "Oldest", "KV cells")
    for name in now.labels("rllm_instance_state", "instance"):
        slots, taken = (now.total(f"rllm_slots{part}", instance=name) for part in ("", "_used"))
        cells, held = (now.total(f"rllm_kv_cells{part}", instance=name) for part in ("", "_used"))
        waiting = now.total("rllm_queue_depth", instance=name)
        table.add_row(
            name,
            _state(now, "rllm_instance_state", name),
            _state(now, "rllm_breaker_state", name),
            bar(taken, slots, f"{count(taken)}/{count(slots)}"),
            Text(count(waiting), style="yellow" if waiting else ""),
            duration(now.total("rllm_queue_oldest_seconds", instance=name) if waiting else None),
            bar(held, cells, share(held, cells)),
        )
    return table


def _speeds(history: History) -> Table:
    table = _table("Instance", right=("generated/s", "prefilled/s", "batch", "step", "preempted", "restarts"))
    now = history.last
    for name in now.labels("rllm_instance_state", "instance"):
        table.add_row(
            name,
            number(now.total("rllm_tokens_per_second", instance=name, kind="decode")),
            number(now.total("rllm_tokens_per_second", instance=name, kind="prefill")),
            number(history.mean("rllm_decode_batch_size", instance=name)),
            duration(history.mean("rllm_step_seconds", instance=name)),
            count(now.total("rllm_preemptions_total", instance=name)),
            count(now.total("rllm_worker_restarts_total", instance=name)),
        )
    return table


def _latencies(history: History) -> Table:
    window = f"last {history.span_s:.0f} s" if history.span_s > 0 else "since start"
    headings = ("TTFT p50", "p99", "ITL p50", "p99", "e2e p50", "p99")
    table = _table(f"Model, {window}", right=headings)
    names = ("time_to_first_token", "inter_token_latency", "e2e_latency")
    for model in history.last.labels("rllm_model_info", "model"):
        times = [
            duration(history.quantile(f"rllm_{name}_seconds", q, model=model))
            for name in names
            for q in (0.5, 0.99)
        ]
        table.add_row(model, *times)
    return table


def _outcomes(now: Reading) -> Table:
    headings = ("finished", "cancelled", "failed", "refused", "late", "reused")
    table = _table("Model, since start", "level", right=headings)
    for model in now.labels("rllm_model_info", "model"):
        level = now.total("rllm_degradation_level", model=model) or 0
        ended = {
            reason: now.total("rllm_sequences_finished_total", model=model, reason=reason) or 0
            for reason in ("stop", "length", "cancelled", "error")
        }
        lost = now.total("rllm_sequences_lost_total", model=model, outcome="failed") or 0
        reused = now.total("rllm_cached_prompt_tokens_total", model=model)
        table.add_row(
            model,
            Text(count(level), style="bold yellow" if level else "green"),
            count(ended["stop"] + ended["length"]),
            count(ended["cancelled"]),
            count(ended["error"] + lost),
            count(now.total("rllm_rejections_total", model=model) or 0),
            count(now.total("rllm_timeouts_total", model=model) or 0),
            share(reused, now.total("rllm_prompt_tokens_total", model=model)),
        )
    return table


def _gpus(now: Reading) -> Table:
    table = _table("GPU", "Memory", "Utilization", "Power", "Temperature")
    for index in now.labels("rllm_gpu_memory_bytes", "gpu"):
        used, there = (now.total(f"rllm_gpu_memory_{n}bytes", gpu=index) for n in ("used_", ""))
        busy = now.total("rllm_gpu_utilization_ratio", gpu=index)
        name = next(iter(now.labels("rllm_gpu_memory_bytes", "name", gpu=index)), "")
        table.add_row(
            f"{index} {name}",
            bar(used, there, f"{memory(used)} of {memory(there)}"),
            bar(busy, 1.0, share(busy, 1.0)),
            f"{number(now.total('rllm_gpu_power_watts', gpu=index))} W",
            f"{count(now.total('rllm_gpu_temperature_celsius', gpu=index))} °C",
        )
    return table


def _processes(history: History) -> Text:
    now, line = history.last, Text("processes", style="dim")
    for name in now.labels("rllm_process_resident_memory_bytes", "process"):
        busy = history.rate("rllm_process_cpu_seconds_total", process=name)
        resident = memory(now.total("rllm_process_resident_memory_bytes", process=name))
        line.append(f"   {name} {resident}" + ("" if busy is None else f", {share(busy, 1.0)} CPU"))
    return line


def _state(now: Reading, name: str, instance: str) -> Text:
    states = [found["state"] for found, value in now.select(name, instance=instance) if value == 1]
    state = states[0] if states else "–"
    return Text(state, style=_GOOD.get(state, "bold red"))


def _table(*headings: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
