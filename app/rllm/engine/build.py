"""Puts the parts of an engine's scheduler together: the one place that asks how the cache is laid out."""

from __future__ import annotations

from collections.abc import Iterable

from rllm.engine.drafts import Drafter, Speculation
from rllm.engine.kv_slots import KVSlots
from rllm.engine.layout import Layout, SplitLayout, UnifiedLayout
from rllm.engine.line import Line
from rllm.engine.moving import MovePolicy
from rllm.engine.offload import PrefixOffload
from rllm.engine.port import Op, StoredPrefix, Vocabulary
from rllm.engine.running import Running
from rllm.engine.scheduler import Scheduler
from rllm.engine.steps import AlternatingSteps, Decodes, MixedSteps, Pace, Steps
from rllm.engine.times import StepTimes
from rllm.engine.tuning import DEFAULT, Tuning
from rllm.engine.types import ModelInfo


def build_scheduler(
    info: ModelInfo,
    vocabulary: Vocabulary,
    *,
    max_step_tokens: int = 0,
    itl_target_s: float = 0.1,
    max_pause_s: float | None = None,
    prefix_cache: bool = True,
    speculative_tokens: int = 0,
    stored: Iterable[StoredPrefix] = (),
    tuning: Tuning = DEFAULT,
    times: StepTimes | None = None,
    moves: MovePolicy | None = None,
    drafter: Drafter | None = None,
) -> Scheduler:
    """
    Args:
        max_step_tokens: 0: as many as a batch can hold.
        itl_target_s: while somebody decodes, a step is to take about that long.
        max_pause_s: in a split cache: how long prompts of a crowd may keep those waiting who decode. None:
            `Tuning.crowd_pause_s` on a GPU, and not at all elsewhere.
        speculative_tokens: most drafts for one sequence in one step. 0: none.
        stored: prefixes that the backend has on disk.
        times: estimates to start with and to learn into.
        moves: another policy than that of ``times``.
        drafter: another one than `Speculation`.
    """
    times = times or StepTimes(tuning)
    moves = moves or MovePolicy(times, tuning)
    if speculative_tokens and drafter is None:
        drafter = Speculation(speculative_tokens, times, tuning)
    if not info.max_drafted:
        drafter = None
    ops: list[Op] = []
    layout: Layout = UnifiedLayout(info, tuning) if info.kv_unified else SplitLayout(info, moves)
    offload = PrefixOffload(info, moves, ops, stored if prefix_cache else (), tuning)
    kv = KVSlots(info, layout, offload, ops, prefix_cache=prefix_cache, tuning=tuning)
    running = Running(info.slots, kv, Line(tuning), vocabulary.end_tokens)
    decodes = Decodes(info, running, drafter)
    pace = Pace(min(max_step_tokens or info.batch_size, info.batch_size), itl_target_s)
    steps: Steps
    if info.kv_unified:
        steps = MixedSteps(info, running, decodes, times, pace, tuning)
    else:
        if max_pause_s is None:
            max_pause_s = tuning.crowd_pause_s if info.flat_decode else 0.0
        steps = AlternatingSteps(info, running, decodes, times, pace, max_pause_s, tuning)
    return Scheduler(info, vocabulary, running, steps, times, drafter)
