"""Computes chunks on one context: all together, and apart where that fails.

What llama_decode's return codes mean here (llama-context.cpp, llama_context::decode):

    0            computed
    1            no cells; state restored           -> NO_CELLS, the scheduler makes room
    -1           an invalid chunk; state untouched  -> each chunk alone, only the invalid ones fail
    2, < -1      aborted or failed half-way; parts  -> every sequence back to where it began, each chunk
                 of the batch may be in the cache      alone once more; what fails again fails alone
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from rllm.backends.llama import lib
from rllm.backends.llama.batch import Batch
from rllm.backends.llama.context import Context
from rllm.backends.llama.draws import Draws
from rllm.backends.llama.padding import padding
from rllm.engine.port import BackendFailed, Chunk, Status, StepResult, nothing
from rllm.engine.times import RowTimes

OK = 0
_NO_CELLS, _INVALID = 1, -1


class Decoder:
    """Owned by the thread that owns the context. ``step`` is what an `execute` has brought so far."""

    def __init__(self, context: Context, draws: Draws) -> None:
        self.context = context
        self.draws = draws
        self.pads = False
        """Throw-away rows may be computed beside decodes: see `padding`."""
        self.learns_rows = False
        """More of them where measured steps say that it pays."""
        self.meanwhile: Callable[[], None] = nothing
        """To be done once, while the next decode is computed."""
        self._batch = Batch(context.batch_size, context.num_sequences)
        self._row_times = RowTimes()
        """Apart from the scheduler's, which knows nothing of rows that are thrown away."""

    def compute(self, chunks: Sequence[Chunk], step: StepResult) -> None:
        """Decode and draw; what fails is named in ``step``.

        Raises:
            BackendFailed: nothing can be computed any more.
        """
        pads = self._padding(chunks)
        if not pads or not self._compute_padded(chunks, pads, step):
            step.retries += bool(pads)
            code = self.decode(chunks, step)
            if code == OK:
                self.draws.draw(chunks, step)
            elif code == _NO_CELLS:
                step.status = Status.NO_CELLS
                return
            else:
                self._compute_alone(chunks, code, step)
        if step.failed:
            step.status = Status.FAILED

    def _padding(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        if not self.pads:
            return ()
        context = self.context
        cells, count = context.num_cells_per_sequence, context.num_sequences
        return padding(chunks, context.length, cells, count, self._row_times)

    def _compute_padded(self, chunks: Sequence[Chunk], pads: Sequence[Chunk], step: StepResult) -> bool:
        """Compute together with ``pads``, of which nothing remains. False: as if nothing had been done."""
        everything = sorted((*chunks, *pads), key=lambda chunk: chunk.seq)
        computed = self.decode(everything, step) == OK
        if computed:
            self.draws.draw(everything, step, skip=frozenset(pad.seq for pad in pads))
        for chunk in pads if computed else everything:
            self.context.truncate(chunk.seq, chunk.start)
        return computed

    def _compute_alone(self, chunks: Sequence[Chunk], code: int, step: StepResult) -> None:
        """After a batch that failed as a whole: find who can be computed."""
        num_fatal = 0
        for chunk in chunks:
            if self._rewind(chunk, code):
                step.retries += 1
                own_code = self.decode([chunk], step)
                if own_code == OK:
                    self.draws.draw([chunk], step)
                    continue
                num_fatal += own_code not in (_NO_CELLS, _INVALID)
            self.context.truncate(chunk.seq, 0)
            step.failed.add(chunk.seq)
        if num_fatal == len(chunks):
            raise BackendFailed(
                f"llama_decode returned {code}, and failed again for every sequence",
                out_of_memory=lib.log.memory_was_short,
            )

    def _rewind(self, chunk: Chunk, code: int) -> bool:
        """Bring the sequence back to where it was before its chunk. False: its cells are not usable."""
        if code == _INVALID:
            return True  # nothing was touched, and a wrong position must stay wrong
        length = self.context.length(chunk.seq)
        if length > chunk.start and not self.context.truncate(chunk.seq, chunk.start):
            return False
        return length >= chunk.start

    def decode(self, chunks: Sequence[Chunk], step: StepResult) -> int:
        """What llama_decode returned, once everything is computed."""
        self._batch.clear()
        for chunk in chunks:
            self._batch.add(chunk.seq, chunk.tokens, chunk.start, outputs=chunk.num_outputs)
        self.draws.expect(chunks)
        began = perf_counter()
        code = self.context.decode(self._batch)
        meanwhile, self.meanwhile = self.meanwhile, nothing
        meanwhile()
        self.context.synchronize()
        seconds = perf_counter() - began
        step.execute_s += seconds
        if self.learns_rows and code == OK and len(self._batch) == len(chunks) == _span(chunks):
            self._row_times.learn(len(chunks), seconds)
        return code


def _span(chunks: Sequence[Chunk]) -> int:
    """How many ids lie from the first to the last, both included; chunks are in the order of their ids."""
    return chunks[-1].seq - chunks[0].seq + 1
