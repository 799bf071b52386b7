"""Is the server healthy, and what limits it? One sentence, by fixed rules; the first that applies is said.

RUNBOOK.md, 'The live page', lists the same rules with what to do about them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rllm.api.doors.live.live_state import Point, Verdict
from rllm.engine.snapshot import Phase
from rllm.serving.service import Health
from rllm.serving.view import InstanceView, ModelView

LATELY_S = 10
KV_FULL = 0.95
PREFILL_HEAVY = 0.5

_NOT_READY = {
    "loading": Verdict("limited", "Loading the models.", "Requests are refused until they are there."),
    "draining": Verdict("limited", "Shutting down.", "What runs is finished; new requests are refused."),
}


@dataclass(frozen=True, slots=True)
class Evidence:
    health: Health
    models: Sequence[ModelView]
    points: Sequence[Point]
    """Of all models together, the last `LATELY_S` seconds."""
    refused: int
    """Requests turned away in that time."""

    @property
    def instances(self) -> list[InstanceView]:
        return [instance for model in self.models for instance in model.instances]

    @property
    def ready(self) -> list[InstanceView]:
        return [instance for instance in self.instances if instance.state == "ready"]

    def count(self, *phases: Phase) -> int:
        return sum(s.phase in phases for i in self.ready for s in i.sequences)


def judge(evidence: Evidence) -> Verdict:
    for rule in _RULES:
        if (verdict := rule(evidence)) is not None:
            return verdict
    return Verdict("idle", "Healthy and idle.", "Nothing runs, nothing waits.")


def _not_ready(evidence: Evidence) -> Verdict | None:
    if evidence.health.ready:
        return None
    if known := _NOT_READY.get(evidence.health.reason):
        return known
    return Verdict(
        "bad", "Not ready: a model takes no requests.", _troubles(evidence) or evidence.health.reason
    )


def _broken(evidence: Evidence) -> Verdict | None:
    if not (text := _troubles(evidence)):
        return None
    return Verdict("limited", "Running with fewer instances than configured.", text)


def _troubles(evidence: Evidence) -> str:
    texts = [
        f"{instance.name} is {instance.state}{': ' + instance.reason if instance.reason else ''}."
        for instance in evidence.instances
        if instance.state != "ready"
    ]
    texts += [
        f"{instance.name} failed repeatedly, its circuit breaker is {instance.breaker.replace('_', '-')}."
        for instance in evidence.ready
        if instance.breaker != "closed"
    ]
    return " ".join(texts)


def _degraded(evidence: Evidence) -> Verdict | None:
    texts = [f"{m.id}: {m.degradation}." for m in evidence.models if m.degradation_level]
    if not texts:
        return None
    return Verdict("limited", "Overload: service is degraded on purpose.", " ".join(texts))


def _refusing(evidence: Evidence) -> Verdict | None:
    if not evidence.refused:
        return None
    return Verdict(
        "limited",
        "Requests are being turned away.",
        f"{evidence.refused} in the last {LATELY_S} s. {_load(evidence)}",
    )


def _cells(evidence: Evidence) -> Verdict | None:
    preempted = evidence.count(Phase.PREEMPTED)
    full = [i.name for i in evidence.ready if i.waiting and i.kv_unified and _is_full(i)]
    if not preempted and not full:
        return None
    paused = f"{_requests(preempted)} paused until cells are free. " if preempted else ""
    return Verdict("limited", "The KV cache is the limit.", paused + _load(evidence))


def _is_full(instance: InstanceView) -> bool:
    """Prefixes that nobody uses do not count: they give way."""
    idle = sum(s.computed_tokens for s in instance.sequences if s.phase is Phase.IDLE)
    return instance.kv_used - idle >= KV_FULL * instance.kv_cells


def _waiting(evidence: Evidence) -> Verdict | None:
    waiting = sum(instance.waiting for instance in evidence.ready)
    if not waiting:
        return None
    oldest = max(instance.oldest_wait_s for instance in evidence.ready)
    full = [i for i in evidence.ready if i.waiting and _running(i) >= i.slots]
    if full:
        return Verdict(
            "limited",
            f"Slots are the limit: all of {_names(full)} are taken.",
            f"{_requests(waiting)} waiting, the first for {oldest:.1f} s. {_load(evidence)}",
        )
    return Verdict(
        "busy", "Admitting requests.", f"{_requests(waiting)} waiting for their prefill. {_load(evidence)}"
    )


def _computing(evidence: Evidence) -> Verdict | None:
    if not evidence.count(Phase.PREFILL, Phase.DECODE):
        return None
    share = _prefill_share(evidence.points)
    if share >= PREFILL_HEAVY:
        return Verdict(
            "busy", "Busy, mostly with prompts.", f"{share:.0%} of the time is prefill. {_load(evidence)}"
        )
    return Verdict("busy", "Healthy and busy.", _load(evidence))


def _prefill_share(points: Sequence[Point]) -> float:
    busy = sum(point.busy_s for point in points)
    return sum(point.prefill_s for point in points) / busy if busy else 0.0


def _running(instance: InstanceView) -> int:
    return sum(s.phase in (Phase.PREFILL, Phase.DECODE) for s in instance.sequences)


def _load(evidence: Evidence) -> str:
    slots = sum(instance.slots for instance in evidence.ready)
    return f"{evidence.count(Phase.PREFILL, Phase.DECODE)} of {slots} slots in use."


def _names(instances: Sequence[InstanceView]) -> str:
    return " and ".join(instance.name for instance in instances)


def _requests(count: int) -> str:
    return f"{count} request{'' if count == 1 else 's'}"


_RULES: tuple[Callable[[Evidence], Verdict | None], ...] = (
    _not_ready,
    _broken,
    _degraded,
    _refusing,
    _cells,
    _waiting,
    _computing,
)
