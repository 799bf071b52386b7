"""What the next step computes, and what its outcome means.

Pure decisions over integers: no clock, no lock, no logger, no model. `plan` says what to compute, somebody
executes it, `commit` hears the outcome and says what to tell the clients. `submit` and `cancel` are called
between steps, never between a plan and its commit.

In a unified cache a step is every decode, then prompts under way, then newcomers, as the budget and
the cells allow; in a split cache a step is one kind or the other (`rllm.engine.rhythm`). Prompts go in line
order, except that short ones may pass (`rllm.engine.overtaking`). A step of nothing but decodes may compute
guesses beside them (`rllm.engine.speculation`), for which nobody gives way.
When cells run out, idle prefixes go first (least recently used), then the last in line among the running is
preempted: it gives its cells back, keeps its sampler, and is computed again later.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass, field

import msgspec

from rllm.engine.budget import StepBudget
from rllm.engine.costs import Costs
from rllm.engine.overtaking import is_short_beside, may_pass
from rllm.engine.packing import Packing
from rllm.engine.port import (
    Chunk,
    LiftBan,
    OpenSampler,
    Plan,
    Status,
    StepResult,
    StoredPrefix,
    Vocabulary,
)
from rllm.engine.residence import Residence
from rllm.engine.rhythm import MAX_PAUSE_S, Rhythm
from rllm.engine.sequence import Sequence, State
from rllm.engine.snapshot import Snapshot, take
from rllm.engine.speculation import Speculation
from rllm.engine.text import Pieces
from rllm.engine.types import EngineRequest, Event, FinishReason, ModelInfo, Started, TokenLogprob
from rllm.engine.waiting import WaitingLine

SCAN = 16
"""How far past a newcomer that waits for a shared prefix the line is searched for others."""


@dataclass(slots=True)
class Counters:
    """What happened since the engine last looked; it sets them to zero."""

    cached_tokens: int = 0
    evicted_tokens: int = 0
    preemptions: int = 0
    accepted_tokens: int = 0
    """Guesses that were right."""
    kv_blocked: int = 0
    started: list[Started] = field(default_factory=list)
    """In order."""


@dataclass(slots=True)
class _Sketch:
    """A plan in the making: chunks by sequence id, and tokens spoken for."""

    chunks: dict[int, Chunk] = field(default_factory=dict)
    tokens: int = 0
    scored: int = 0
    """Prompt tokens whose log probabilities are wanted."""

    def add(self, chunk: Chunk) -> None:
        self.chunks[chunk.seq] = chunk
        self.tokens += len(chunk.tokens)
        self.scored += len(chunk.scored)


class Scheduler:
    """Owns every request from `submit` to its last event."""

    def __init__(
        self,
        info: ModelInfo,
        vocabulary: Vocabulary,
        *,
        budget: StepBudget | None = None,
        max_pause_s: float | None = None,
        prefix_cache: bool = True,
        speculation: Speculation | None = None,
        costs: Costs | None = None,
        stored: Iterable[StoredPrefix] = (),
    ) -> None:
        """
        Args:
            max_pause_s: how long prompts of a crowd may keep those waiting who decode, in a split cache.
                None: MAX_PAUSE_S on a GPU, and not at all elsewhere.
            speculation: guesses tokens, where the backend can check any.
            costs: estimates to start with and to learn into; fixed ones make decisions reproducible.
            stored: prefixes that the backend has on disk.
        """
        self._info = info
        self._limit = min(info.ctx_per_slot, info.kv_cells)
        self._end_tokens = vocabulary.end_tokens
        self._pieces = Pieces(vocabulary.piece)
        self._shown_pieces = Pieces(lambda token: _shown(vocabulary, token))
        self._budget = budget or StepBudget(info.batch_size, itl_target_s=0.1)
        self._residence = Residence(info, prefix_cache=prefix_cache, costs=costs, stored=stored)
        if max_pause_s is None:
            max_pause_s = MAX_PAUSE_S if info.flat_decode else 0.0
        self._rhythm = Rhythm(max_pause_s)
        self._packing = Packing(most=self._budget.max_step_tokens, fills=info.flat_decode)
        self._speculation = speculation if info.max_drafted else None
        self._line = WaitingLine()
        self._requests: dict[str, Sequence] = {}
        self._running: dict[int, Sequence] = {}
        self._unsent: list[Event] = []
        self.counters = Counters()

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._line)

    @property
    def cells_used(self) -> int:
        return self._residence.used

    @property
    def has_work(self) -> bool:
        return bool(self._requests or self._unsent or self._residence.has_ops or self._residence.wants_quiet)

    @property
    def store_bytes(self) -> tuple[int, int]:
        """Prefixes stored outside the cache, in memory and on disk."""
        return self._residence.store_bytes

    def snapshot(self, now: float) -> Snapshot:
        return take(self._requests.values(), self._residence.idle_prefixes(), self._residence.used, now)

    # --- the door -------------------------------------------------------------------------------

    def submit(self, request: EngineRequest, now: float) -> None:
        """Put a request in line. One that can never run is answered with an error at the next commit."""
        if request.id in self._requests:
            self._unsent.append(_refusal(request, now, f"request id {request.id!r} is already in use"))
            return
        if request.computes_all and not self._info.max_scored:
            self._unsent.append(_refusal(request, now, "log probabilities of a prompt cannot be computed"))
            return
        if not request.prompt or len(request.prompt) > self._limit:
            message = f"the prompt has {len(request.prompt)} tokens; from 1 to {self._limit} fit"
            self._unsent.append(_refusal(request, now, message))
            return
        sequence = Sequence(request, now, self._line.place(request.priority, now))
        sequence.uncached = self._residence.num_uncached_soon(request.prompt, request.salt)
        self._requests[request.id] = sequence
        self._line.push(sequence)

    def cancel(self, request_id: str, now: float) -> None:
        """End a request wherever it is; unknown ids (it may just have finished) are ignored."""
        sequence = self._requests.get(request_id)
        if sequence is not None:
            self._unsent.append(self._end(sequence, FinishReason.CANCELLED, now))

    def cancel_all(self, now: float) -> None:
        for request_id in list(self._requests):
            self.cancel(request_id, now)

    # --- one step -------------------------------------------------------------------------------

    def plan(self, now: float) -> Plan:
        """The next step. An empty plan means that there is nothing to compute."""
        sketch = _Sketch()
        if self._info.kv_unified:
            self._plan_decodes(sketch)
            limit = sketch.tokens + self._budget.prefill_tokens(sketch.tokens)
            num_decodes = len(sketch.chunks)
            self._plan_prefills(sketch, limit, now)
            if len(sketch.chunks) == num_decodes:
                self._plan_guesses(sketch)
        else:
            self._plan_one_kind(sketch, now)
        chunks = tuple(sketch.chunks[seq] for seq in sorted(sketch.chunks))
        if not chunks:
            self._residence.save_quietly()
        return Plan(ops=self._residence.take_ops(), chunks=chunks)

    def _plan_one_kind(self, sketch: _Sketch, now: float) -> None:
        """Either prefill or decode: see `rllm.engine.rhythm`."""
        decoding = len(self._decoding())
        under_way = len(self._running) - decoding
        newcomers = min(len(self._line), self._info.slots - len(self._running))
        if self._rhythm.wants_prefill(decoding, under_way, newcomers, now):
            paced = decoding > 0 and not self._rhythm.is_crowd(decoding, under_way + newcomers)
            limit = self._budget.prefill_step_tokens(others_decode=paced)
            self._plan_prefills(sketch, limit, now)
        if not sketch.chunks:
            self._plan_decodes(sketch)
            self._plan_guesses(sketch)

    def _plan_prefills(self, sketch: _Sketch, limit: int, now: float) -> None:
        prefilling = [s for s in self._running.values() if s.state is State.PREFILLING]
        self._let_pass(sketch, prefilling, limit, now)
        for sequence in sorted(prefilling, key=_by_order):
            if sequence.seq not in sketch.chunks:
                self._plan_prefill(sketch, sequence, limit)
        while prefilling and not sketch.chunks and len(self._running) > 1:  # prompts have filled the cache
            self._preempt(max(self._running.values(), key=_by_order))
            self._plan_prefill(sketch, min(self._running.values(), key=_by_order), limit)
        self._admit(sketch, limit, now)

    def _let_pass(self, sketch: _Sketch, prefilling: list[Sequence], limit: int, now: float) -> None:
        """Plan the short prompts that may be computed before the first in line."""
        head = self._line.first()
        first = min(prefilling if head is None else [*prefilling, head], key=_by_order, default=None)
        if first is None:
            return
        for sequence in sorted(prefilling, key=_by_pending):
            if sequence is not first and may_pass(sequence, first):
                first.passed_tokens += self._plan_prefill(sketch, sequence, limit)
        stepped_over: list[Sequence] = []
        while head is not None and len(self._running) < self._info.slots and sketch.tokens < limit:
            newcomer = self._line.shortest(first.request.priority)
            if newcomer is None or len(stepped_over) == SCAN or not self._may_enter(newcomer, head, first):
                break
            self._line.remove(newcomer.request.id)
            if not self._enter(newcomer, head, first, now):
                stepped_over.append(newcomer)
                continue
            first.passed_tokens += self._plan_prefill(sketch, newcomer, limit)
            head = self._line.first()
        for sequence in stepped_over:
            self._line.push(sequence)

    def _may_enter(self, sequence: Sequence, head: Sequence, first: Sequence) -> bool:
        """Whether a newcomer may pass the first, and pass the ``head`` of those who wait for a slot."""
        if sequence is first or not may_pass(sequence, first):
            return False
        if sequence is head or len(self._running) < self._info.slots - 1:
            return True
        return is_short_beside(sequence, head) and not head.gave_way

    def _enter(self, sequence: Sequence, head: Sequence, first: Sequence, now: float) -> bool:
        """Place a newcomer that may pass, if that is still so and leaves room for the ``head``."""
        tokens, salt = sequence.tokens, sequence.request.salt
        if self._residence.is_worth_waiting(tokens, salt):
            return False
        sequence.uncached = self._residence.num_uncached(tokens, salt)
        takes_slot = sequence is not head and len(self._running) == self._info.slots - 1
        spoken_for = self._spoken_for() + (0 if sequence is head else head.num_uncached)
        if not may_pass(sequence, first) or not self._place(sequence, spoken_for, now):
            return False
        head.gave_way |= takes_slot
        return True

    def _spoken_for(self) -> int:
        """Cells that are about to be taken from the pool by those who run."""
        return sum(s.num_pending for s in self._running.values()) if self._info.kv_unified else 0

    def _decoding(self) -> list[Sequence]:
        decoding = State.DECODING
        return [s for s in self._running.values() if s.state is decoding]

    def _plan_decodes(self, sketch: _Sketch) -> None:
        decodes = self._decoding()
        if self._info.kv_unified and self._residence.free_cells < len(decodes):
            self._make_room(len(decodes))
            decodes = self._decoding()
        chunks = sketch.chunks
        for sequence in decodes:
            if not sequence.ban_lifted:
                self._lift_ban(sequence)
            seq = sequence.seq
            chunks[seq] = Chunk(seq, sequence.tokens[-1:], sequence.computed, True)
        sketch.tokens += len(decodes)

    def _plan_guesses(self, sketch: _Sketch) -> None:
        """Beside the decodes of a step that has nothing else, where that pays."""
        if self._speculation is None or not sketch.chunks:
            return
        decoding = [self._running[seq] for seq in sketch.chunks]
        count = len(decoding)
        spare = min(self._info.batch_size - count, self._info.max_drafted)
        if self._info.kv_unified:
            spare = min(spare, self._residence.free_cells - count)
        rooms = [self._room_for_guesses(sequence) for sequence in decoding]
        guesses = self._speculation.guesses(decoding, rooms, spare, self._budget.prefill_token_s)
        for sequence, guess in zip(decoding, guesses, strict=True):
            if guess:
                tokens = [sequence.tokens[-1], *guess]
                sketch.chunks[sequence.seq] = Chunk(
                    sequence.seq, tokens, sequence.computed, True, drafted=len(guess)
                )
                sketch.tokens += len(guess)

    def _room_for_guesses(self, sequence: Sequence) -> int:
        if not sequence.ban_lifted:  # which is done between steps
            return 0
        return min(
            sequence.request.max_tokens - sequence.num_output - 1,
            self._limit - len(sequence.tokens),
            self._residence.room(sequence.seq) - 1,
        )

    def _lift_ban(self, sequence: Sequence) -> None:
        """The next draw of ``sequence`` may end it, if it has enough tokens by now."""
        if not sequence.ban_lifted and sequence.num_output >= sequence.request.min_tokens:
            sequence.ban_lifted = True
            self._residence.add_op(LiftBan(sequence.seq))

    def _make_room(self, count: int) -> None:
        """Free cells for ``count`` tokens: idle prefixes first, then the last in line gives way.

        The first in line never gives way, so somebody always gets on.
        """
        self._evict(count)
        while self._residence.free_cells < count and len(self._running) > 1:
            last = max(self._running.values(), key=_by_order)
            if last.state is State.DECODING:
                count -= 1
            self._preempt(last)

    def _evict(self, count: int) -> bool:
        evicted = self._residence.evict(count)
        self.counters.evicted_tokens += evicted
        return evicted > 0

    def _preempt(self, sequence: Sequence) -> None:
        del self._running[sequence.seq]
        self._residence.vacate(sequence.seq)
        sequence.computed = 0
        sequence.uncached = len(sequence.tokens)
        sequence.move(State.WAITING)
        self._line.push(sequence)
        self.counters.preemptions += 1

    def _plan_prefill(self, sketch: _Sketch, sequence: Sequence, limit: int) -> int:
        """Compute as much of what is pending as budget and cells allow; returns how many tokens.

        In a split cache whole prompts come first (`rllm.engine.packing`).
        """
        if self._info.kv_unified:
            count = min(sequence.num_pending, limit - sketch.tokens)
        else:
            count = self._packing.piece(sequence.num_pending, sketch.tokens, limit)
        if sequence.unscored < len(sequence.request.prompt):  # each row of logits takes memory
            count = min(count, self._info.max_scored - sketch.scored)
        taken = (
            sketch.tokens if self._info.kv_unified else 0
        )  # of the same cells, by this step's other chunks
        if self._residence.room(sequence.seq) - taken < count:
            self._evict(count + taken)
        count = min(count, self._residence.room(sequence.seq) - taken)
        if count <= 0:
            return 0
        end = sequence.computed + count
        if end == len(sequence.tokens):  # a preempted request may have reached its minimum before
            self._lift_ban(sequence)
        sketch.add(
            Chunk(
                sequence.seq,
                sequence.tokens[sequence.computed : end],
                sequence.computed,
                sample=end == len(sequence.tokens),
                scored=sequence.scored_by(end),
            )
        )
        return count

    def _admit(self, sketch: _Sketch, limit: int, now: float) -> None:
        """Let newcomers in, in line order. One that shares a prefix which is being computed right now is
        stepped over until it is there; so is nobody else."""
        stepped_over: list[Sequence] = []
        spoken_for = self._spoken_for() if len(self._line) else 0
        while len(self._running) < self._info.slots and len(stepped_over) < SCAN and sketch.tokens < limit:
            sequence = self._line.pop()
            if sequence is None:
                break
            if self._residence.is_worth_waiting(sequence.tokens, sequence.request.salt):
                stepped_over.append(sequence)
                continue
            if not self._place(sequence, spoken_for, now):
                self.counters.kv_blocked += 1
                stepped_over.append(sequence)
                break
            spoken_for += sequence.num_pending
            self._plan_prefill(sketch, sequence, limit)
        for sequence in stepped_over:
            self._line.push(sequence)

    def _place(self, sequence: Sequence, spoken_for: int, now: float) -> bool:
        """Give a newcomer a sequence id and what can be reused for it; False when its prompt has no room."""
        request = sequence.request
        placed = self._residence.place(sequence.tokens, request.salt, sequence.seq, spoken_for)
        if placed is None:
            return False
        self.counters.evicted_tokens += placed.evicted
        if sequence.admitted_at is None:
            self._residence.add_op(
                OpenSampler(placed.seq, request.sampling, request.prompt, *self._bans(sequence))
            )
            sequence.admitted_at = now
            self.counters.started.append(Started(request.id, placed.seq, placed.reused))
            sequence.cached_tokens = placed.reused
            self.counters.cached_tokens += placed.reused
        sequence.seq = placed.seq
        sequence.computed = placed.reused
        sequence.move(State.PREFILLING)
        self._running[placed.seq] = sequence
        return True

    def _bans(self, sequence: Sequence) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What must not be drawn before there are enough tokens, and what never."""
        request = sequence.request
        ends = self._end_tokens.difference(request.stop_tokens)
        never = tuple(ends) if request.ignore_eos else ()
        return () if sequence.ban_lifted else (*ends.difference(never), *request.stop_tokens), never

    # --- the outcome ----------------------------------------------------------------------------

    def commit(self, plan: Plan, result: StepResult, now: float) -> list[Event]:
        """Take note of what was computed; returns what the clients are to be told, in order."""
        events, self._unsent = self._unsent, []
        self._residence.heard(result, self._budget.prefill_token_s)
        for seq in result.lost_prefix & self._running.keys():
            self._restart(self._running[seq])
        if result.status is Status.NO_CELLS:
            events.extend(self._give_way(plan, now))
            return events
        if result.status is Status.OK and not result.lost_prefix:
            seconds = result.execute_s + result.sample_s
            prefill = plan.num_prefill
            if not prefill or not any(chunk.scored for chunk in plan.chunks):  # scoring takes its own time
                self._budget.learn(plan.num_decodes, prefill, seconds)
            self._rhythm.took(prefill=prefill > 0, seconds=seconds)
            if self._speculation is not None and not prefill:
                self._speculation.learn(plan.num_tokens, seconds, reused=result.graphs_reused > 0)
        lost, failed = result.lost_prefix, result.failed
        for chunk in plan.chunks:
            sequence = self._running[chunk.seq]
            if lost and chunk.seq in lost:
                continue
            if failed and chunk.seq in failed:
                events.append(
                    self._end(sequence, FinishReason.ERROR, now, "the model could not compute this request")
                )
            elif event := self._advance(sequence, chunk, result, now):
                events.append(event)
        return events

    def _advance(self, sequence: Sequence, chunk: Chunk, result: StepResult, now: float) -> Event | None:
        seq = chunk.seq
        drawn = result.tokens[seq] if chunk.sample else ()
        confirmed = len(drawn) - 1 if chunk.drafted else 0
        self.counters.accepted_tokens += confirmed
        count = chunk.num_sure + confirmed
        sequence.computed += count
        self._residence.grew(seq, count)
        scores = tuple(result.scores[seq]) if chunk.scored else ()
        sequence.unscored += len(scores)
        event = self._draw(sequence, chunk, result, now) if chunk.sample else None
        if not (scores or sequence.request.reports_steps):
            return event
        event = event or Event(request_id=sequence.request.id)
        if sequence.request.reports_steps:
            event = _with_totals(event, sequence, now)
        return msgspec.structs.replace(event, prompt_logprobs=scores)

    def _draw(self, sequence: Sequence, chunk: Chunk, result: StepResult, now: float) -> Event:
        if sequence.request.max_tokens <= 0:
            return self._end(sequence, FinishReason.LENGTH, now)
        seq, drawn = chunk.seq, result.tokens[chunk.seq]
        if sequence.state is not State.DECODING:
            sequence.move(State.DECODING)
        if self._speculation is not None:
            self._speculation.judge(sequence, drawn)
        logprobs: tuple[TokenLogprob, ...] = ()
        if result.logprobs and seq in result.logprobs:
            logprobs = tuple(result.logprobs[seq])
        return self._tell(sequence, drawn, logprobs, now)

    def _tell(
        self, sequence: Sequence, drawn: SequenceOf[int], logprobs: tuple[TokenLogprob, ...], now: float
    ) -> Event:
        """The event of the drawn tokens, up to the one that ends the request."""
        said = ""
        request = sequence.request
        pieces = self._shown_pieces if request.shows_special else self._pieces
        for taken, token in enumerate(drawn, start=1):
            room = self._limit - len(sequence.tokens)
            is_end = token in self._end_tokens or token in request.stop_tokens
            text, finish = sequence.draw(token, pieces[token], is_end, room, now)
            said += text
            if finish is not None:
                return self._end(
                    sequence,
                    finish,
                    now,
                    text=said,
                    tokens=tuple(drawn[:taken]),
                    logprobs=logprobs[:taken],
                    unwanted=drawn[taken:],
                )
        return Event(request_id=request.id, text=said, tokens=tuple(drawn), logprobs=logprobs)

    def _restart(self, sequence: Sequence) -> None:
        """The memory could not keep the reused prefix: compute it after all."""
        if sequence.num_output == 0:
            self.counters.cached_tokens -= sequence.cached_tokens
            sequence.cached_tokens = 0
        sequence.computed = 0
        self._residence.lost(sequence.seq)
        sequence.move(State.PREFILLING)

    def _give_way(self, plan: Plan, now: float) -> list[Event]:
        """The cache was fuller than the account says. Free something; the same work is planned again."""
        if self._evict(self._residence.free_cells + plan.num_tokens):
            return []
        if len(self._running) > 1:
            self._preempt(max(self._running.values(), key=_by_order))
            return []
        message = "the request does not fit the KV cache"
        return [
            self._end(sequence, FinishReason.ERROR, now, message) for sequence in list(self._running.values())
        ]

    def _end(
        self,
        sequence: Sequence,
        finish: FinishReason,
        now: float,
        error: str | None = None,
        *,
        text: str = "",
        tokens: tuple[int, ...] = (),
        logprobs: tuple[TokenLogprob, ...] = (),
        unwanted: SequenceOf[int] = (),
    ) -> Event:
        """The last event of a request. Its cells stay as an idle prefix, unless computing them failed.

        ``unwanted`` was drawn after the last token; all but the last of that has cells.
        """
        if sequence.state is State.WAITING:
            self._line.remove(sequence.request.id)
            if sequence.seq >= 0:
                self._residence.release(sequence.seq, (), keep=False)
        else:
            del self._running[sequence.seq]
            content = [*sequence.tokens, *unwanted][: sequence.computed]
            keep = finish is not FinishReason.ERROR and not sequence.request.computes_all
            self._residence.release(sequence.seq, content, keep=keep)
        sequence.move(State.FINISHED)
        del self._requests[sequence.request.id]
        return sequence.last_event(now, finish, error, text=text, tokens=tokens, logprobs=logprobs)

    # --- integrity ------------------------------------------------------------------------------

    def check(self) -> None:
        """Recompute every account; raises AssertionError where one is wrong."""
        self._residence.check()
        assert len(self._running) <= self._info.slots
        for seq, sequence in self._running.items():
            assert sequence.seq == seq
            assert sequence.state in (State.PREFILLING, State.DECODING)
            assert sequence.computed == self._residence.length(seq) < len(sequence.tokens)
        assert len(self._requests) == len(self._running) + len(self._line)
        assert self._residence.num_occupied == sum(1 for s in self._requests.values() if s.seq >= 0)


def _shown(vocabulary: Vocabulary, token: int) -> bytes:
    return vocabulary.piece(token) or vocabulary.detokenize([token], special=True).encode()


def _with_totals(event: Event, sequence: Sequence, now: float) -> Event:
    computed = min(sequence.computed, len(sequence.request.prompt))
    return msgspec.structs.replace(
        event, usage=sequence.usage(), timings=sequence.timings(now), computed_prompt=computed
    )


def _by_order(sequence: Sequence) -> tuple[float, int]:
    return sequence.order


def _by_pending(sequence: Sequence) -> int:
    return sequence.num_pending


def _refusal(request: EngineRequest, now: float, message: str) -> Event:
    sequence = Sequence(request, now, (0.0, 0))
    return sequence.last_event(now, FinishReason.ERROR, message)
