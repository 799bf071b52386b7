"""One page out of the records of a study: the figures side by side, and the goals they are held against."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from rllm_bench.figures import cost
from rllm_bench.figures.words import machine
from rllm_bench.study import goals
from rllm_bench.study.rows import Row, rows

_CORE = ("layout", "core-q4", "core-f16", "core-q8", "wide", "wide-f16", "corners", "corners-f16")


def page(folder: Path) -> str:
    found, runs = rows(folder)
    if not runs:
        return f"{folder} holds no run\n"
    cards = sorted({card["name"] for run in runs for card in run.environment["gpus"]}) or ["no GPU"]
    price = next((run.price_per_hour for run in runs if run.price_per_hour), None)
    lines = [
        f"# The GPU study: {', '.join(cards)}",
        "",
        f"Machine: {'; '.join(sorted({machine(run.environment) for run in runs}))}. Commit "
        f"{', '.join(sorted({str(run.environment['git'].get('commit'))[:12] for run in runs}))}. "
        "Closed loop, streamed, token-id prompts, fixed output length, tokens from `usage`; medians over the "
        "repeats, and every figure can be computed again from the records beside this page.",
        "",
        "## Goals",
        "",
        *goals.table(found),
        "",
        *_tables(found, price),
        *_memory(folder),
    ]
    if price is not None:
        lines += [
            "",
            f"Price: {price} USD an hour ({runs[0].price_source}), the card taken to be fully used.",
        ]
    return "\n".join(lines) + "\n"


# --- the figures --------------------------------------------------------------------------------

_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("tok/s", "output_tps", ",.0f"),
    ("TTFT p50 ms", "ttft_p50_ms", ",.0f"),
    ("p99", "ttft_p99_ms", ",.0f"),
    ("TPOT p50 ms", "tpot_p50_ms", ".1f"),
    ("ITL p50 ms", "itl_p50_ms", ".1f"),
    ("p99", "itl_p99_ms", ".1f"),
    ("GPU GB", "gpu_memory_peak_mb", ""),
    ("W", "gpu_power_mean_w", ".0f"),
    ("from cache", "prefix_hit_share", ".0%"),
)


def _tables(found: list[Row], price: float | None) -> Iterator[str]:
    for piece in dict.fromkeys(sorted((row.piece for row in found), key=_order)):
        mine = sorted(
            (row for row in found if row.piece == piece), key=lambda row: (row.concurrency, row.group)
        )
        yield f"## {piece}"
        yield ""
        yield "| | load | " + " | ".join(head for head, _, _ in _COLUMNS) + " | USD per 1k | repeats |"
        yield "| --- " * (len(_COLUMNS) + 4) + "|"
        for row in mine:
            yield _line(row, price)
        yield ""


def _line(row: Row, price: float | None) -> str:
    shown = []
    for _, name, form in _COLUMNS:
        value = row.values.get(name)
        if value is None:
            shown.append("–")
        else:
            shown.append(f"{value / 1e3:.1f}" if name.endswith("_mb") else f"{value:{form}}")
    rate = row.values.get("output_tps", 0.0)
    shown.append(f"{cost.per_1k_tokens(price, rate):.5f}" if price and rate else "–")
    failed = f", {row.failed} FAILED" if row.failed else ""
    return f"| {row.subject} | {row.group} | {' | '.join(shown)} | {row.repeats}{failed} |"


def _order(piece: str) -> tuple[int, str]:
    return (_CORE.index(piece) if piece in _CORE else len(_CORE), piece)


# --- memory -------------------------------------------------------------------------------------

_SAID = re.compile(
    r"(model|KV|compute|output) buffer size|Model loading took|GPU KV cache size|Available KV|graph", re.I
)


def _memory(folder: Path) -> Iterator[str]:
    """What each server held, by NVML, and what its log says that it allocated."""
    yield "## Memory of the servers"
    for file in sorted(folder.glob("*/servers.json")):
        servers: list[dict[str, Any]] = msgspec.json.decode(file.read_bytes())
        yield ""
        yield f"**{file.parent.name}**"
        yield ""
        for server in servers:
            held = server.get("gpu_bytes_by_process_now") or server.get("gpu_bytes_by_process") or {}
            grown = server.get("card_bytes_grown")
            parts = [f"process {pid}: {size / 1e9:.2f} GB" for pid, size in held.items()]
            parts += [f"card grew by {grown / 1e9:.2f} GB at its start"] if grown is not None else []
            yield f"- {server['subject']}: {', '.join(parts) or 'unknown'}"
            for text in [text for text in server["log"] if _SAID.search(text)][:8]:
                yield f"  - `{text.strip()[:160]}`"
