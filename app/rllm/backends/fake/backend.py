"""`rllm.engine.port.Backend` over the fake cells."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from rllm.backends.constraint.matcher import TokenMatcher
from rllm.backends.constraint.preparing import Constraints
from rllm.backends.fake.answers import next_token, read_script
from rllm.backends.fake.cells import Cells, ContractBroken
from rllm.backends.fake.store import FakeStore
from rllm.backends.fake.vocabulary import END_OF_TEXT, SIZE, FakeVocabulary
from rllm.backends.options import FakeOptions, Within, unlimited
from rllm.engine.constraint import Constraint
from rllm.engine.port import (
    BackendFailed,
    Chunk,
    CloseSampler,
    CopyPrefix,
    Forget,
    LiftBan,
    Load,
    Op,
    OpenSampler,
    Plan,
    Restore,
    Save,
    Status,
    StepResult,
    StoredPrefix,
    Truncate,
    Unload,
    nothing,
)
from rllm.engine.types import ModelInfo, SamplingParams, TokenLogprob, TopLogprob
from rllm.errors import Miscomputed, OutOfMemory

_BABBLE = ord("a")
_SELF_TEST_S = 0.5
NextToken = Callable[[Sequence[int], SamplingParams], int]


@dataclass
class FakeScript:
    """Hooks and faults. Steps are the calls of ``execute`` that have chunks, counted from 0."""

    before_step: Callable[[int, Plan], None] = lambda _step, _plan: None
    """Runs in the engine's thread before anything of the plan is applied."""
    next_token: NextToken | None = None
    """Replaces the rule for the next token; bans and directives are then this function's affair."""
    fail: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """step -> sequences whose chunk cannot be computed."""
    no_cells: frozenset[int] = frozenset()
    """Steps that find no cells, whatever there is."""
    die_at: int | None = None
    """The step that raises BackendFailed, as do all after it."""
    refuse: Callable[[Op], bool] = lambda _op: False
    """Which Truncate (to more than 0), CopyPrefix, Save, Restore and Load fail."""
    can_reuse_prefix: bool = True
    """False: the memory refuses every Truncate to more than 0 and every CopyPrefix."""


@dataclass
class _FakeSampler:
    params: SamplingParams
    banned: tuple[int, ...]
    never: tuple[int, ...] = ()
    matcher: TokenMatcher | None = None

    def forced(self) -> list[int]:
        if self.matcher is None or self.params.num_logprobs >= 0:
            return []
        tokens = self.matcher.forced()
        for token in tokens:
            self.matcher.consume(token)
        return tokens

    def draw(self, tokens: Sequence[int]) -> int:
        banned: tuple[int, ...] = (*self.banned, *self.never)
        if self.matcher is None:
            return next_token(tokens, self.params, banned)
        allowed = self.matcher.allowed()
        texts = [token for token in allowed if token < END_OF_TEXT and token not in banned]
        forbidden = [token for token in range(SIZE) if token not in allowed]
        token = next_token(tokens, self.params, (*banned, *forbidden)) if texts else allowed[0]
        self.matcher.consume(token)
        return token


class FakeBackend:
    """See the package's docstring for what it says and how to break it."""

    def __init__(
        self,
        options: FakeOptions | None = None,
        script: FakeScript | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        within: Within = unlimited,
    ) -> None:
        self.options = options = options or FakeOptions()
        if options.most_slots and options.most_slots < options.slots:
            raise OutOfMemory(f"fake: there is memory for {options.most_slots} slots, not {options.slots}")
        with within(_SELF_TEST_S):
            _self_test(options)
        self.script = script or FakeScript()
        self._sleep = sleep
        num_cells = options.kv_cells or options.slots * options.ctx_per_slot
        # Idle prefixes may have ids of their own where those cost nothing, as with llama.cpp.
        num_sequences = 4 * options.slots if options.kv_unified else options.slots
        self.cells = Cells(num_sequences=num_sequences, num_cells=num_cells, unified=options.kv_unified)
        self.num_steps = 0
        self.closed = False
        self.store = FakeStore(self.cells, options.store_bytes)
        self._samplers: dict[int, _FakeSampler] = {}
        self._vocabulary = FakeVocabulary()
        self._constraints = Constraints(self._vocabulary)
        self._info = ModelInfo(
            path="fake.gguf",
            description="fake",
            architecture="fake",
            num_params=0,
            size_bytes=0,
            vocab_size=SIZE,
            num_ctx_train=options.ctx_per_slot,
            slots=options.slots,
            num_sequences=num_sequences,
            ctx_per_slot=options.ctx_per_slot,
            kv_cells=num_cells,
            kv_unified=options.kv_unified,
            kv_bytes=num_cells,
            batch_size=options.batch_size,
            device="none",
            can_reuse_prefix=self.script.can_reuse_prefix,
            max_drafted=options.batch_size if self.script.can_reuse_prefix else 0,
            max_scored=options.max_scored or options.batch_size,
            store_bytes=options.store_bytes,
            store_disk_bytes=options.store_disk_bytes,
        )

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def vocabulary(self) -> FakeVocabulary:
        return self._vocabulary

    def stored(self) -> Sequence[StoredPrefix]:
        return ()

    def prepare(self, constraint: Constraint) -> Future[None]:
        return self._constraints.prepare(constraint)

    def execute(self, plan: Plan, meanwhile: Callable[[], None] = nothing) -> StepResult:
        meanwhile()
        self._check(plan)
        if plan.chunks:
            self.script.before_step(self.num_steps, plan)
        lost = self._apply(plan.ops)
        chunks = [chunk for chunk in plan.chunks if chunk.seq not in lost]
        store = self.store.take_report() if self.options.store_bytes else None
        if not chunks:
            return StepResult(Status.OK, lost_prefix=lost, store=store)
        for chunk in chunks:
            if chunk.num_outputs and chunk.seq not in self._samplers:
                raise ValueError(f"sequence {chunk.seq} has no sampler")
        step, self.num_steps = self.num_steps, self.num_steps + 1
        began = time.perf_counter()
        if delay := self.options.step_s + self.options.token_s * plan.num_tokens:
            self._sleep(delay)
        result = self._compute(chunks, step)
        result.lost_prefix, result.store = lost, store
        result.execute_s = time.perf_counter() - began
        return result

    def close(self) -> None:
        self.closed = True
        self._constraints.close()
        self._samplers.clear()

    def check(self) -> None:
        self.cells.check()

    def _check(self, plan: Plan) -> None:
        if self.closed:
            raise BackendFailed("the backend is closed")
        if plan.num_tokens > self.options.batch_size:
            raise ValueError(f"a plan of {plan.num_tokens} tokens in a batch of {self.options.batch_size}")
        seqs = [chunk.seq for chunk in plan.chunks]
        if len(set(seqs)) != len(seqs):
            raise ValueError("a sequence has two chunks in one plan")
        if seqs and not 0 <= min(seqs) <= max(seqs) < self._info.num_sequences:
            raise ValueError(f"a sequence is not in 0..{self._info.num_sequences - 1}")
        if seqs != sorted(seqs):
            raise ContractBroken(f"chunks are not ordered by sequence: {seqs}")
        for chunk in plan.chunks:
            if not chunk.tokens or not all(0 <= token < SIZE for token in chunk.tokens):
                raise ContractBroken(f"chunk of sequence {chunk.seq} is empty or holds an unknown token")

    def _apply(self, ops: Sequence[Op]) -> frozenset[int]:
        lost: set[int] = set()
        for op in ops:
            match op:
                case OpenSampler():
                    matcher = None if op.constraint is None else self._constraints.matcher(op.constraint)
                    self._samplers[op.seq] = _FakeSampler(op.params, op.banned, op.never, matcher)
                case LiftBan(seq):
                    self._samplers[seq].banned = ()
                case CloseSampler(seq):
                    self._samplers.pop(seq, None)
                case Truncate(seq, length):
                    if length > 0 and self._refuses(op):
                        length = 0
                        lost.add(seq)
                    self.cells.truncate(seq, length)
                case CopyPrefix(src, dst, length):
                    if self._refuses(op) or src in lost:
                        self.cells.truncate(dst, 0)
                        lost.add(dst)
                    else:
                        self.cells.copy_prefix(src, dst, length)
                case Restore():
                    if not self.store.restore(op, fails=self._refuses(op)):
                        lost.add(op.seq)
                case Save() | Load() | Unload() | Forget():
                    self.store.apply(op, fails=self._refuses(op))
        return frozenset(lost)

    def _refuses(self, op: Op) -> bool:
        return not self.script.can_reuse_prefix or self.script.refuse(op)

    def _compute(self, chunks: Sequence[Chunk], step: int) -> StepResult:
        if self.script.die_at is not None and step >= self.script.die_at:
            raise BackendFailed(f"scripted at step {self.script.die_at}")
        wanted = {chunk.seq: len(chunk.tokens) for chunk in chunks}
        if step in self.script.no_cells or not self.cells.has_room(wanted):
            return StepResult(Status.NO_CELLS)
        for chunk in chunks:
            self.cells.append(chunk.seq, chunk.tokens, chunk.start)
        failed = {chunk.seq for chunk in chunks if self._fails(chunk, step)}
        for seq in failed:
            self.cells.truncate(seq, 0)
        result = StepResult(Status.FAILED if failed else Status.OK, failed=failed)
        drawn = [chunk for chunk in chunks if chunk.sample and chunk.seq not in failed]
        result.tokens = {chunk.seq: self._draw_chunk(chunk) for chunk in drawn}
        forced = {chunk.seq: self._samplers[chunk.seq].forced() for chunk in drawn}
        result.forced = {seq: tokens for seq, tokens in forced.items() if tokens}
        result.scores = {
            chunk.seq: [
                _logprob(token, self._samplers[chunk.seq].params.num_prompt_logprobs, rank=1)
                for token in chunk.scored
            ]
            for chunk in chunks
            if chunk.scored and chunk.seq not in failed
        }
        result.logprobs = {
            seq: [_logprob(token, self._samplers[seq].params.num_logprobs) for token in tokens]
            for seq, tokens in result.tokens.items()
            if self._samplers[seq].params.num_logprobs >= 0
        }
        return result

    def _draw_chunk(self, chunk: Chunk) -> list[int]:
        """What is drawn where the cells end before the drafts, and on as long as these are right."""
        start = chunk.start + chunk.num_sure
        self.cells.truncate(chunk.seq, start)
        drawn = [self._draw(chunk.seq)]
        for draft in chunk.drafts:
            if draft != drawn[-1]:
                break
            self.cells.append(chunk.seq, [draft], start + len(drawn) - 1)
            drawn.append(self._draw(chunk.seq))
        return drawn

    def _fails(self, chunk: Chunk, step: int) -> bool:
        if self.options.babbles:
            return False
        script = read_script(self.cells.tokens(chunk.seq)) if chunk.sample else None
        due = {name for name, at in script.faults.items() if at == len(script.answer)} if script else set()
        if "abort" in due:
            os.abort()
        if "hang" in due:
            threading.Event().wait()
        if "die" in due:
            raise BackendFailed("a prompt asked for it")
        if "oom" in due:
            raise BackendFailed("a prompt asked for more memory than there is", out_of_memory=True)
        return "fail" in due or chunk.seq in self.script.fail.get(step, ())

    def _draw(self, seq: int) -> int:
        if self.options.babbles:
            return _BABBLE
        sampler, tokens = self._samplers[seq], self.cells.tokens(seq)
        if self.script.next_token is not None:
            return self.script.next_token(tokens, sampler.params)
        return sampler.draw(tokens)


def _self_test(options: FakeOptions) -> None:
    """
    Raises:
        Miscomputed: the options ask for it, if nothing worse.
    """
    safe = options.computes_with
    if safe and all(getattr(options, name) == value for name, value in safe.items()):
        return
    match options.self_test:
        case "abort":
            os.abort()
        case "hang":
            threading.Event().wait()
        case "nan" | "constant":
            raise Miscomputed(f"fake: the first logits are {options.self_test}")


def _logprob(token: int, num_top: int, rank: int = 0) -> TokenLogprob:
    """The drawn token has a probability of one half, its next rival of a quarter, and so on."""
    ranked = [token, *(other for other in range(SIZE) if other != token)][:num_top]
    top = tuple(
        TopLogprob(token=other, logprob=-0.6931471805599453 * (i + 1)) for i, other in enumerate(ranked)
    )
    return TokenLogprob(token=token, logprob=-0.6931471805599453, top=top, rank=rank)
