"""The two shapes of a step: prefill and decode mixed, or one after the other.

Mixed is for a unified cache, where whatever is computed together costs one pass over the weights. Alternating
is for a split one (`rllm.engine.phases`). Which it is, is chosen once (`rllm.engine.build`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rllm.engine.drafts import Drafter
from rllm.engine.phases import ChunkSizer, PhasePolicy
from rllm.engine.port import Chunk
from rllm.engine.prefills import Batch, Prefills
from rllm.engine.running import Running
from rllm.engine.sequence import Sequence, State
from rllm.engine.times import StepShape, StepTimes
from rllm.engine.tuning import DEFAULT, Tuning
from rllm.engine.types import ModelInfo


class Steps(Protocol):
    def fill(self, batch: Batch, now: float) -> None:
        """Choose what the next step computes; an empty batch means nothing."""
        ...

    def took(self, shape: StepShape, seconds: float) -> None:
        """A step of that shape took so long."""
        ...


class Decodes:
    """The decodes of a step, and drafts beside them."""

    def __init__(self, info: ModelInfo, running: Running, drafter: Drafter | None) -> None:
        self._running = running
        self._kv = running.kv
        self._drafter = drafter
        self._batch_size = info.batch_size
        self._max_drafted = info.max_drafted
        self._max_tokens = info.max_request_tokens

    def plan(self, batch: Batch) -> None:
        """Every sequence that decodes takes part, with all that is pending: its forced tokens, too."""
        decoding = self._running.of(State.DECODING)
        if self._kv.free_cells < self._batch_size:  # else nobody needs to count
            self._running.make_room(sum(s.num_pending for s in decoding))
            decoding = self._running.of(State.DECODING)
        spare = self._batch_size - len(decoding)
        chunks = batch.chunks
        for sequence in decoding:
            if not sequence.ban_lifted:
                self._running.lift_ban(sequence)
            seq, pending = sequence.seq, sequence.num_pending
            forced = min(pending - 1, spare)
            spare -= forced
            end = sequence.computed + 1 + forced
            tokens = sequence.tokens[sequence.computed : end]
            sample = forced == pending - 1
            chunks[seq] = Chunk(seq, tokens, sequence.computed, sample, forced=forced)
            batch.tokens += 1 + forced

    def plan_drafts(self, batch: Batch) -> None:
        """Beside the decodes of a step that has nothing else, where that pays. Nobody gives way for them."""
        if self._drafter is None or not batch.chunks or batch.tokens > len(batch.chunks):
            return
        decoding = [self._running.by_seq[seq] for seq in batch.chunks]
        count = len(decoding)
        spare = min(self._batch_size - count, self._max_drafted, self._kv.free_cells - count)
        drafts = self._drafter.draft(decoding, [self._room(sequence) for sequence in decoding], spare)
        for sequence, draft in zip(decoding, drafts, strict=True):
            if draft:
                tokens = [sequence.tokens[-1], *draft]
                batch.chunks[sequence.seq] = Chunk(
                    sequence.seq, tokens, sequence.computed, True, drafted=len(draft)
                )
                batch.tokens += len(draft)

    def _room(self, sequence: Sequence) -> int:
        """Drafts that there is room for."""
        if not sequence.ban_lifted:  # which is done between steps
            return 0
        return min(
            sequence.request.max_tokens - sequence.num_output - 1,
            self._max_tokens - len(sequence.tokens),
            self._kv.room(sequence.seq) - 1,
        )


@dataclass(frozen=True, slots=True)
class Pace:
    """How long steps may be."""

    max_tokens: int
    """Most tokens of one step, prefill and decode together."""
    itl_target_s: float = 0.1
    """While somebody decodes, a step is to take about that long."""


class MixedSteps:
    """Every decode, then prompts as far as the time that a step may take allows.

    A step that computes a whole long prompt makes every stream beside it stand still. While somebody decodes,
    prefill is therefore cut so that a step takes about as long as its target; alone, it gets the whole batch.
    """

    def __init__(
        self,
        info: ModelInfo,
        running: Running,
        decodes: Decodes,
        times: StepTimes,
        pace: Pace,
        tuning: Tuning = DEFAULT,
    ) -> None:
        self._decodes = decodes
        self._times = times
        self._pace = pace
        self._tuning = tuning
        self._prefills = Prefills(running, info.max_scored, _fill_up, tuning)

    def fill(self, batch: Batch, now: float) -> None:
        self._decodes.plan(batch)
        num_decodes = len(batch.chunks)
        self._prefills.plan(batch, batch.tokens + self._prefill_tokens(batch.tokens), now)
        if len(batch.chunks) == num_decodes:
            self._decodes.plan_drafts(batch)

    def took(self, shape: StepShape, seconds: float) -> None:
        """Nothing is owed to anybody: each step has both kinds."""

    def _prefill_tokens(self, num_decodes: int) -> int:
        """Most prompt tokens for a step that also computes ``num_decodes`` decodes."""
        room = max(0, self._pace.max_tokens - num_decodes)
        token_s, share = self._times.token_s, self._tuning.mixed_share
        if num_decodes == 0 or token_s is None:
            return room
        decode_s = self._times.decode_s or 0.0
        # the second keeps prompts going where the decodes alone take as long as a step may
        time_s = max(self._pace.itl_target_s - decode_s, decode_s * share / (1 - share))
        return min(room, max(self._tuning.mixed_tokens, int(time_s / token_s)))


class AlternatingSteps:
    """Prompts or decodes, as `PhasePolicy` says; chunks as `ChunkSizer` says."""

    def __init__(
        self,
        info: ModelInfo,
        running: Running,
        decodes: Decodes,
        times: StepTimes,
        pace: Pace,
        max_pause_s: float,
        tuning: Tuning = DEFAULT,
    ) -> None:
        """``max_pause_s``: see `PhasePolicy`."""
        self._running = running
        self._decodes = decodes
        self._times = times
        self._pace = pace
        self._tuning = tuning
        self._phases = PhasePolicy(max_pause_s, tuning)
        sizer = ChunkSizer(pace.max_tokens, fills=info.flat_decode, tuning=tuning)
        self._prefills = Prefills(running, info.max_scored, sizer.size, tuning)

    def fill(self, batch: Batch, now: float) -> None:
        running = self._running
        decoding = len(running.of(State.DECODING))
        under_way = len(running) - decoding
        waiting = min(len(running.line), running.free_slots)
        if self._phases.wants_prefill(decoding, under_way, waiting, now):
            paced = decoding > 0 and not self._phases.is_crowd(decoding, under_way + waiting)
            self._prefills.plan(batch, self._prefill_tokens(paced=paced), now)
        if not batch.chunks:
            self._decodes.plan(batch)
            self._decodes.plan_drafts(batch)

    def took(self, shape: StepShape, seconds: float) -> None:
        self._phases.took(prefill=shape.prefill > 0, seconds=seconds)

    def _prefill_tokens(self, *, paced: bool) -> int:
        """Most prompt tokens for a step; ``paced``: those who decode wait for its end."""
        most, token_s, tile = self._pace.max_tokens, self._times.token_s, self._tuning.tile
        if not paced or token_s is None:
            return most
        wanted = int(self._pace.itl_target_s / token_s) // tile * tile
        return min(most, max(int(most * self._tuning.least_fill), wanted))


def _fill_up(pending: int, taken: int, limit: int) -> int:
    return min(pending, limit - taken)
