"""The tables of a report, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tabulate import tabulate

from rllm_bench.ceiling.file import Ceiling
from rllm_bench.figures import cost
from rllm_bench.figures.compare import compare
from rllm_bench.figures.summary import Result, Summary
from rllm_bench.figures.words import estimate, listed, number, plural, slo
from rllm_bench.records.runs import RunRecord
from rllm_bench.report import checks
from rllm_bench.report.answer import choose, keepers, loads_of, standing

_ABOUT = ("tokens in → out", "load", "subject")
"""The columns that say what a row is about."""


def markdown(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    align = ["left" if _is_text(rows, column) else "right" for column in range(len(headers))]
    return tabulate(
        rows, headers=headers, tablefmt="github", disable_numparse=True, colalign=align if rows else None
    )


def unaligned(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The lines of a table whose cells are not aligned."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _is_text(rows: Sequence[Sequence[object]], column: int) -> bool:
    return any(str(row[column])[:1].isalpha() or str(row[column])[:1] in "`*" for row in rows)


def load_name(result: Result) -> str:
    if result.load.mode == "closed":
        return plural(result.load.concurrency or 1, "user")
    limit = f", at most {result.load.concurrency} in flight" if result.load.concurrency else ""
    return f"{number(result.load.rate)} req/s {result.load.arrival}{limit}"


def shape_name(shape: tuple[int, int]) -> str:
    return f"{shape[0]}-token prompts, {shape[1]}-token answers"


_NOBODY = "nobody keeps the goal"


def best_per_load(summary: Summary) -> str:
    """The first page's table: what to take where, what is as good, and by how much the next is behind."""
    rows = []
    for shape in summary.shapes:
        for group in loads_of(summary, shape):
            kept = keepers(summary, group)
            if not kept:
                rows.append([f"{shape[0]} → {shape[1]}", load_name(group[0]), _NOBODY, *["–"] * 4])
                continue
            taken, first = choose(summary, standing(summary, kept)), standing(summary, kept, "ttft_p50_ms")
            behind = taken.behind
            next_one = next((row for row in group if behind and row.subject == behind.old), None)
            rows.append(
                [
                    f"{shape[0]} → {shape[1]}",
                    load_name(taken.result),
                    f"**{marked(summary, taken.result)}**",
                    number(taken.result["output_tps"]),
                    listed(taken.same) or "–",
                    f"{marked(summary, next_one)}: {behind}" if next_one else "–",
                    f"{listed([row.subject for row in first.best])}: {number(first.best[0]['ttft_p50_ms'])}"
                    if first.best
                    else "–",
                ]
            )
    headers = ["tokens in → out", "load", "for this load alone", "tokens/s", "no different", "next"]
    return markdown([*headers, "soonest first token, p50 (ms)"], rows)


def marked(summary: Summary, result: Result) -> str:
    """The subject, with a mark if others used the machine meanwhile."""
    return f"{result.subject}{' †' if checks.is_disturbed(summary, result) else ''}"


def latency_table(summary: Summary, shape: tuple[int, int]) -> str:
    headers = ["load", "subject", "tokens/s", "req/s", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99"]
    headers += ["ITL p99", "e2e p50", "e2e p99", "failed"]
    return markdown(headers, [_latency_row(summary, result) for result in _of(summary, shape)])


def _latency_row(summary: Summary, result: Result) -> list[str]:
    names = ("ttft_p50", "ttft_p99", "tpot_p50", "tpot_p99", "itl_p99", "e2e_p50", "e2e_p99")
    asked = sum(len(cell.requests) for cell in result.cells)
    return [
        load_name(result),
        marked(summary, result),
        estimate(result.values["output_tps"], spread=True),
        number(result.get("request_rps")),
        *(estimate(result.values.get(f"{name}_ms")) for name in names),
        f"{asked - sum(len(cell.good) for cell in result.cells)}/{asked}",
    ]


def goodput_table(summary: Summary) -> str:
    headers = [*_ABOUT]
    headers += [f"{slo(name, limits)}: req/s (share)" for name, limits in summary.slos.items()]
    rows = []
    for result in _measured(summary):
        cells = [
            f"{estimate(result.values[f'goodput_{name}_rps'])} ({100 * result[f'attained_{name}']:.0f} %)"
            for name in summary.slos
        ]
        rows.append([*_about(result), *cells])
    return markdown(headers, rows)


def resource_table(summary: Summary) -> str:
    """Columns that nobody has are left out."""
    columns = {
        "memory of the server, peak (MB)": "pss_peak_mb",
        "GPU memory in use, peak (MB)": "gpu_memory_peak_mb",
        "GPU power, mean (W)": "gpu_power_mean_w",
        "server CPU (cores)": "server_cpu_cores",
        "KV cache, peak share": "kv_usage_peak",
        "prompt tokens from cache": "prefix_hit_share",
        "tokens per chunk": "tokens_per_chunk",
        "generator lag p99 (ms)": "client_lag_p99_ms",
    }
    rows_of = list(_measured(summary))
    shown = {title: name for title, name in columns.items() if any(name in r.values for r in rows_of)}
    rows = [[*_about(r), *(number(r.get(name)) for name in shown.values())] for r in rows_of]
    return markdown([*_ABOUT, *shown], rows)


def cost_table(summary: Summary, run: RunRecord) -> str:
    """At full use of the machine under each load; idle hours cost the same and bring nothing."""
    if run.price_per_hour is None:
        return ""
    rows = []
    for result in _measured(summary):
        output = cost.per_1k_tokens(run.price_per_hour, result["output_tps"])
        total = cost.per_1k_tokens(run.price_per_hour, result["total_tps"])
        rows.append([*_about(result), f"{output:.6f}", f"{total:.6f}"])
    return markdown([*_ABOUT, "USD per 1k output tokens", "USD per 1k tokens in and out"], rows)


def roofline_table(summary: Summary, ceilings: Sequence[Ceiling]) -> str:
    """Measured decode rate over what the memory could stream: each step reads all weights once."""
    bandwidth = max(ceiling.bandwidth_bytes_s for ceiling in ceilings)
    rows = []
    for result in _measured(summary):
        size, users = summary.sizes.get(result.subject), result.load.concurrency
        tpot = result.get("tpot_p50_ms")
        if not size or not users or not tpot or result.load.mode != "closed":
            continue
        bound = bandwidth / size
        engine = next((c.decode_tps(users) for c in ceilings if c.model_bytes == size), None)
        reached = 1000 / tpot
        rows.append(
            [
                *_about(result),
                number(reached),
                number(bound),
                f"{100 * reached / bound:.0f} %",
                number(reached * users),
                number(engine),
                f"{100 * reached * users / engine:.0f} %" if engine else "–",
            ]
        )
    headers = [*_ABOUT, "steps/s (1/TPOT)", "memory bound", "of it"]
    headers += ["decode tokens/s", "engine alone", "of it"]
    return markdown(headers, rows)


def verdict_table(summary: Summary, baseline: str) -> str:
    """Every subject against one, in throughput and median TTFT."""
    rows = []
    for result in _measured(summary):
        other = summary.find(baseline, result.group, result.part)
        if other is None or other is result:
            continue
        found = [
            compare(result, other, metric, summary.slos)
            for metric in ("output_tps", "ttft_p50_ms", "tpot_p50_ms")
        ]
        rows.append([*_about(result), *(str(one) if one else "–" for one in found)])
    return markdown([*_ABOUT, "tokens/s", "TTFT p50", "TPOT p50"], rows) if rows else ""


def _about(result: Result) -> list[str]:
    return [f"{result.shape[0]} → {result.shape[1]}", load_name(result), result.subject]


def _of(summary: Summary, shape: tuple[int, int]) -> Iterator[Result]:
    return (result for result in _measured(summary) if result.shape == shape)


def _measured(summary: Summary) -> Iterator[Result]:
    return (result for result in summary.results if result.values)
