"""A strict twin of llama.cpp's memory, small enough to be obviously right, for tests of the scheduler.

Cells have identities; a token's successor is a function of everything its sequence really holds, so wrong
bookkeeping shows as a wrong answer and not only as a wrong count. Every rule that llama.cpp enforces with
an abort is an AssertionError here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from rllm.engine.port import (
    CloseSampler,
    CopyPrefix,
    LiftBan,
    OpenSampler,
    Plan,
    Status,
    StepResult,
    Truncate,
)
from rllm.engine.types import ModelInfo

END = 0
ALPHABET = 5
"""Tokens are 0 (the end) to 4."""


def make_info(
    *,
    slots: int = 3,
    num_sequences: int = 5,
    ctx: int = 12,
    cells: int = 20,
    unified: bool = True,
    batch: int = 8,
    can_trim: bool = True,
) -> ModelInfo:
    return ModelInfo(
        path="simulated",
        description="simulated",
        architecture="simulated",
        num_params=0,
        size_bytes=0,
        vocab_size=ALPHABET,
        num_ctx_train=ctx,
        slots=slots,
        num_sequences=num_sequences if unified else slots,
        ctx_per_slot=ctx,
        kv_cells=cells if unified else slots * ctx,
        kv_unified=unified,
        kv_bytes=0,
        batch_size=batch,
        device="none",
        can_reuse_prefix=can_trim,
    )


def successor(tokens: list[int], banned: bool) -> int:
    """The "model": what follows depends on every token."""
    value = 7
    for token in tokens:
        value = (value * 31 + token + 1) % 1009
    token = value % (ALPHABET + 1)
    if token >= ALPHABET:
        token = END
    return 1 + value % (ALPHABET - 1) if banned and token == END else token


def answer(
    prompt: tuple[int, ...], max_tokens: int, ctx: int, min_tokens: int, ignore_eos: bool
) -> list[int]:
    """What a request gets when it is alone."""
    tokens = list(prompt)
    while True:
        drawn = len(tokens) - len(prompt)
        token = successor(tokens, banned=ignore_eos or drawn < min_tokens)
        tokens.append(token)
        if token == END or drawn + 1 >= max_tokens or len(tokens) > ctx:
            return tokens[len(prompt) :]


class Vocabulary:
    size = ALPHABET
    end_tokens = frozenset({END})
    chat_template = None
    bos_text = ""
    eos_text = ""

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return [ord(char) - ord("a") + 1 for char in text]

    def piece(self, token: int) -> bytes:
        return b"" if token == END else bytes([ord("a") + token - 1])

    def detokenize(self, tokens: object, *, special: bool) -> str:
        raise NotImplementedError


@dataclass
class Faults:
    """What goes wrong in the next step."""

    no_cells: bool = False
    fail: frozenset[int] = frozenset()


@dataclass
class _Sampler:
    banned: bool


@dataclass
class Simulator:
    info: ModelInfo
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        self.held: dict[int, list[tuple[int, int]]] = {seq: [] for seq in range(self.info.num_sequences)}
        """seq -> (cell, token) in order."""
        self.samplers: dict[int, _Sampler] = {}
        self.vocabulary = Vocabulary()
        self._fresh = itertools.count()

    @property
    def used(self) -> int:
        return len({cell for held in self.held.values() for cell, _ in held})

    def execute(self, plan: Plan) -> StepResult:
        faults, self.faults = self.faults, Faults()
        lost = {seq for op in plan.ops for seq in self._apply(op)}
        chunks = [chunk for chunk in plan.chunks if chunk.seq not in lost]
        assert plan.num_tokens <= self.info.batch_size
        assert [c.seq for c in plan.chunks] == sorted({c.seq for c in plan.chunks})
        if faults.no_cells and plan.chunks:
            return StepResult(Status.NO_CELLS)
        self._require_room(plan)
        result = StepResult(Status.OK, lost_prefix=frozenset(lost))
        tokens: dict[int, int] = {}
        failed = faults.fail & {chunk.seq for chunk in chunks}
        for chunk in chunks:
            assert len(self.held[chunk.seq]) == chunk.start, "positions are not contiguous"
            assert len(chunk.tokens) > 0
            if chunk.seq in failed:
                self.held[chunk.seq] = []
                continue
            self.held[chunk.seq] += [(next(self._fresh), token) for token in chunk.tokens]
            if chunk.sample:
                content = [token for _, token in self.held[chunk.seq]]
                tokens[chunk.seq] = successor(content, self.samplers[chunk.seq].banned)
        result.tokens, result.failed = tokens, frozenset(failed)
        if failed:
            result.status = Status.FAILED
        return result

    def _require_room(self, plan: Plan) -> None:
        if self.info.kv_unified:
            assert self.used + plan.num_tokens <= self.info.kv_cells, (
                "the plan needs more cells than there are"
            )
        for chunk in plan.chunks:
            assert chunk.start + len(chunk.tokens) <= self.info.ctx_per_slot, "longer than the context"

    def _apply(self, op: object) -> set[int]:
        match op:
            case OpenSampler(seq=seq, banned=banned):
                assert seq not in self.samplers, "the sampler of the last request was not closed"
                self.samplers[seq] = _Sampler(bool(banned))
            case LiftBan(seq=seq):
                self.samplers[seq].banned = False
            case CloseSampler(seq=seq):
                self.samplers.pop(seq, None)
            case Truncate(seq=seq, length=length):
                if length and length < len(self.held[seq]) and not self.info.can_reuse_prefix:
                    self.held[seq] = []
                    return {seq}
                del self.held[seq][length:]
            case CopyPrefix(src=src, dst=dst, length=length):
                assert not self.held[dst], "the target of a copy is not empty"
                assert length <= len(self.held[src]), "more is copied than there is"
                if length < len(self.held[src]) and not self.info.can_reuse_prefix:
                    return {dst}
                held = self.held[src][:length]
                self.held[dst] = (
                    list(held) if self.info.kv_unified else [(next(self._fresh), token) for _, token in held]
                )
            case _:
                raise AssertionError(op)
        return set()
