"""The recommendation in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rllm_bench.figures.compare import MARGIN
from rllm_bench.figures.words import plural
from rllm_bench.recommend.decide import Change, Decision
from rllm_bench.recommend.options import Floor, Option
from rllm_bench.report.tables import unaligned

_NAMES = {"ttft": "time to first token", "tpot": "time per output token", "e2el": "whole answer"}


def section(
    workload: str,
    decision: Decision,
    following: Option | None,
    changed: Sequence[Change],
    goal: Mapping[str, float],
    floor: Floor,
    min_attained: float,
) -> Iterator[str]:
    """One workload: the answer, its reasons, and what would change it."""
    yield f"## {workload}"
    yield ""
    yield f"Goal: {goal_in_words(goal)} for {min_attained:.0%} of the requests."
    yield f"Quality floor: {floor_in_words(floor)}."
    yield ""
    if decision.best is None:
        yield "**Nothing that was measured meets both.** The nearest of each:"
        yield ""
        yield from (f"- {one.option.subject} at {one.option.load}: {one.reason}" for one in decision.rejected)
    else:
        yield from _answer(decision.best, following, goal)
        yield from _reasons(decision)
    yield ""
    yield from _changes(changed, decision)
    yield from _table(decision)


def goal_in_words(goal: Mapping[str, float]) -> str:
    return ", ".join(f"{_NAMES[name]} within {limit:g} ms" for name, limit in goal.items())


def floor_in_words(floor: Floor) -> str:
    parts = []
    if floor.max_mean_kld is not None:
        parts.append(f"mean KLD at most {floor.max_mean_kld:g}")
    if floor.min_same_top is not None:
        parts.append(f"same top token at least {floor.min_same_top:g}")
    if floor.max_ppl_ratio is not None:
        parts.append(f"perplexity ratio at most {floor.max_ppl_ratio:g}")
    if floor.gate:
        parts.append("the gate of the quality report")
    return ", ".join(parts) or "none"


def _answer(best: Option, following: Option | None, goal: Mapping[str, float]) -> Iterator[str]:
    slots = f"{best.slots} slots were configured"
    yield f"**Serve {best.variant} with {best.engine}, {plural(best.users, 'request')} at a time ({slots}).**"
    yield ""
    yield (
        f"- expected goodput: {best.goodput_rps:.2f} requests/s within the goal ({best.attained:.0%} of "
        f"them), {best.good_tps:,.0f} output tokens/s"
    )
    cost = best.cost_per_1k
    yield (
        f"- cost: {money(cost)} per 1,000 output tokens within the goal"
        if cost is not None
        else "- cost: no price given"
    )
    if best.memory_mb is not None:
        yield f"- memory: {best.memory_mb:,.0f} MB at most"
    margins = [
        f"{_NAMES[name]} p95 {best.p95_ms[name]:,.0f} of {limit:,.0f} ms "
        f"({1 - best.p95_ms[name] / limit:.0%} left)"
        for name, limit in goal.items()
        if name in best.p95_ms
    ]
    yield f"- head-room: {'; '.join(margins)}"
    if following is None:
        yield "- no higher load was measured: the head-room above this one is unknown"
    else:
        yield f"- at {following.users} at a time {following.attained:.0%} of the requests meet the goal"


def _reasons(decision: Decision) -> Iterator[str]:
    """Why not the others: the best accepted load of each, and the reason of the rejected."""
    best = decision.best
    assert best is not None
    yield ""
    yield "Why not the others:"
    yield ""
    seen = {best.subject}
    for option in decision.accepted:
        if option.subject not in seen:
            seen.add(option.subject)
            cost = option.cost_per_1k
            price = f", {money(cost)} per 1,000" if cost is not None else ""
            speed = f"{option.users} at a time: {option.good_tps:,.0f} tokens/s{price}"
            yield f"- {option.subject} meets both, {speed}{_close(option, best)}"
    yield from (f"- {one.option.subject}: {one.reason}" for one in decision.rejected)


def _close(option: Option, best: Option) -> str:
    """Where measuring again could turn it round, quality may decide instead."""
    if option.good_tps * (1 + MARGIN) < best.good_tps:
        return ""
    text = f" – within {100 * MARGIN:.0f} %, which is no difference"
    ours, theirs = (one.quality.mean_kld if one.quality else None for one in (option, best))
    if ours is not None and theirs is not None and ours < theirs:
        text += f"; its quality is better (mean KLD {ours:.4g} against {theirs:.4g})"
    return text


def _changes(changed: Sequence[Change], decision: Decision) -> Iterator[str]:
    yield "What would change the answer:"
    yield ""
    if not changed:
        yield "- nothing that was tried: limits from 0.05 to 10 times, every measured quality as the floor"
    for change in changed:
        best = change.decision.best
        if best is None:
            yield f"- {change.question}: nothing measured meets it"
            continue
        gain = (
            "" if decision.best is None else f" ({best.good_tps / decision.best.good_tps - 1:+.0%} tokens/s)"
        )
        yield f"- {change.question}: {best.subject}, {best.users} at a time{gain}"
    yield ""


def _table(decision: Decision) -> Iterator[str]:
    head = ("subject", "load", "tokens/s within the goal", "attained", "cost per 1k", "memory MB", "mean KLD")
    accepted = [_row(o, "**chosen**" if o is decision.best else "meets both") for o in decision.accepted]
    rejected = [_row(one.option, one.reason) for one in decision.rejected]
    yield from unaligned((*head, "same top", "verdict"), [*accepted, *rejected])
    yield ""


def _row(option: Option, verdict: str) -> Sequence[str]:
    quality = option.quality
    kld = "-" if quality is None or quality.mean_kld is None else f"{quality.mean_kld:.4g}"
    top = "-" if quality is None or quality.same_top is None else f"{quality.same_top:.1%}"
    cost, memory = option.cost_per_1k, option.memory_mb
    return (
        option.subject, option.load, f"{option.good_tps:,.0f}", f"{option.attained:.0%}",
        "-" if cost is None else money(cost), "-" if memory is None else f"{memory:,.0f}", kld, top, verdict,
    )  # fmt: skip


def money(value: float) -> str:
    return f"${value:.3g}"
