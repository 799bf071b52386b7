"""A strict twin of llama.cpp's memory, small enough to be obviously right, for tests of the scheduler.

Cells have identities; a token's successor is a function of everything its sequence really holds, so wrong
bookkeeping shows as a wrong answer and not only as a wrong count. Every rule that llama.cpp enforces with
an abort is an AssertionError here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from rllm.engine.moving import MovePolicy
from rllm.engine.port import (
    Chunk,
    CloseSampler,
    CopyPrefix,
    Forget,
    LiftBan,
    Load,
    OpenSampler,
    Plan,
    Restore,
    Save,
    Status,
    StepResult,
    StoreReport,
    Truncate,
    Unload,
)
from rllm.engine.types import ModelInfo, TokenLogprob

END = 0
ALPHABET = 5
"""Tokens are 0 (the end) to 4."""
CELL_BYTES = 1000
"""What a token takes in the store; a state has nothing beside."""


def make_info(
    *,
    slots: int = 3,
    num_sequences: int = 5,
    ctx: int = 12,
    cells: int = 20,
    unified: bool = True,
    batch: int = 8,
    can_trim: bool = True,
    store_bytes: int = 0,
    store_disk_bytes: int = 0,
) -> ModelInfo:
    num_cells = cells if unified else slots * ctx
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
        kv_cells=num_cells,
        kv_unified=unified,
        kv_bytes=num_cells * CELL_BYTES,
        batch_size=batch,
        device="none",
        can_reuse_prefix=can_trim,
        max_drafted=batch if can_trim else 0,
        max_scored=3,
        store_bytes=store_bytes,
        store_disk_bytes=store_disk_bytes,
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
    if max_tokens == 0:
        return []
    while True:
        drawn = len(tokens) - len(prompt)
        token = successor(tokens, banned=ignore_eos or drawn < min_tokens)
        tokens.append(token)
        if token == END or drawn + 1 >= max_tokens or len(tokens) > ctx:
            return tokens[len(prompt) :]


def score(before: list[int] | tuple[int, ...], token: int) -> TokenLogprob:
    """The "log probability" of a token after everything before it."""
    value = 3
    for one in (*before, token):
        value = (value * 29 + one + 1) % 1013
    return TokenLogprob(token, float(-value), (), rank=1)


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


class FreeMoves(MovePolicy):
    """Moving costs nothing: whatever can be copied, stored or restored is."""

    def copy_pays(self, reused: int, moved_cells: int) -> bool:
        return True

    def restore_pays(self, gain: int, num_bytes: int, *, from_disk: bool, spared_cells: int) -> bool:
        return True

    def save_pays(self, gain: int, num_bytes: int, chance: float) -> bool:
        return True


@dataclass
class Faults:
    """What goes wrong in the next step."""

    no_cells: bool = False
    fail: frozenset[int] = frozenset()
    store: frozenset[str] = frozenset()
    """Of "save", "restore", "load" and "write": what fails."""


@dataclass
class _Stored:
    tokens: list[int]
    salt: str
    in_memory: bool
    on_disk: bool = False


@dataclass
class _Sampler:
    banned: bool
    never: bool = False


@dataclass
class Simulator:
    info: ModelInfo
    faults: Faults = field(default_factory=Faults)
    forces: int = 0
    """After every draw, at most so many tokens that follow are said to be forced."""

    def __post_init__(self) -> None:
        self.held: dict[int, list[tuple[int, int]]] = {seq: [] for seq in range(self.info.num_sequences)}
        """seq -> (cell, token) in order."""
        self.samplers: dict[int, _Sampler] = {}
        self.vocabulary = Vocabulary()
        self._fresh = itertools.count()
        self.stored: dict[int, _Stored] = {}
        self._later: list[Load | Save] = []
        """What is done beside the steps: heard of in the next one."""

    @property
    def used(self) -> int:
        return len({cell for held in self.held.values() for cell, _ in held})

    def execute(self, plan: Plan) -> StepResult:
        faults, self.faults = self.faults, Faults()
        report = self._finish_later(faults) if self.info.store_bytes else None
        lost: set[int] = set()
        for op in plan.ops:
            if isinstance(op, CopyPrefix) and op.src in lost:
                lost.add(op.dst)
            else:
                lost |= self._apply(op, faults, report)
        chunks = [chunk for chunk in plan.chunks if chunk.seq not in lost]
        assert plan.num_tokens <= self.info.batch_size
        assert plan.num_drafted <= self.info.max_drafted
        assert sum(len(chunk.scored) for chunk in plan.chunks) <= self.info.max_scored
        assert [c.seq for c in plan.chunks] == sorted({c.seq for c in plan.chunks})
        if faults.no_cells and plan.chunks:
            return StepResult(Status.NO_CELLS, lost_prefix=frozenset(lost), store=report)
        self._require_room(plan)
        result = StepResult(Status.OK, lost_prefix=frozenset(lost), store=report)
        tokens: dict[int, list[int]] = {}
        failed = faults.fail & {chunk.seq for chunk in chunks}
        for chunk in chunks:
            assert len(self.held[chunk.seq]) == chunk.start, "positions are not contiguous"
            assert len(chunk.tokens) > 0
            if chunk.seq in failed:
                self.held[chunk.seq] = []
                continue
            self.held[chunk.seq] += [(next(self._fresh), token) for token in chunk.tokens]
            if chunk.scored:
                result.scores[chunk.seq] = self._score(chunk)  # type: ignore[index]
            if chunk.sample:
                tokens[chunk.seq] = self._draw(chunk)
                result.forced[chunk.seq] = self._force(chunk.seq, tokens[chunk.seq][-1])
        result.tokens, result.failed = tokens, frozenset(failed)
        if failed:
            result.status = Status.FAILED
        return result

    def _score(self, chunk: Chunk) -> list[TokenLogprob]:
        assert not chunk.drafted
        content = [token for _, token in self.held[chunk.seq]]
        first = len(content) - chunk.num_outputs + 1
        assert first > chunk.start
        return [score(content[: first + i], token) for i, token in enumerate(chunk.scored)]

    def _draw(self, chunk: Chunk) -> list[int]:
        """One token, and one more for each draft that was right; the cells of the others are gone then."""
        banned, held = self.samplers[chunk.seq].banned, self.held[chunk.seq]
        sure = len(held) - chunk.drafted
        content = [token for _, token in held]
        drawn = [successor(content[:sure], banned)]
        while len(drawn) <= chunk.drafted and content[sure + len(drawn) - 1] == drawn[-1]:
            drawn.append(successor(content[: sure + len(drawn)], banned))
        del held[sure + len(drawn) - 1 :]
        return drawn

    def _force(self, seq: int, drawn: int) -> list[int]:
        """What would be drawn next, but for the end and what a ban changes."""
        content = [*(token for _, token in self.held[seq]), drawn]
        forced: list[int] = []
        while (
            len(forced) < self.forces
            and not self.samplers[seq].banned
            and END not in (*content[-1:], *forced)
        ):
            token = successor([*content, *forced], banned=False)
            if token == END:
                break
            forced.append(token)
        return forced

    def _require_room(self, plan: Plan) -> None:
        if self.info.kv_unified:
            assert self.used + plan.num_tokens <= self.info.kv_cells, (
                "the plan needs more cells than there are"
            )
        for chunk in plan.chunks:
            assert chunk.start + len(chunk.tokens) <= self.info.ctx_per_slot, "longer than the context"

    def _finish_later(self, faults: Faults) -> StoreReport:
        report = StoreReport()
        for op in self._later:
            entry = self.stored.get(op.key)
            if entry is None:  # forgotten meanwhile
                continue
            if isinstance(op, Save):
                entry.on_disk = "write" not in faults.store
                (report.written if entry.on_disk else report.unwritten).add(op.key)
            elif "load" in faults.store:
                self._lose(op.key, report)
            else:
                entry.in_memory = True
                report.loaded.add(op.key)
        self._later = []
        return report

    def _lose(self, key: int, report: StoreReport) -> None:
        self.stored.pop(key, None)
        report.lost.add(key)

    def _apply(self, op: object, faults: Faults, report: StoreReport | None) -> set[int]:
        if isinstance(op, Save | Restore | Load | Unload | Forget):
            assert report is not None, "there is no store"
            return self._apply_to_store(op, faults, report)
        match op:
            case OpenSampler(seq=seq, banned=banned, never=never):
                assert seq not in self.samplers, "the sampler of the last request was not closed"
                self.samplers[seq] = _Sampler(bool(banned or never), bool(never))
            case LiftBan(seq=seq):
                self.samplers[seq].banned = self.samplers[seq].never
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

    def _apply_to_store(
        self, op: Save | Restore | Load | Unload | Forget, faults: Faults, report: StoreReport
    ) -> set[int]:
        if op.key in report.lost:
            return {op.seq} if isinstance(op, Restore) else set()
        match op:
            case Save(seq=seq, key=key, tokens=tokens, salt=salt, to_disk=to_disk):
                assert key not in self.stored, "a key is used twice"
                assert [token for _, token in self.held[seq]] == list(tokens), "stored under a wrong name"
                if "save" in faults.store:
                    self._lose(key, report)
                    return set()
                self.stored[key] = _Stored(list(tokens), salt, in_memory=True)
                report.saved[key] = len(tokens) * CELL_BYTES
                self._later += [op] if to_disk else []
            case Restore(key=key, seq=seq, length=length):
                entry = self.stored[key]
                assert entry.in_memory, "restored before it was loaded"
                assert not self.held[seq], "the target of a restore is not empty"
                assert 0 < length <= len(entry.tokens), "more is restored than was stored"
                if self.info.kv_unified:
                    assert self.used + len(entry.tokens) <= self.info.kv_cells, "no cells to restore to"
                if "restore" in faults.store:
                    self._lose(key, report)
                    return {seq}
                self.held[seq] = [(next(self._fresh), token) for token in entry.tokens[:length]]
                report.num_restored += 1
                report.restored_tokens += length
            case Load(key=key):
                assert self.stored[key].on_disk
                assert not self.stored[key].in_memory
                self._later.append(op)
            case Unload(key=key):
                assert self.stored[key].on_disk, "it would be nowhere"
                self.stored[key].in_memory = False
            case Forget(key=key):
                del self.stored[key]
        in_memory = sum(len(entry.tokens) for entry in self.stored.values() if entry.in_memory)
        assert in_memory * CELL_BYTES <= self.info.store_bytes, "the store is larger than allowed"
        return set()
