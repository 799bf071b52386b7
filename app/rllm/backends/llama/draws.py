"""The samplers of all sequences, and drawing with them from what a decode has left."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import perf_counter

from rllm.backends.constraint.matcher import TokenMatcher
from rllm.backends.llama.context import Context
from rllm.backends.llama.drawing import Drawer, Top
from rllm.backends.llama.outputs import Outputs, Rows
from rllm.backends.llama.sampler import Sampler
from rllm.backends.llama.scoring import prompt_logprobs, token_logprob
from rllm.engine.port import Chunk, OpenSampler, StepResult
from rllm.errors import ConstraintBroken


class Draws:
    """Owned by the thread that owns the context."""

    def __init__(self, context: Context, outputs: Outputs) -> None:
        self.outputs = outputs
        self._context = context
        self._drawer = Drawer(context.vocab_size)
        self._samplers: dict[int, Sampler] = {}

    def open(self, op: OpenSampler, num_ctx: int, matcher: TokenMatcher | None = None) -> None:
        """``num_ctx``: tokens that the sequence may hold."""
        self.close(op.seq)
        self._samplers[op.seq] = Sampler(
            op,
            drawer=self._drawer,
            vocab_size=self._context.vocab_size,
            num_ctx=num_ctx,
            matcher=matcher,
        )

    def lift_ban(self, seq: int) -> None:
        self._samplers[seq].lift_ban()

    def close(self, seq: int) -> None:
        if sampler := self._samplers.pop(seq, None):
            sampler.close()

    def close_all(self) -> None:
        for seq in list(self._samplers):
            self.close(seq)

    def require(self, chunks: Iterable[Chunk]) -> None:
        """
        Raises:
            ValueError: there is no sampler for somebody who wants to draw.
        """
        for chunk in chunks:
            if chunk.num_outputs and chunk.seq not in self._samplers:
                raise ValueError(f"sequence {chunk.seq} has no sampler")

    def expect(self, chunks: Sequence[Chunk]) -> None:
        """They are decoded next."""
        self.outputs.expect(self._needs(chunks))

    def _needs(self, chunks: Sequence[Chunk]) -> Sequence[int]:
        """Of each row, how many of the highest logits will do for its draw; 0: all are needed. Empty: nothing
        can be drawn without all of them."""
        samplers, wanted = self._samplers, [chunk for chunk in chunks if chunk.num_outputs]
        if any(chunk.num_outputs > 1 or not chunk.sample for chunk in wanted):
            return ()
        return [samplers[chunk.seq].of_top if chunk.seq in samplers else 1 for chunk in wanted]

    def draw(self, chunks: Sequence[Chunk], step: StepResult, skip: frozenset[int] = frozenset()) -> None:
        """Draw and score for every chunk of the last decode that wants it; its rows are valid until the next.

        The rows of sequences in ``skip`` are nobody's.
        """
        began = perf_counter()
        if (tops := self.outputs.tops()) is None or not self._draw_of_tops(chunks, tops, step, skip):
            self._draw_of_rows(chunks, step, skip)
        step.sample_s += perf_counter() - began

    def _draw_of_tops(
        self, chunks: Sequence[Chunk], tops: Sequence[Top], step: StepResult, skip: frozenset[int]
    ) -> bool:
        """Draw where the highest logits of a row are enough. False: for some the rows are needed."""
        enough = True
        for chunk, top in zip((chunk for chunk in chunks if chunk.sample), tops, strict=True):
            if chunk.seq in skip:
                continue
            sampler = self._samplers[chunk.seq]
            try:
                token = sampler.draw_of_top(top)
                if token is None:
                    enough = False
                    continue
                step.tokens[chunk.seq] = [token]
                step.card_samples += 1
                self._note_forced(chunk.seq, sampler, step)
            except ConstraintBroken:
                self._fail(chunk.seq, step)
        return enough

    def _note_forced(self, seq: int, sampler: Sampler, step: StepResult) -> None:
        if forced := sampler.forced():
            step.forced[seq] = forced

    def _draw_of_rows(self, chunks: Sequence[Chunk], step: StepResult, skip: frozenset[int]) -> None:
        """Draw and score from the logits, for everybody who has not got a token yet."""
        if (count := sum(chunk.num_outputs for chunk in chunks)) == 0:
            return
        rows = self.outputs.rows(count)
        num_outputs = 0
        index = -1
        for chunk in chunks:
            index += len(chunk.tokens)
            own = rows[num_outputs : num_outputs + chunk.num_outputs]
            num_outputs += chunk.num_outputs
            if scored := len(chunk.scored):
                num_top = self._samplers[chunk.seq].params.num_prompt_logprobs
                step.scores[chunk.seq] = prompt_logprobs(own[:scored], chunk.scored, num_top)
            if chunk.sample and chunk.seq not in skip and chunk.seq not in step.tokens.keys() | step.failed:
                self._draw_or_fail(chunk, own[scored:], index - chunk.drafted, step)

    def _draw_or_fail(self, chunk: Chunk, rows: Rows, index: int, step: StepResult) -> None:
        """A constraint that cannot go on ends its own answer, and no other."""
        try:
            self._draw_chunk(chunk, rows, index, step)
        except ConstraintBroken:
            self._fail(chunk.seq, step)

    def _fail(self, seq: int, step: StepResult) -> None:
        for found in (step.tokens, step.forced, step.logprobs):
            found.pop(seq, None)
        self._context.truncate(seq, 0)
        step.failed.add(seq)

    def _draw_chunk(self, chunk: Chunk, rows: Rows, index: int, step: StepResult) -> None:
        """Draw after the last sure token, the batch's token ``index``, and after confirmed drafts."""
        seq, drafts = chunk.seq, chunk.drafts
        sampler = self._samplers[seq]
        num_logprobs = sampler.params.num_logprobs
        drawn = step.tokens[seq] = []
        for i, row in enumerate(rows):
            token = sampler.draw(row, self._context.pointer, index + i)
            drawn.append(token)
            step.slow_samples += sampler.is_slow
            if num_logprobs >= 0:
                step.logprobs.setdefault(seq, []).append(token_logprob(row, token, num_logprobs))
            if i < len(drafts) and drafts[i] != token:
                break
        self._note_forced(seq, sampler, step)
        if len(drawn) > len(drafts):
            return
        if not self._context.truncate(seq, chunk.start + chunk.num_sure + len(drawn) - 1):
            self._context.truncate(seq, 0)
            step.failed.add(seq)
