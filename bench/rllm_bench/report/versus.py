"""The page of a paired comparison: every figure of one subject over that of each other, pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rllm_bench import scenarios
from rllm_bench.figures.names import figure
from rllm_bench.figures.paired import Paired, paired, same_answers
from rllm_bench.figures.summary import Result, Summary
from rllm_bench.figures.words import listed, machine, number, plural
from rllm_bench.records.runs import RunRecord
from rllm_bench.report.tables import load_name, markdown


@dataclass(frozen=True, slots=True)
class _Line:
    """One figure of the first subject under one load, against another subject."""

    result: Result
    title: str
    value: float
    theirs: str
    found: Paired | None


def first_page(summary: Summary) -> Iterator[str]:
    """The first subject of the plan against each of the others."""
    run = summary.runs[0]
    ours, *others = [subject.name for subject in run.subjects]
    lines = _lines(summary, ours, others)
    yield f"# {ours} against {listed(others)}"
    yield ""
    for theirs in others:
        yield _verdict(lines, theirs)
        yield ""
    yield _table(lines, ours)
    yield ""
    yield (
        "Medians over the pairs. The ratio is the median of the pairs' ratios, with its 95 % interval (six "
        "pairs at least); above 1 the first is better, also in times. In a pair all servers are up, started "
        "anew where the bench starts them, idle but for the one that is measured, and asked the same prompts "
        "by turns in shuffled order."
    )
    yield ""
    yield f"Machine: {machine(run.environment)}, {run.created_at[:10]}. {_settings(run)}"
    yield ""
    yield from _answers(summary, ours, others)
    yield ""


def answer_lines(summary: Summary) -> Iterator[str]:
    """For a console."""
    ours, *others = [subject.name for subject in summary.runs[0].subjects]
    lines = _lines(summary, ours, others)
    yield from (_verdict(lines, theirs).replace("**", "") for theirs in others)
    yield _table(lines, ours).replace("**", "")


def _lines(summary: Summary, ours: str, others: Sequence[str]) -> list[_Line]:
    found = []
    for result in (r for r in summary.results if r.subject == ours and r.values):
        for name in scenarios.find(result.workload.kind).headline:
            title = figure(name, summary.slos).title
            for theirs in others if name in result.values else ():
                other = summary.find(theirs, result.group, result.part)
                pair = paired(result, other, name, summary.slos) if other and other.values else None
                found.append(_Line(result, title, result[name], theirs, pair))
    return found


def _table(lines: Sequence[_Line], ours: str) -> str:
    rows = []
    for line in lines:
        result, pair = line.result, line.found
        shape = f"{result.shape[0]} → {result.shape[1]}"
        about = [result.workload.kind, load_name(result), shape, line.title]
        if pair is None:
            rows.append([*about, number(line.value), line.theirs, *["–"] * 4])
            continue
        bounds = f"{pair.interval.low:.2f}–{pair.interval.high:.2f}" if pair.interval else "–"
        figures = [number(pair.ours), line.theirs, number(pair.theirs), f"**{pair.ratio:.2f}**"]
        rows.append([*about, *figures, bounds, str(pair.pairs)])
    head = ["scenario", "load", "tokens in → out", "figure", ours, "the other", ""]
    return markdown([*head, "ratio", "95 % interval", "pairs"], rows)


def _verdict(lines: Sequence[_Line], theirs: str) -> str:
    """How often the first is better, and where it is not."""
    found = [(line, line.found) for line in lines if line.theirs == theirs and line.found is not None]
    better = sum(pair.verdict == "better" for _, pair in found)
    worse = [
        f"{line.result.workload.kind}, {load_name(line.result)}: {line.title} ({pair.ratio:.2f})"
        for line, pair in found
        if pair.verdict == "worse"
    ]
    if not found:
        return f"**Against {theirs} nothing could be compared.**"
    if all(pair.interval is None for _, pair in found):
        return f"Against {theirs}: too few pairs for a verdict; the ratios below are indicative."
    text = f"**Against {theirs}: better in {better} of {plural(len(found), 'figure')}, worse in "
    return text + (f"{len(worse)}.** Worse: {listed(worse)}." if worse else "none.**")


def _settings(run: RunRecord) -> str:
    one = run.settings
    threads = f"{one.threads} threads" if one.threads else "their own choice of threads"
    return f"Every server: {plural(one.slots, 'slot')} of {one.ctx_per_slot} tokens, {threads}."


def _answers(summary: Summary, ours: str, others: Sequence[str]) -> Iterator[str]:
    for theirs in others:
        counts = [
            same_answers(result, other)
            for result in summary.results
            if result.subject == ours and (other := summary.find(theirs, result.group, result.part))
        ]
        same, total = sum(same for same, _ in counts), sum(total for _, total in counts)
        if total:
            share = f"{100 * same / total:.0f} %"
            yield f"{same} of {total} answers ({share}) are, to the letter, those of {theirs}."
