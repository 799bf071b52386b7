"""The page of a paired comparison: every figure of one subject over that of each other, pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rllm_bench import scenarios
from rllm_bench.figures.names import figure
from rllm_bench.figures.paired import Paired, paired, same_answers
from rllm_bench.figures.summary import Result, Summary
from rllm_bench.figures.words import listed, machine, number, plural
from rllm_bench.records.runs import RunRecord
from rllm_bench.report.tables import load_name, markdown


def first_page(summary: Summary) -> Iterator[str]:
    """The first subject of the plan against each of the others."""
    run = summary.runs[0]
    ours, *others = [subject.name for subject in run.subjects]
    yield f"# {ours} against {listed(others)}"
    yield ""
    for theirs in others:
        yield _verdict(summary, ours, theirs)
        yield ""
    yield table(summary, ours, others)
    yield ""
    yield (
        "Medians over the pairs. The ratio is the median of the pairs' ratios, with its 95 % interval "
        "(six pairs at least); above 1 the first is better, also in times. In a pair all servers are "
        "up, freshly started, idle but for the one that is measured, and asked the same prompts by turns in "
        "shuffled order."
    )
    yield ""
    yield f"Machine: {machine(run.environment)}, {run.created_at[:10]}. {_settings(run)}"
    yield ""
    yield from _answers(summary, ours, others)


def answer_lines(summary: Summary) -> Iterator[str]:
    """For a console."""
    ours, *others = [subject.name for subject in summary.runs[0].subjects]
    yield from (_verdict(summary, ours, theirs).replace("**", "") for theirs in others)
    yield table(summary, ours, others).replace("**", "")


def table(summary: Summary, ours: str, others: Sequence[str]) -> str:
    rows: list[list[str]] = []
    for result in summary.results:
        if result.subject != ours or not result.values:
            continue
        for name in scenarios.find(result.workload.kind).headline:
            rows += _rows(summary, result, name, others)
    head = [
        "scenario",
        "load",
        "tokens in → out",
        "figure",
        ours,
        "the other",
        "",
        "ratio",
        "95 % interval",
        "pairs",
    ]
    return markdown(head, rows)


def _rows(summary: Summary, result: Result, name: str, others: Sequence[str]) -> Iterator[list[str]]:
    title = figure(name, summary.slos).title
    for theirs in others:
        other = summary.find(theirs, result.group, result.part)
        found = paired(result, other, name, summary.slos) if other and other.values else None
        about = [
            result.workload.kind,
            load_name(result),
            f"{result.shape[0]} → {result.shape[1]}",
            title,
        ]
        if found is None:
            if name in result.values:
                yield [*about, number(result[name]), theirs, "–", "–", "–", "–"]
            continue
        bounds = f"{found.interval.low:.2f}–{found.interval.high:.2f}" if found.interval else "–"
        yield [
            *about, number(found.ours), theirs, number(found.theirs), f"**{found.ratio:.2f}**", bounds,
            str(found.pairs),
        ]  # fmt: skip


def _verdict(summary: Summary, ours: str, theirs: str) -> str:
    """How often it is better, and where it is not."""
    found = list(_all(summary, ours, theirs))
    better = [one for _, one in found if one.verdict == "better"]
    worse = [f"{what} ({one.ratio:.2f})" for what, one in found if one.verdict == "worse"]
    if not found:
        return f"**Against {theirs} nothing could be compared.**"
    if all(one.verdict == "too few pairs" for _, one in found):
        return f"Against {theirs}: too few pairs for a verdict; the ratios below are indicative."
    text = f"**Against {theirs}: better in {len(better)} of {plural(len(found), 'figure')}"
    text += f", worse in {len(worse)}.**" if worse else ", worse in none.**"
    return f"{text} Worse: {listed(worse)}." if worse else text


def _all(summary: Summary, ours: str, theirs: str) -> Iterator[tuple[str, Paired]]:
    for result in summary.results:
        other = summary.find(theirs, result.group, result.part)
        if result.subject != ours or other is None or not (result.values and other.values):
            continue
        for name in scenarios.find(result.workload.kind).headline:
            if (found := paired(result, other, name, summary.slos)) is not None:
                yield (
                    f"{result.workload.kind}, {load_name(result)}: {figure(name, summary.slos).title}",
                    found,
                )


def _settings(run: RunRecord) -> str:
    one = run.settings
    threads = f"{one.threads} threads" if one.threads else "their own choice of threads"
    return f"Every server: {plural(one.slots, 'slot')} of {one.ctx_per_slot} tokens, {threads}."


def _answers(summary: Summary, ours: str, others: Sequence[str]) -> Iterator[str]:
    for theirs in others:
        same = total = 0
        for result in summary.results:
            other = summary.find(theirs, result.group, result.part)
            if result.subject == ours and other is not None:
                equal, count = same_answers(result, other)
                same, total = same + equal, total + count
        if total:
            share = f"{100 * same / total:.0f} %"
            yield f"{same} of {total} answers ({share}) are, to the letter, those of {theirs}."
    yield ""
