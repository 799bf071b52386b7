"""`rllm.engine.port.Backend` on one llama.cpp model and context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from time import perf_counter

from rllm.backends.constraint.matcher import TokenMatcher
from rllm.backends.constraint.preparing import Constraints
from rllm.backends.llama import self_test
from rllm.backends.llama.decoder import Decoder
from rllm.backends.llama.draws import Draws
from rllm.backends.llama.memory import Memory, probe_copy
from rllm.backends.llama.model import Model
from rllm.backends.llama.opening import describe, open_context
from rllm.backends.llama.outputs import Card, Outputs
from rllm.backends.llama.settings import open_store, uses_gpu
from rllm.backends.llama.state_store import StateStore
from rllm.backends.llama.vocabulary import LlamaVocabulary
from rllm.backends.options import LlamaOptions, Within, unlimited
from rllm.engine.constraint import Constraint
from rllm.engine.port import (
    BackendFailed,
    CloseSampler,
    LiftBan,
    Op,
    OpenSampler,
    Plan,
    Status,
    StepResult,
    StoredPrefix,
    nothing,
)
from rllm.engine.types import ModelInfo

WAIT_FOR_DISK_S = 0.02
"""How long a step that has nothing else to do waits for a prefix that is being loaded."""


class LlamaBackend:
    """Owned and called by exactly one thread, except for `vocabulary`."""

    def __init__(self, path: Path | str, options: LlamaOptions, *, within: Within = unlimited) -> None:
        """Load, create the context, compute as requests will (`self_test`), ``within`` a limit.

        Raises:
            StartError: it cannot be served; one line says which file and why.
            Miscomputed: what it computes is wrong.
        """
        began = perf_counter()
        self._model = Model(
            path,
            gpu_layers=options.gpu_layers,
            mmap=options.mmap,
            mlock=options.mlock,
            cuda_graphs=options.cuda_graphs,
            repack=options.repack,
        )
        self._decoder: Decoder | None = None
        self._store: StateStore | None = None
        self._constraints: Constraints | None = None
        try:
            context, wanted, options = open_context(self._model, options)
            outputs = Outputs(context, Card.of_library() if uses_gpu(options) else None)
            self._decoder = decoder = Decoder(context, Draws(context, outputs))
            self._vocabulary = LlamaVocabulary(self._model)
            self._vocabulary.load_pieces()
            self._constraints = Constraints(self._vocabulary)
            with within(self_test.limit_s(self._model.size_bytes)):
                self_test.run(decoder, options.slots, str(self._model.path))
                copy_s = probe_copy(decoder) if self._model.can_drop_tail else 0.0
            self._store = open_store(options, self._model, context)
            self._memory = Memory(context, self._store, copy_s)
        except BaseException:
            self.close()
            raise
        self._info = describe(self._model, context, wanted, options, perf_counter() - began)
        self._graphs_reused = context.num_graphs_reused()
        decoder.pads = not self._info.kv_unified and self._info.can_reuse_prefix
        decoder.learns_rows = decoder.pads and not self._info.flat_decode  # from now on

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def vocabulary(self) -> LlamaVocabulary:
        return self._vocabulary

    def stored(self) -> Sequence[StoredPrefix]:
        return () if self._store is None else self._store.stored

    def inspect(self) -> Decoder:
        """The context and what draws from it, for tests.

        Raises:
            BackendFailed: it is closed.
        """
        if self._decoder is None:
            raise BackendFailed("the backend is closed")
        return self._decoder

    def prepare(self, constraint: Constraint) -> Future[None]:
        return self._open_constraints().prepare(constraint)

    def _matcher(self, constraint: Constraint | None) -> TokenMatcher | None:
        return None if constraint is None else self._open_constraints().matcher(constraint)

    def _open_constraints(self) -> Constraints:
        if self._constraints is None:
            raise BackendFailed("the backend is closed")
        return self._constraints

    def execute(self, plan: Plan, meanwhile: Callable[[], None] = nothing) -> StepResult:
        decoder = self.inspect()
        if self._info.overlaps and plan.chunks and not plan.num_prefill:
            decoder.meanwhile = meanwhile
        else:
            meanwhile()
        self._check(plan)
        step = StepResult(Status.OK)
        step.lost_prefix = self._apply(plan.ops, decoder.draws, step)
        chunks = [chunk for chunk in plan.chunks if chunk.seq not in step.lost_prefix]
        decoder.draws.require(chunks)
        if chunks:
            decoder.compute(chunks, step)
        if self._store is not None:
            if self._store.is_loading and not chunks:
                self._store.wait(WAIT_FOR_DISK_S)
            step.store = self._store.take_report()
        before, self._graphs_reused = self._graphs_reused, decoder.context.num_graphs_reused()
        step.graphs_reused = self._graphs_reused - before
        return step

    def close(self) -> None:
        if self._constraints is not None:
            self._constraints.close()  # it reads the vocabulary
            self._constraints = None
        if self._decoder is not None:
            self._decoder.draws.close_all()
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._decoder is not None:
            self._decoder.context.close()
            self._decoder = None
        self._model.close()

    def _check(self, plan: Plan) -> None:
        """Refuse before anything changes what would end the process inside llama.cpp."""
        if plan.num_tokens > self._info.batch_size:
            raise ValueError(f"a plan of {plan.num_tokens} tokens in a batch of {self._info.batch_size}")
        if plan.num_drafted > self._info.max_drafted:
            raise ValueError(f"a plan of {plan.num_drafted} drafts; up to {self._info.max_drafted} are drawn")
        most = self._info.num_sequences + max(self._info.max_drafted, self._info.max_scored)
        if plan.num_outputs > most:
            raise ValueError(f"a plan of {plan.num_outputs} rows of logits; up to {most} are reserved")
        seqs = [chunk.seq for chunk in plan.chunks]
        if len(set(seqs)) != len(seqs):
            raise ValueError("a sequence has two chunks in one plan")
        if seqs and not 0 <= min(seqs) <= max(seqs) < self._info.num_sequences:
            raise ValueError(f"a sequence is not in 0..{self._info.num_sequences - 1}")

    def _apply(self, ops: Sequence[Op], draws: Draws, step: StepResult) -> frozenset[int]:
        """Apply in order. The sequences whose memory did not follow, now empty."""
        lost: set[int] = set()
        for op in ops:
            match op:
                case OpenSampler():
                    draws.open(op, self._info.ctx_per_slot, self._matcher(op.constraint))
                case LiftBan(seq):
                    draws.lift_ban(seq)
                case CloseSampler(seq):
                    draws.close(seq)
                case _:
                    if (lost_seq := self._memory.apply(op, step.copied)) is not None:
                        lost.add(lost_seq)
        return frozenset(lost)
