"""`rllm.engine.port.Backend` on one llama.cpp model and context.

What llama_decode's return codes mean here (llama-context.cpp, llama_context::decode):

    0            computed
    1            no cells; state restored           -> NO_CELLS, the scheduler makes room
    -1           an invalid chunk; state untouched  -> each chunk alone, only the invalid ones fail
    2, < -1      aborted or failed half-way; parts  -> every sequence back to where it began, each chunk
                 of the batch may be in the cache      alone once more; what fails again fails alone
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from rllm.backends.llama import lib, self_test
from rllm.backends.llama.batch import Batch
from rllm.backends.llama.context import Context, ContextOptions
from rllm.backends.llama.cuda_graphs import graphs_allowed
from rllm.backends.llama.drawing import Drawer, Top
from rllm.backends.llama.memory import Memory
from rllm.backends.llama.model import Model
from rllm.backends.llama.outputs import Card, Outputs, Rows
from rllm.backends.llama.padding import padding
from rllm.backends.llama.sampler import Sampler
from rllm.backends.llama.scoring import prompt_logprobs, token_logprob
from rllm.backends.llama.settings import (
    context_options,
    ctx_per_slot,
    max_drafted,
    max_scored,
    open_store,
    store_bytes,
    uses_gpu,
)
from rllm.backends.llama.state_store import StateStore
from rllm.backends.llama.vocabulary import LlamaVocabulary
from rllm.backends.options import LlamaOptions, fewer, with_slots
from rllm.engine.port import (
    BackendFailed,
    Chunk,
    CloseSampler,
    Effort,
    LiftBan,
    Op,
    OpenSampler,
    Plan,
    Status,
    StepResult,
    StoredPrefix,
    Within,
    nothing,
    unlimited,
)
from rllm.engine.times import RowTimes
from rllm.engine.types import ComputePath, ModelInfo, TokenLogprob
from rllm.errors import Miscomputed, StartError
from rllm.files.gguf_info import kv_bytes_per_token

WAIT_FOR_DISK_S = 0.02
"""How long a step that has nothing else to do waits for a prefix that is being loaded."""
_OK, _NO_CELLS, _INVALID = 0, 1, -1


@dataclass
class _Step:
    """What one call of `execute` has brought so far."""

    tokens: dict[int, list[int]] = field(default_factory=dict)
    logprobs: dict[int, list[TokenLogprob]] = field(default_factory=dict)
    scores: dict[int, list[TokenLogprob]] = field(default_factory=dict)
    failed: set[int] = field(default_factory=set)
    execute_s: float = 0.0
    sample_s: float = 0.0
    slow_samples: int = 0
    card_samples: int = 0
    retries: int = 0
    copied: Effort = field(default_factory=Effort)

    @property
    def status(self) -> Status:
        return Status.FAILED if self.failed else Status.OK


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
        self._context: Context | None = None
        self._store: StateStore | None = None
        self._samplers: dict[int, Sampler] = {}
        self._row_costs = RowTimes()
        self._learns_rows = False  # not from the steps of the start
        self._meanwhile: Callable[[], None] = nothing
        try:
            self._context, wanted, options = _open_context(self._model, options)
            self._vocabulary = LlamaVocabulary(self._model)
            self._vocabulary.load_pieces()
            self._batch = Batch(self._context.batch_size, self._context.num_sequences)
            self._outputs = Outputs(self._context, Card.of_library() if uses_gpu(options) else None)
            self._drawer = Drawer(self._model.vocab_size)
            with within(self_test.limit_s(self._model.size_bytes)):
                self._self_test(options.slots)
                copy_s = self._probe_copy()
            self._store = open_store(options, self._model, self._context)
            self._memory = Memory(self._context, self._store, copy_s)
        except BaseException:
            self.close()
            raise
        self._info = _describe(self._model, self._context, wanted, options, perf_counter() - began)
        self._graphs_reused = self._context.num_graphs_reused()
        self._rows_beside = max(self._info.max_drafted, self._info.max_scored)
        self._pads = not self._info.kv_unified and self._info.can_reuse_prefix
        self._learns_rows = self._pads and not self._info.flat_decode

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def vocabulary(self) -> LlamaVocabulary:
        return self._vocabulary

    def stored(self) -> Sequence[StoredPrefix]:
        return () if self._store is None else self._store.stored

    def execute(self, plan: Plan, meanwhile: Callable[[], None] = nothing) -> StepResult:
        if self._info.overlaps and plan.chunks and not plan.num_prefill:
            self._meanwhile = meanwhile
        else:
            meanwhile()
        self._check(plan)
        step = _Step()
        lost = self._apply(plan.ops, step)
        chunks = [chunk for chunk in plan.chunks if chunk.seq not in lost]
        for chunk in chunks:
            if chunk.num_outputs and chunk.seq not in self._samplers:
                raise ValueError(f"sequence {chunk.seq} has no sampler")
        status = self._compute(chunks, step) if chunks else Status.OK
        if self._store is not None and self._store.is_loading and not chunks:
            self._store.wait(WAIT_FOR_DISK_S)
        return StepResult(
            status,
            tokens=step.tokens,
            logprobs=step.logprobs,
            scores=step.scores,
            failed=frozenset(step.failed),
            lost_prefix=lost,
            copied=step.copied,
            store=None if self._store is None else self._store.take_report(),
            execute_s=step.execute_s,
            sample_s=step.sample_s,
            slow_samples=step.slow_samples,
            card_samples=step.card_samples,
            retries=step.retries,
            graphs_reused=self._count_reused_graphs(),
        )

    def close(self) -> None:
        for sampler in self._samplers.values():
            sampler.close()
        self._samplers.clear()
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._context is not None:
            self._context.close()
            self._context = None
        self._model.close()

    def _check(self, plan: Plan) -> None:
        """Refuse before anything changes what would end the process inside llama.cpp."""
        if self._context is None:
            raise BackendFailed("the backend is closed")
        if plan.num_tokens > self._info.batch_size:
            raise ValueError(f"a plan of {plan.num_tokens} tokens in a batch of {self._info.batch_size}")
        if plan.num_drafted > self._info.max_drafted:
            raise ValueError(
                f"a plan of {plan.num_drafted} guesses; up to {self._info.max_drafted} are drawn"
            )
        if plan.num_outputs > (most := self._info.num_sequences + self._rows_beside):
            raise ValueError(f"a plan of {plan.num_outputs} rows of logits; up to {most} are reserved")
        seqs = [chunk.seq for chunk in plan.chunks]
        if len(set(seqs)) != len(seqs):
            raise ValueError("a sequence has two chunks in one plan")
        if seqs and not 0 <= min(seqs) <= max(seqs) < self._info.num_sequences:
            raise ValueError(f"a sequence is not in 0..{self._info.num_sequences - 1}")

    # Operations on samplers and memory

    def _apply(self, ops: Sequence[Op], step: _Step) -> frozenset[int]:
        """Apply in order. The sequences whose memory did not follow, now empty."""
        lost: set[int] = set()
        for op in ops:
            match op:
                case OpenSampler():
                    self._open_sampler(op)
                case LiftBan(seq):
                    self._samplers[seq].lift_ban()
                case CloseSampler(seq):
                    self._close_sampler(seq)
                case _:
                    if (lost_seq := self._memory.apply(op, step.copied)) is not None:
                        lost.add(lost_seq)
        return frozenset(lost)

    def _open_sampler(self, op: OpenSampler) -> None:
        self._close_sampler(op.seq)
        info = self._info
        self._samplers[op.seq] = Sampler(
            op, drawer=self._drawer, vocab_size=info.vocab_size, num_ctx=info.ctx_per_slot
        )

    def _close_sampler(self, seq: int) -> None:
        if sampler := self._samplers.pop(seq, None):
            sampler.close()

    # Computing

    def _compute(self, chunks: Sequence[Chunk], step: _Step) -> Status:
        if pads := self._padding(chunks):
            if self._compute_padded(chunks, pads, step):
                return step.status
            step.retries += 1
        code = self._decode(chunks, step)
        if code == _OK:
            self._draw(chunks, step)
            return step.status
        if code == _NO_CELLS:
            return Status.NO_CELLS
        return self._compute_alone(chunks, code, step)

    def _padding(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        if not self._pads:
            return ()
        context = self._ctx
        cells, count = context.num_cells_per_sequence, context.num_sequences
        return padding(chunks, context.length, cells, count, self._row_costs)

    def _compute_padded(self, chunks: Sequence[Chunk], pads: Sequence[Chunk], step: _Step) -> bool:
        """Compute together with ``pads``, of which nothing remains. False: as if nothing had been done."""
        everything = sorted((*chunks, *pads), key=lambda chunk: chunk.seq)
        computed = self._decode(everything, step) == _OK
        if computed:
            self._draw(everything, step, skip=frozenset(pad.seq for pad in pads))
        for chunk in pads if computed else everything:
            self._ctx.truncate(chunk.seq, chunk.start)
        return computed

    def _compute_alone(self, chunks: Sequence[Chunk], code: int, step: _Step) -> Status:
        """After a batch that failed as a whole: find who can be computed."""
        num_fatal = 0
        for chunk in chunks:
            if self._rewind(chunk, code):
                step.retries += 1
                own_code = self._decode([chunk], step)
                if own_code == _OK:
                    self._draw([chunk], step)
                    continue
                num_fatal += own_code not in (_NO_CELLS, _INVALID)
            self._ctx.truncate(chunk.seq, 0)
            step.failed.add(chunk.seq)
        if num_fatal == len(chunks):
            raise BackendFailed(
                f"llama_decode returned {code}, and failed again for every sequence",
                out_of_memory=lib.log.memory_was_short,
            )
        return step.status

    def _rewind(self, chunk: Chunk, code: int) -> bool:
        """Bring the sequence back to where it was before its chunk. False: its cells are not usable."""
        if code == _INVALID:
            return True  # nothing was touched, and a wrong position must stay wrong
        length = self._ctx.length(chunk.seq)
        if length > chunk.start and not self._ctx.truncate(chunk.seq, chunk.start):
            return False
        return length >= chunk.start

    def _decode(self, chunks: Sequence[Chunk], step: _Step) -> int:
        self._batch.clear()
        for chunk in chunks:
            self._batch.add(chunk.seq, chunk.tokens, chunk.start, outputs=chunk.num_outputs)
        self._outputs.expect(self._needs(chunks))
        began = perf_counter()
        code = self._ctx.decode(self._batch)
        meanwhile, self._meanwhile = self._meanwhile, nothing
        meanwhile()
        self._ctx.synchronize()
        seconds = perf_counter() - began
        step.execute_s += seconds
        if self._learns_rows and code == _OK and len(self._batch) == len(chunks) == _span(chunks):
            self._row_costs.learn(len(chunks), seconds)
        return code

    # Drawing

    def _needs(self, chunks: Sequence[Chunk]) -> Sequence[int]:
        """Of each row, how many of the highest logits will do for its draw; 0: all are needed. Empty: nothing
        can be drawn without all of them."""
        samplers, wanted = self._samplers, [chunk for chunk in chunks if chunk.num_outputs]
        if any(chunk.num_outputs > 1 or not chunk.sample for chunk in wanted):
            return ()
        return [samplers[chunk.seq].of_top if chunk.seq in samplers else 1 for chunk in wanted]

    def _draw(self, chunks: Sequence[Chunk], step: _Step, skip: frozenset[int] = frozenset()) -> None:
        """Draw and score for every chunk of the last decode that wants it; its rows are valid until the next.

        The rows of sequences in ``skip`` are nobody's.
        """
        began = perf_counter()
        if (tops := self._outputs.tops()) is None or not self._draw_of_tops(chunks, tops, step, skip):
            self._draw_of_rows(chunks, step, skip)
        step.sample_s += perf_counter() - began

    def _draw_of_tops(
        self, chunks: Sequence[Chunk], tops: Sequence[Top], step: _Step, skip: frozenset[int]
    ) -> bool:
        """Draw where the highest logits of a row are enough. False: for some the rows are needed."""
        enough = True
        for chunk, top in zip((chunk for chunk in chunks if chunk.sample), tops, strict=True):
            if chunk.seq in skip:
                continue
            token = self._samplers[chunk.seq].draw_of_top(top)
            if token is None:
                enough = False
            else:
                step.tokens[chunk.seq] = [token]
                step.card_samples += 1
        return enough

    def _draw_of_rows(self, chunks: Sequence[Chunk], step: _Step, skip: frozenset[int]) -> None:
        """Draw and score from the logits, for everybody who has not got a token yet."""
        if (count := sum(chunk.num_outputs for chunk in chunks)) == 0:
            return
        rows = self._outputs.rows(count)
        num_outputs = 0
        index = -1
        for chunk in chunks:
            index += len(chunk.tokens)
            own = rows[num_outputs : num_outputs + chunk.num_outputs]
            num_outputs += chunk.num_outputs
            if scored := len(chunk.scored):
                num_top = self._samplers[chunk.seq].params.num_prompt_logprobs
                step.scores[chunk.seq] = prompt_logprobs(own[:scored], chunk.scored, num_top)
            if chunk.sample and chunk.seq not in skip and chunk.seq not in step.tokens:
                self._draw_chunk(chunk, own[scored:], index - chunk.drafted, step)

    def _draw_chunk(self, chunk: Chunk, rows: Rows, index: int, step: _Step) -> None:
        """Draw after the last sure token, the batch's token ``index``, and after confirmed guesses."""
        seq, guesses = chunk.seq, chunk.drafts
        sampler = self._samplers[seq]
        num_logprobs = sampler.params.num_logprobs
        drawn = step.tokens[seq] = []
        for i, row in enumerate(rows):
            token = sampler.draw(row, self._ctx.pointer, index + i)
            drawn.append(token)
            step.slow_samples += sampler.is_slow
            if num_logprobs >= 0:
                step.logprobs.setdefault(seq, []).append(token_logprob(row, token, num_logprobs))
            if i < len(guesses) and guesses[i] != token:
                break
        if len(drawn) > len(guesses):
            return
        if not self._ctx.truncate(seq, chunk.start + chunk.num_sure + len(drawn) - 1):
            self._ctx.truncate(seq, 0)
            step.failed.add(seq)

    # Details

    @property
    def _ctx(self) -> Context:
        if self._context is None:
            raise BackendFailed("the backend is closed")
        return self._context

    def _self_test(self, slots: int) -> None:
        for chunks in self_test.batches(self._ctx, slots):
            rows = sum(len(chunk.tokens) for chunk in chunks)
            fault: str | None
            if (code := self._decode(chunks, _Step())) != _OK:
                fault = f"llama_decode returned {code} ({lib.log.last_error()})"
            else:
                fault = self_test.fault_of(self._outputs.rows(len(chunks))[: len(chunks)])
            if fault:
                raise Miscomputed(f"{self._model.path}: its first batch of {rows} rows gave {fault}")
        self._ctx.clear()

    def _probe_copy(self) -> float:
        """Seconds that a copy of a stream adds to a decode, which does it where it cannot be watched."""
        if not self._ctx.copies_streams or self._ctx.num_sequences < 2 or not self._model.can_drop_tail:
            return 0.0
        plain, copying = _Step(), _Step()
        self._decode([Chunk(0, [0], 0, True)], plain)
        self._ctx.copy_prefix(0, 1, 1)
        self._decode([Chunk(0, [0], 1, True)], copying)
        self._ctx.clear()
        return max(0.0, copying.execute_s - plain.execute_s)

    def _count_reused_graphs(self) -> int:
        before, self._graphs_reused = self._graphs_reused, self._ctx.num_graphs_reused()
        return self._graphs_reused - before


def _open_context(model: Model, options: LlamaOptions) -> tuple[Context, ContextOptions, LlamaOptions]:
    """The context, with fewer slots than asked for where memory does not hold more.

    Raises:
        StartError: not even one slot fits, or something else is wrong.
    """
    while True:
        wanted = context_options(options, model)
        lib.log.memory_was_short = False
        try:
            context = Context(model, wanted)
        except StartError as error:
            if not lib.log.memory_was_short:
                raise
            if options.slots == 1:
                raise StartError(f"{error}; not even one slot fits") from None
            slots = fewer(options.slots)
            text = f"out of memory with {options.slots} slots ({lib.log.last_error()}); trying {slots}"
            lib.log.sink("warning", text)
            options = with_slots(options, slots)
        else:
            lib.log.memory_was_short = False
            return context, wanted, options


def _span(chunks: Sequence[Chunk]) -> int:
    """How many ids lie from the first to the last, both included; chunks are in the order of their ids."""
    return chunks[-1].seq - chunks[0].seq + 1


def _describe(
    model: Model, context: Context, wanted: ContextOptions, options: LlamaOptions, load_s: float
) -> ModelInfo:
    per_token = kv_bytes_per_token(model.header.metadata, wanted.cache_type_k, wanted.cache_type_v)
    memory_bytes, disk_bytes = store_bytes(options, model)
    return ModelInfo(
        path=str(model.path),
        description=model.description,
        architecture=model.header.architecture,
        num_params=model.num_params,
        size_bytes=model.size_bytes,
        vocab_size=model.vocab_size,
        num_ctx_train=model.num_ctx_train,
        slots=options.slots,
        num_sequences=context.num_sequences,
        ctx_per_slot=ctx_per_slot(options, model),
        kv_cells=context.num_cells,
        kv_unified=context.kv_unified,
        kv_bytes=per_token * context.num_cells,
        batch_size=context.batch_size,
        device=", ".join(lib.device_names(gpus=uses_gpu(options))),
        can_reuse_prefix=model.can_drop_tail,
        max_drafted=max_drafted(options, model),
        max_scored=max_scored(model, context.batch_size),
        flat_decode=uses_gpu(options),
        overlaps=uses_gpu(options),
        copy_cells=context.num_cells_per_sequence if context.copies_streams else 0,
        store_bytes=memory_bytes,
        store_disk_bytes=disk_bytes,
        load_s=load_s,
        buffers=dict(lib.log.buffers),
        compute=_compute_path(context, options),
    )


def _compute_path(context: Context, options: LlamaOptions) -> ComputePath:
    places = (name.removesuffix(" model") for name in lib.log.buffers if name.endswith(" model"))
    return ComputePath(
        buffer_types=tuple(sorted({place.removesuffix("_Mapped") for place in places})),
        repack=options.repack != "off",
        flash_attn=context.flash_attn,
        cuda_graphs=graphs_allowed() if uses_gpu(options) else None,
        threads=context.threads,
        threads_batch=context.threads_batch,
        ubatch_size=context.ubatch_size,
        features=lib.features(),
    )
