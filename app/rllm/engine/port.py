"""The two ports of the engine: what it needs from a backend, and from a vocabulary.

A plan is frozen: it can be logged, compared and replayed. The scheduler writes plans and hears
results; a backend executes plans and knows nothing of requests, text or fairness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Protocol

import msgspec

from rllm.engine.constraint import Constraint, Prepares
from rllm.engine.types import ModelInfo, SamplingParams, TokenLogprob


@dataclass(frozen=True, slots=True)
class OpenSampler:
    """Give ``seq`` a fresh sampler. ``history`` is what penalties may look back on (the prompt).

    What is drawn matches ``constraint``. ``banned`` tokens are not drawn until a LiftBan for the same
    sequence, those in ``never`` not even then.
    """

    seq: int
    params: SamplingParams
    history: Sequence[int]
    banned: tuple[int, ...] = ()
    never: tuple[int, ...] = ()
    constraint: Constraint | None = None


@dataclass(frozen=True, slots=True)
class LiftBan:
    """From the next draw on, ``seq`` may draw its banned tokens (``min_tokens`` is reached)."""

    seq: int


@dataclass(frozen=True, slots=True)
class CloseSampler:
    seq: int


@dataclass(frozen=True, slots=True)
class Truncate:
    """Forget the cells of ``seq`` from position ``length`` on. Truncate to 0 always succeeds."""

    seq: int
    length: int


@dataclass(frozen=True, slots=True)
class CopyPrefix:
    """Make ``dst`` hold the first ``length`` tokens of ``src``. ``dst`` is empty before.

    Metadata only in a unified cache; a copy of the whole stream in a split one.
    """

    src: int
    dst: int
    length: int


@dataclass(frozen=True, slots=True)
class Save:
    """Store what ``seq`` holds, which is ``tokens``, under ``key``; with ``to_disk`` also in a file.

    ``StepResult.store`` says what became of it. The file is written later, beside the steps.
    """

    seq: int
    key: int
    tokens: Sequence[int]
    salt: str
    to_disk: bool


@dataclass(frozen=True, slots=True)
class Restore:
    """Make ``seq``, which is empty, hold the first ``length`` tokens of what is in memory under ``key``.

    Where that fails ``seq`` is in ``StepResult.lost_prefix`` and ``key`` is lost. Meanwhile as many cells are
    taken as were stored.
    """

    key: int
    seq: int
    length: int


@dataclass(frozen=True, slots=True)
class Load:
    """Bring ``key`` from disk to memory, beside the steps; a later ``StepResult.store`` names it."""

    key: int


@dataclass(frozen=True, slots=True)
class Unload:
    """Drop ``key`` from memory; it stays on disk."""

    key: int


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop ``key`` from memory and from disk."""

    key: int


StoreOp = Save | Restore | Load | Unload | Forget
"""A key that an operation loses does not exist for those after it: they do nothing, a Restore fails."""
Op = OpenSampler | LiftBan | CloseSampler | Truncate | CopyPrefix | StoreOp


def nothing() -> None:
    """What is to be done meanwhile where there is nothing."""


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one sequence to compute in this step, at positions ``start`` and following.

    With ``sample`` the next token is drawn after the last of them. The last ``drafted`` tokens are drafts of
    what will be drawn: a token is drawn after each of them too, as long as the one before was drawn as
    drafted. The cells of the other drafts are dropped again. ``forced`` tokens of a decode were not drawn but
    had to follow (`StepResult.forced`): they are sure, and need no check.

    ``scored`` is what follows each of the last tokens (with ``sample``: of those before the very last), where
    the log probability of that is wanted. Drafts and scores never meet in a chunk.
    """

    seq: int
    tokens: Sequence[int]
    start: int
    sample: bool
    drafted: int = 0
    forced: int = 0
    scored: Sequence[int] = ()

    @property
    def num_sure(self) -> int:
        """Tokens before the drafts."""
        return len(self.tokens) - self.drafted

    @property
    def drafts(self) -> Sequence[int]:
        return self.tokens[self.num_sure :]

    @property
    def num_outputs(self) -> int:
        """After how many tokens, the last ones, logits are wanted."""
        return len(self.scored) + (1 + self.drafted if self.sample else 0)

    @property
    def is_decode(self) -> bool:
        return self.sample and self.num_sure == 1 + self.forced


@dataclass(frozen=True)
class Plan:
    """One step. ``ops`` are applied in order before ``chunks`` are computed in one batch.

    A sequence occurs in at most one chunk; chunks are ordered by sequence; together they
    hold at most ``ModelInfo.batch_size`` tokens.
    """

    ops: tuple[Op, ...] = ()
    chunks: tuple[Chunk, ...] = ()

    @cached_property
    def num_tokens(self) -> int:
        return sum(len(chunk.tokens) for chunk in self.chunks)

    @cached_property
    def num_decodes(self) -> int:
        """Chunks of one token, drafts and forced ones aside, after which another is drawn."""
        return sum(1 for chunk in self.chunks if chunk.is_decode)

    @cached_property
    def num_drafted(self) -> int:
        return sum(chunk.drafted for chunk in self.chunks)

    @cached_property
    def num_outputs(self) -> int:
        return sum(chunk.num_outputs for chunk in self.chunks)

    @cached_property
    def num_prefill(self) -> int:
        """Tokens of prompts: neither decodes, nor drafts, nor forced."""
        num_forced = sum(chunk.forced for chunk in self.chunks)
        return self.num_tokens - self.num_decodes - self.num_drafted - num_forced


@dataclass(slots=True)
class Effort:
    """How much was moved, and how long that took."""

    amount: int = 0
    seconds: float = 0.0

    def add(self, amount: int, seconds: float) -> None:
        self.amount += amount
        self.seconds += seconds


@dataclass(slots=True)
class StoreReport:
    """What became of the operations on the store: of this plan, and of earlier ones that took longer."""

    saved: dict[int, int] = field(default_factory=dict)
    """key -> bytes."""
    loaded: set[int] = field(default_factory=set)
    written: set[int] = field(default_factory=set)
    """Keys whose file is complete."""
    unwritten: set[int] = field(default_factory=set)
    """Keys that are in memory but could not be written."""
    lost: set[int] = field(default_factory=set)
    """Keys that are nowhere any more: not saved, not readable, not restorable."""
    num_restored: int = 0
    restored_tokens: int = 0
    save: Effort = field(default_factory=Effort)
    """In bytes, as are the next two."""
    restore: Effort = field(default_factory=Effort)
    load: Effort = field(default_factory=Effort)


@dataclass(frozen=True, slots=True)
class StoredPrefix:
    """A prefix that an earlier process left on disk."""

    key: int
    tokens: Sequence[int]
    salt: str
    num_bytes: int


class Status(Enum):
    """What became of a plan's chunks (its ops are always applied)."""

    OK = "ok"
    NO_CELLS = "no_cells"
    """The cache has no room. Nothing was computed; the cells are as they were after the ops."""
    FAILED = "failed"
    """Some chunks could not be computed: ``StepResult.failed`` names their sequences, whose cells are
    now empty. The others have their results."""


@dataclass(slots=True)
class StepResult:
    status: Status
    tokens: dict[int, list[int]] = field(default_factory=dict)
    """seq -> drawn tokens, for every chunk with ``sample`` that was computed: one, and one more for every
    draft that was right."""
    logprobs: dict[int, list[TokenLogprob]] = field(default_factory=dict)
    """seq -> log probabilities, where the sampler was opened with ``num_logprobs >= 0``."""
    forced: dict[int, list[int]] = field(default_factory=dict)
    """seq -> tokens that must follow those drawn, where a constraint leaves no choice: they join the
    answer at once, and go into the next step together."""
    scores: dict[int, list[TokenLogprob]] = field(default_factory=dict)
    """seq -> log probabilities of what its chunk's ``scored`` names."""
    failed: set[int] = field(default_factory=set)
    lost_prefix: frozenset[int] = frozenset()
    """Sequences whose Truncate, CopyPrefix or Restore the memory refused: they are empty, nothing was
    computed for their chunk. The scheduler prefills them from the start."""
    copied: Effort = field(default_factory=Effort)
    """Cells that were moved between streams."""
    store: StoreReport | None = None
    """None where there is no store."""
    execute_s: float = 0.0
    sample_s: float = 0.0
    slow_samples: int = 0
    card_samples: int = 0
    """Tokens drawn from the highest logits of their row, which a card found, without the others."""
    retries: int = 0
    graphs_reused: int = 0


class BackendFailed(Exception):
    """The backend can compute nothing any more; its process must be replaced.

    ``out_of_memory``: with fewer slots another one may live longer.
    """

    def __init__(self, message: str, *, out_of_memory: bool = False) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory


class Backend(Prepares, Protocol):
    """One loaded model with its context. Owned and called by exactly one thread."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    def stored(self) -> Sequence[StoredPrefix]:
        """What is on disk at the start, least recently used first."""
        ...

    def execute(self, plan: Plan, meanwhile: Callable[[], None] = nothing) -> StepResult:
        """Apply the ops, compute the chunks, draw the tokens.

        ``meanwhile`` is called once: while a device computes (`ModelInfo.overlaps`), else before.

        Raises:
            BackendFailed: the context is beyond repair.
        """
        ...

    def close(self) -> None: ...


class Vocabulary(Protocol):
    """Tokens and text of one model. Thread-safe, needs no context."""

    @property
    def size(self) -> int: ...

    @property
    def end_tokens(self) -> frozenset[int]:
        """Every token that ends a generation (there are often several)."""
        ...

    @property
    def chat_template(self) -> str | None: ...

    @property
    def bos_text(self) -> str: ...

    @property
    def eos_text(self) -> str: ...

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """``add_special`` adds BOS/EOS where the model wants them; ``parse_special`` reads "<|im_end|>"
        and the like as control tokens, and must be off for text that a user wrote."""
        ...

    def piece(self, token: int) -> bytes:
        """The token's bytes, which may be part of a character. Empty for control tokens."""
        ...

    def detokenize(self, tokens: Sequence[int], *, special: bool) -> str: ...
