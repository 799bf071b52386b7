"""What the next step computes, and what its outcome means.

Pure decisions over integers: no clock, no lock, no logger, no model. `plan` says what to compute, somebody
executes it, `commit` hears the outcome and says what to tell the clients. `submit` and `cancel` are called
between steps, never between a plan and its commit.

Which tokens go into a step is decided by its shape (`rllm.engine.steps`), who holds a slot and who gives way
by `rllm.engine.running`, where tokens lie by `rllm.engine.kv_slots`. `rllm.engine.build` puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass

import msgspec

from rllm.engine.drafts import Drafter
from rllm.engine.kv_slots import KVSlots
from rllm.engine.port import Chunk, Plan, Status, StepResult, Vocabulary
from rllm.engine.prefills import Batch
from rllm.engine.running import Counters, Running
from rllm.engine.sequence import Sequence, State
from rllm.engine.snapshot import Snapshot, take
from rllm.engine.steps import Steps
from rllm.engine.text import Pieces
from rllm.engine.times import StepShape, StepTimes
from rllm.engine.types import EngineRequest, Event, FinishReason, ModelInfo, TokenLogprob


@dataclass(frozen=True, slots=True)
class Inspection:
    """The parts of a scheduler, for tests. Whoever changes them changes the scheduler."""

    requests: Mapping[str, Sequence]
    running: Running
    kv: KVSlots


class Scheduler:
    """Owns every request from `submit` to its last event."""

    def __init__(
        self,
        info: ModelInfo,
        vocabulary: Vocabulary,
        running: Running,
        steps: Steps,
        times: StepTimes,
        drafter: Drafter | None = None,
    ) -> None:
        self._can_score = info.max_scored > 0
        self._max_tokens = info.max_request_tokens
        self._end_tokens = vocabulary.end_tokens
        self._pieces = Pieces(vocabulary.piece)
        self._shown_pieces = Pieces(lambda token: _shown(vocabulary, token))
        self._running = running
        self._kv = running.kv
        self._steps = steps
        self._times = times
        self._drafter = drafter
        self._requests: dict[str, Sequence] = {}
        self._unsent: list[Event] = []

    @property
    def num_running(self) -> int:
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        return len(self._running.line)

    @property
    def cells_used(self) -> int:
        return self._kv.used

    @property
    def has_work(self) -> bool:
        return bool(self._requests or self._unsent or self._kv.ops or self._kv.wants_quiet)

    @property
    def store_bytes(self) -> tuple[int, int]:
        """Prefixes stored outside the cache, in memory and on disk."""
        return self._kv.offload.store.memory_used, self._kv.offload.store.disk_used

    @property
    def prefill_token_s(self) -> float | None:
        """Seconds for one more prompt token in a step; None before the first was measured."""
        return self._times.token_s

    @property
    def counters(self) -> Counters:
        return self._running.counters

    def take_counters(self) -> Counters:
        """What happened since the last call."""
        counters, self._running.counters = self._running.counters, Counters()
        return counters

    def snapshot(self, now: float) -> Snapshot:
        return take(self._requests.values(), self._kv.idle_prefixes(), self._kv.used, now)

    def inspect(self) -> Inspection:
        return Inspection(self._requests, self._running, self._kv)

    # --- the door -------------------------------------------------------------------------------

    def submit(self, request: EngineRequest, now: float, fault: str | None = None) -> None:
        """Put a request in line. One that can never run, ``fault`` says why if somebody knows already, is
        answered with an error at the next commit."""
        if fault := fault or self._fault_of(request):
            sequence = Sequence(request, now, (0.0, 0))
            self._unsent.append(sequence.last_event(now, FinishReason.ERROR, fault))
            return
        sequence = Sequence(request, now, self._running.line.place(request.priority, now))
        sequence.turn.uncached = self._kv.num_uncached_soon(request.prompt, request.salt)
        self._requests[request.id] = sequence
        self._running.line.push(sequence)

    def _fault_of(self, request: EngineRequest) -> str | None:
        """Why it can never run."""
        if request.id in self._requests:
            return f"request id {request.id!r} is already in use"
        if request.computes_all and not self._can_score:
            return "log probabilities of a prompt cannot be computed"
        if not 1 <= len(request.prompt) <= self._max_tokens:
            return f"the prompt has {len(request.prompt)} tokens; from 1 to {self._max_tokens} fit"
        return None

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
        batch = Batch()
        self._steps.fill(batch, now)
        chunks = tuple(batch.chunks[seq] for seq in sorted(batch.chunks))
        if not chunks:
            self._kv.save_quietly()
        return Plan(ops=self._kv.take_ops(), chunks=chunks)

    # --- the outcome ----------------------------------------------------------------------------

    def commit(self, plan: Plan, result: StepResult, now: float) -> list[Event]:
        """Take note of what was computed; returns what the clients are to be told, in order."""
        events, self._unsent = self._unsent, []
        self._times.learn_moves(result)
        self._kv.offload.heard(result)
        lost, failed = result.lost_prefix, result.failed
        for seq in lost & self._running.by_seq.keys():
            self._running.restart(self._running.by_seq[seq])
        if result.status is Status.NO_CELLS:
            events.extend(self._give_way(plan, now))
            return events
        if result.status is Status.OK and not lost:
            shape, seconds = StepShape.of(plan, result), result.execute_s + result.sample_s
            self._times.learn(shape, seconds)
            self._steps.took(shape, seconds)
        for chunk in plan.chunks:
            sequence = self._running.by_seq[chunk.seq]
            if lost and chunk.seq in lost:
                continue
            if failed and chunk.seq in failed:
                message = "the model could not compute this request"
                events.append(self._end(sequence, FinishReason.ERROR, now, message))
            elif event := self._advance(sequence, chunk, result, now):
                events.append(event)
        return events

    def _advance(self, sequence: Sequence, chunk: Chunk, result: StepResult, now: float) -> Event | None:
        seq = chunk.seq
        drawn = result.tokens[seq] if chunk.sample else ()
        confirmed = len(drawn) - 1 if chunk.drafted else 0
        self._running.counters.accepted_tokens += confirmed
        count = chunk.num_sure + confirmed
        sequence.computed += count
        self._kv.grew(seq, count)
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
        if self._drafter is not None:
            self._drafter.judge(sequence, drawn)
        logprobs: tuple[TokenLogprob, ...] = ()
        if result.logprobs and seq in result.logprobs:
            logprobs = tuple(result.logprobs[seq])
        forced = result.forced.get(seq, ()) if result.forced else ()
        return self._tell(sequence, [*drawn, *forced] if forced else drawn, logprobs, now)

    def _tell(
        self, sequence: Sequence, drawn: SequenceOf[int], logprobs: tuple[TokenLogprob, ...], now: float
    ) -> Event:
        """The event of the drawn and forced tokens, up to the one that ends the request."""
        said = ""
        request = sequence.request
        pieces = self._shown_pieces if request.shows_special else self._pieces
        for taken, token in enumerate(drawn, start=1):
            room = self._max_tokens - len(sequence.tokens)
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

    def _give_way(self, plan: Plan, now: float) -> list[Event]:
        """The cache was fuller than the account says. Free something; the same work is planned again."""
        if self._running.evict(self._kv.free_cells + plan.num_tokens):
            return []
        if len(self._running) > 1:
            self._running.preempt(self._running.last())
            return []
        message = "the request does not fit the KV cache"
        sequences = list(self._running.by_seq.values())
        return [self._end(sequence, FinishReason.ERROR, now, message) for sequence in sequences]

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
        content = [*sequence.tokens, *unwanted][: sequence.computed]
        keep = finish is not FinishReason.ERROR and not sequence.request.computes_all
        self._running.leave(sequence, content, keep=keep)
        del self._requests[sequence.request.id]
        return sequence.last_event(now, finish, error, text=text, tokens=tokens, logprobs=logprobs)

    # --- integrity ------------------------------------------------------------------------------

    def check(self) -> None:
        """Recompute every account; raises AssertionError where one is wrong."""
        waiting = [s for s in self._requests.values() if s.state is State.WAITING]
        self._running.check(num_preempted=sum(1 for s in waiting if s.seq >= 0))
        assert len(self._running.line) == len(waiting) == len(self._requests) - len(self._running)


def _shown(vocabulary: Vocabulary, token: int) -> bytes:
    return vocabulary.piece(token) or vocabulary.detokenize([token], special=True).encode()


def _with_totals(event: Event, sequence: Sequence, now: float) -> Event:
    computed = min(sequence.computed, len(sequence.request.prompt))
    return msgspec.structs.replace(
        event, usage=sequence.usage(), timings=sequence.clock.timings(now), computed_prompt=computed
    )
