"""The first page: the answer, its picture, one limitation, and what to take under each load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rllm_bench.figures.compare import MARGIN
from rllm_bench.figures.summary import Summary
from rllm_bench.figures.words import listed, machine, number
from rllm_bench.report import checks, plots, tables
from rllm_bench.report.answer import answer, limitation
from rllm_bench.report.quoting import to_know
from rllm_bench.report.sources import Sources


def first_page(sources: Sources, look: plots.Look, out: Path, doubts: list[str]) -> Iterator[str]:
    summary, run = sources.summary, sources.run
    yield f"# {run.name}: {', '.join(summary.subjects) or 'nothing measured'}"
    yield ""
    found = answer(summary)
    if found is None:
        yield "Nothing was measured: see below for the reasons."
        yield ""
        return
    label = " (indicative)" if summary.indicative else ""
    if checks.disturbed(summary):
        yield (
            "> **Do not use this answer.** The machine was shared while it was measured: see the "
            "limitation below."
        )
        yield ""
    yield f"**{found.sentences[0]}** {' '.join(found.sentences[1:])}"
    yield ""
    subtitle = (
        f"{machine(run.environment)} · {tables.shape_name(found.shape)}, greedy, {_kinds(summary)} · "
        f"{run.preset} preset{label}, {run.created_at[:10]} · speed only"
    )
    doubt = limitation(summary, doubts)
    shown = found.sentences
    if checks.disturbed(summary):
        shown = [f"Do not use (shared machine): {shown[0]}", *shown[1:]]
    figure = plots.first_page(summary, look, found.shape, shown, subtitle, doubt)
    yield f"![{found.sentences[0]}]({plots.save(figure, out / 'plots', 'summary')})"
    yield ""
    yield f"Machine: {machine(run.environment)}. Load: {tables.shape_name(found.shape)}, {_kinds(summary)}."
    yield f"Limitation: {doubt}. More under [Validity](#validity)."
    yield from _quality(sources)
    yield ""
    yield from to_know(sources)
    yield ""
    yield tables.best_per_load(summary)
    yield ""
    yield (
        "Where speeds cannot be told apart, the smallest file is taken; the answer above prefers one server "
        "for all loads of its prompts. They cannot where the interval of their ratio holds 1 or their "
        f"repeats overlap; without intervals, where they differ by at most {100 * MARGIN:.0f} %."
    )
    if any(checks.is_disturbed(summary, result) for result in summary.results):
        yield f"† Others used more than {100 * checks.BUSY_LIMIT:.0f} % of the machine meanwhile."
    yield ""


def _quality(sources: Sources) -> Iterator[str]:
    """What the speeds above say nothing of."""
    subjects = [s for run in sources.summary.runs for s in run.subjects]
    files = {s.model_sha256 for s in subjects} - {None}
    found = {s.variant: kld for s in subjects if (kld := sources.kld(s)) is not None}
    known = [f"{variant} {number(kld)}" for variant, kld in found.items()]
    if known:
        yield (
            "Quality, as mean KL divergence from the reference (0 is the same; what that means is in the "
            f"report of `rllm-bench quality`): {listed(known)}."
        )
    elif len(files) > 1:
        yield "What a smaller file loses in quality was not judged here: `rllm-bench quality` does."


def _kinds(summary: Summary) -> str:
    kinds = sorted({result.workload.kind for result in summary.results})
    names = {"unique": "unique prompts", "mix": "a chat-like mix of lengths", "file": "prompts from a file"}
    return ", ".join(names.get(kind, f"{kind} prompts") for kind in kinds)
