"""The decision: among what meets floor and goal, the cheapest; else the fastest. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rllm_bench.recommend.options import Floor, Option


@dataclass(frozen=True, slots=True)
class Rejected:
    option: Option
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """``best`` is None if nothing meets both; ``rejected`` has the best load of every other subject."""

    best: Option | None
    accepted: tuple[Option, ...]
    rejected: tuple[Rejected, ...]

    @property
    def answer(self) -> tuple[str, str] | None:
        return (self.best.subject, self.best.load) if self.best else None


def decide(options: Sequence[Option], floor: Floor, min_attained: float) -> Decision:
    """A load is accepted if at least ``min_attained`` of its requests met the goal."""
    accepted, rejected = [], []
    for option in options:
        reason = floor.refusal(option.quality)
        if reason is None and option.attained < min_attained:
            reason = f"only {option.attained:.0%} of the requests meet the goal (asked: {min_attained:.0%})"
        if reason is None:
            accepted.append(option)
        else:
            rejected.append(Rejected(option, reason))
    accepted.sort(key=_order)
    return Decision(accepted[0] if accepted else None, tuple(accepted), tuple(_nearest(rejected, accepted)))


def _order(option: Option) -> tuple[float, float]:
    """Cheapest first; on one machine that is the fastest. Options without a price come after those with "
    "one."""
    cost = option.cost_per_1k
    return (cost if cost is not None else float("inf"), -option.good_tps)


def _nearest(rejected: Iterable[Rejected], accepted: Sequence[Option]) -> list[Rejected]:
    """Of each subject that has no accepted load, the load that came nearest to the goal."""
    taken = {option.subject for option in accepted}
    best: dict[str, Rejected] = {}
    for one in rejected:
        if one.option.subject in taken:
            continue
        known = best.get(one.option.subject)
        if known is None or (one.option.attained, one.option.good_tps) > (
            known.option.attained,
            known.option.good_tps,
        ):
            best[one.option.subject] = one
    return list(best.values())


def headroom(decision: Decision, options: Sequence[Option]) -> Option | None:
    """The next higher measured load of the chosen subject, which tells how far the answer can be pushed."""
    best = decision.best
    if best is None:
        return None
    higher = [
        option
        for option in options
        if option.subject == best.subject and option.workload == best.workload and option.users > best.users
    ]
    return min(higher, key=lambda option: option.users, default=None)


@dataclass(frozen=True, slots=True)
class Change:
    """A changed question, and its answer."""

    question: str
    decision: Decision


def changes(
    ask: Callable[[float], Sequence[Option]], floor: Floor, min_attained: float, decision: Decision
) -> list[Change]:
    """What would change the answer: the nearest stricter and looser goal, and other quality floors.

    ``ask`` gives the options for limits multiplied by its argument.
    """
    found: list[Change] = []
    for factors in ((0.8, 0.5, 0.25, 0.1, 0.05), (1.25, 2.0, 4.0, 10.0)):
        for factor in factors:
            other = decide(ask(factor), floor, min_attained)
            if other.answer != decision.answer:
                found.append(Change(f"latency limits × {factor:g}", other))
                break
    options = ask(1.0)
    levels = sorted({o.quality.mean_kld for o in options if o.quality and o.quality.mean_kld is not None})
    for level in levels:
        other = decide(options, Floor(max_mean_kld=level), min_attained)
        if other.answer != decision.answer and all(other.answer != known.decision.answer for known in found):
            found.append(Change(f"quality floor: mean KLD at most {level:.4g}", other))
    strictest = decide([o for o in options if o.quality and o.quality.is_reference], Floor(), min_attained)
    if strictest.answer is not None and strictest.answer != decision.answer:
        found.append(Change("no loss of quality accepted", strictest))
    return found
