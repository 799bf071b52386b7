"""What a report must say against itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rllm_bench.figures import words
from rllm_bench.figures.metrics import CellData, client_load, errors, server_load
from rllm_bench.figures.summary import Result, Summary
from rllm_bench.records.runs import RunRecord

LAG_LIMIT_MS = 5.0
LAG_SHARE = 0.05
"""Of the median TTFT: more delay of our own than this, and the cell is invalid."""
BUSY_LIMIT = 0.1
"""Of the machine used by others: more than this, and a cell's figures are marked."""
FEW_REQUESTS = 100
"""With fewer requests than this the 99th percentile is the slowest one."""


def invalid(cell: CellData) -> str | None:
    """Why a cell's latencies must not be quoted: the load generator measured itself."""
    load = client_load(cell)
    if not load or not len(cell.ttft_ms):
        return None
    lag = max(load["client_lag_p99_ms"], load["client_late_p99_ms"] if not _waits_by_design(cell) else 0.0)
    median = float(sorted(cell.ttft_ms)[len(cell.ttft_ms) // 2])
    if lag > LAG_LIMIT_MS and lag > LAG_SHARE * median:
        return (
            f"the load generator was {lag:.1f} ms late at p99, {100 * lag / median:.0f} % of the median TTFT"
        )
    if load["client_cpu_cores"] > 0.9 * len(cell.record.generators):
        return "the load generator had no processor time left"
    return None


def _waits_by_design(cell: CellData) -> bool:
    """An open loop with a limit on requests in flight queues in the client, and counts it as latency."""
    return cell.record.spec.load.mode == "open" and cell.record.spec.load.concurrency is not None


def warnings(summary: Summary) -> Iterator[str]:
    """One sentence each, the gravest first."""
    for result in summary.results:
        yield from _failures(result)
    yield from _invalid_cells(summary)
    yield from _machines(summary)
    yield from _busy(summary)
    yield from _repeats(summary)
    yield from _few(summary)
    yield from _counts(summary)
    yield from _shortened(summary)
    yield from _checkouts(summary)


def _failures(result: Result) -> Iterator[str]:
    for reason in result.failed:
        yield f"{result.subject} {result.group}: not measured: {reason.splitlines()[0]}"
    kinds: Counter[str] = Counter()
    total = 0
    for cell in result.cells:
        kinds.update(errors(cell))
        total += len(cell.requests)
    if kinds:
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        yield (
            f"{result.subject} {result.group}: {sum(kinds.values())} of {total} requests failed ({listed}) "
            "and are not in the latency figures"
        )


def _invalid_cells(summary: Summary) -> Iterator[str]:
    found = [(cell, reason) for cell in summary.cells if (reason := invalid(cell)) is not None]
    for cell, reason in found[:5]:
        yield f"{cell.record.spec.id} is invalid: {reason}"
    if len(found) > 5:
        yield f"{len(found) - 5} more cells are invalid for the same kind of reason"


def _machines(summary: Summary) -> Iterator[str]:
    kinds = {words.machine(run.environment) for run in summary.runs}
    if len(kinds) > 1:
        yield (
            "runs of different machines are shown together and must not be compared: "
            f"{'; '.join(sorted(kinds))}"
        )


def _checkouts(summary: Summary) -> Iterator[str]:
    for run in summary.runs:
        git = run.environment["git"]
        if git["dirty"]:
            yield (
                f"run {run.name} was made from a changed checkout of {git['commit'][:10]}: it cannot be "
                "reproduced exactly"
            )
        if git["commit"] is None:
            yield f"run {run.name} was made outside a git checkout: its code is known by package version only"


def _repeats(summary: Summary) -> Iterator[str]:
    fewest = min((len(result.cells) for result in summary.results if result.cells), default=0)
    if summary.indicative or fewest < 3:
        yield (
            f"{fewest} repeat{'s' if fewest != 1 else ''} of each cell: the figures are indicative, no "
            "intervals are given"
        )


def _few(summary: Summary) -> Iterator[str]:
    counts = [sum(len(cell.good) for cell in result.cells) for result in summary.results if result.cells]
    few = [count for count in counts if count < FEW_REQUESTS]
    if few:
        some = f"{min(few)}" if min(few) == max(few) else f"{min(few)} to {max(few)}"
        yield (
            f"{len(few)} of {len(counts)} figures called p99 are of {some} requests: with so few, it is the "
            "slowest of them"
        )


def busy_share(summary: Summary, cell: CellData) -> float | None:
    """The share of the machine that others used; None where the cell was too short to tell."""
    cores = next(
        (run.environment["cpu"]["cores_logical"] for run in summary.runs if cell.record.spec in run.cells),
        None,
    )
    other = foreign_cores(cell, cores)
    return other / cores if other is not None and cores else None


def is_disturbed(summary: Summary, result: Result) -> bool:
    """In one of its cells others used enough of the machine to change its place."""
    return any((busy_share(summary, cell) or 0.0) > BUSY_LIMIT for cell in result.cells)


def disturbed(summary: Summary) -> bool:
    """Others used so much of the machine that the ranking itself is in doubt."""
    shares = sorted(share for cell in summary.cells if (share := busy_share(summary, cell)) is not None)
    if not shares:
        return any(_loaded_at_start(run) for run in summary.runs)
    return shares[len(shares) // 2] > BUSY_LIMIT


def _loaded_at_start(run: RunRecord) -> bool:
    """By the load average. An own run just before raises it too, so cells that can tell count for more."""
    return bool(run.environment["load_average"][0] > 0.75 * run.environment["cpu"]["cores_logical"])


def _busy(summary: Summary) -> Iterator[str]:
    """Somebody else used the machine while we measured."""
    known = [(cell.record.spec.id, busy_share(summary, cell)) for cell in summary.cells]
    for run in summary.runs:
        if all(share is None for _, share in known) and _loaded_at_start(run):
            load, cores = run.environment["load_average"][0], run.environment["cpu"]["cores_logical"]
            yield f"the machine was busy when run {run.name} began: load average {load} on {cores} cores"
    busy = sorted(((share, name) for name, share in known if share and share > BUSY_LIMIT), reverse=True)
    if busy:
        yield (
            f"other processes used up to {100 * busy[0][0]:.0f} % of the machine in {len(busy)} of "
            f"{len(known)} cells ({_some([name for _, name in busy])}): these figures are worse than on a "
            "quiet machine, and marked"
        )


def foreign_cores(cell: CellData, cores: int | None) -> float | None:
    """Processor use that is neither the server's nor ours; needs a cell of some seconds to mean anything."""
    load, ours = server_load(cell), client_load(cell)
    if (
        cores is None
        or len(cell.telemetry) < 5
        or "machine_busy" not in load
        or "server_cpu_cores" not in load
    ):
        return None
    return max(
        0.0, load["machine_busy"] * cores - load["server_cpu_cores"] - ours.get("client_cpu_cores", 0.0)
    )


def _counts(summary: Summary) -> Iterator[str]:
    """Token counts that are inferred, outputs that are shorter than asked, prompts of another length."""
    inferred = sorted(
        {c.record.spec.subject for c in summary.cells for r in c.good if r.usage_source != "server"}
    )
    if inferred:
        yield (
            f"{', '.join(inferred)} sends no usage in streams: its token counts are inferred from how it "
            "stopped"
        )
    for subject in sorted({cell.record.spec.subject for cell in summary.cells}):
        good = [r for cell in summary.cells if cell.record.spec.subject == subject for r in cell.good]
        short = sum(1 for r in good if (r.completion_tokens or 0) < r.max_tokens)
        if short:
            yield f"{subject}: {short} of {len(good)} answers are shorter than asked for"
        other = sum(
            1 for r in good if r.prompt_tokens and r.prompt_length and r.prompt_tokens != r.prompt_length
        )
        if other:
            yield (
                f"{subject}: {other} of {len(good)} prompts have another length on the server than they "
                "were made with"
            )


def _shortened(summary: Summary) -> Iterator[str]:
    cut = sorted(
        {
            f"{c.record.spec.subject} {c.record.spec.group}"
            for c in summary.cells
            if c.record.error is None and len({r.index for r in c.requests}) < c.record.spec.num_requests
        }
    )
    if cut:
        yield f"sent fewer requests than planned, because their time was over: {_some(cut)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
