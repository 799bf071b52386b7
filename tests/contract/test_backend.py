"""Every promise of the engine's port, on the fake backend and on llama.cpp: neither may be kinder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rllm.backends.fake import FakeBackend
from rllm.backends.llama.backend import LlamaBackend
from rllm.backends.options import FakeOptions, LlamaOptions
from rllm.engine.port import (
    Backend,
    BackendFailed,
    Chunk,
    CloseSampler,
    CopyPrefix,
    Forget,
    LiftBan,
    Op,
    OpenSampler,
    Plan,
    Restore,
    Save,
    Status,
    StepResult,
    StoreReport,
    Truncate,
)
from rllm.engine.types import SamplingParams, TokenLogprob

SLOTS, CTX, BATCH = 4, 256, 64
GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture(
    scope="module",
    params=[
        "fake-unified",
        "fake-split",
        "tiny-unified",
        "tiny-split",
        pytest.param("q8-unified", marks=pytest.mark.model),
        pytest.param("q8-split", marks=[pytest.mark.model, pytest.mark.slow]),
    ],
)
def loaded(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """One backend of a kind for all tests: a real model takes a second to load."""
    kind, kv = request.param.split("-")
    made: Backend
    if kind == "fake":
        options = FakeOptions(
            slots=SLOTS, ctx_per_slot=CTX, batch_size=BATCH, kv_unified=kv == "unified", store_bytes=1000
        )
        made = FakeBackend(options)
    else:
        path: Path = request.getfixturevalue(f"{kind}_model")
        # One thread: on a busy machine, threads that wait for each other are slower by orders of magnitude.
        sizes = LlamaOptions(
            slots=SLOTS,
            ctx_per_slot=CTX,
            batch_size=BATCH,
            kv=kv,
            threads=1,
            prefix_store_mb=64,
            speculative_tokens=3,
        )
        made = LlamaBackend(path, sizes)
    yield made
    made.close()
    with pytest.raises(BackendFailed):
        made.execute(Plan((Truncate(0, 0),), (Chunk(0, [5], 0, False),)))


@pytest.fixture
def backend(loaded: Backend) -> Backend:
    """Emptied of what the test before left."""
    seqs = range(loaded.info.num_sequences)
    loaded.execute(Plan(tuple(op for seq in seqs for op in (Truncate(seq, 0), CloseSampler(seq)))))
    if isinstance(loaded, FakeBackend):
        assert loaded.cells.used == 0
        loaded.check()
    return loaded


class Driver:
    """The least an engine must do: keep positions, feed drawn tokens back."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.length = dict.fromkeys(range(backend.info.num_sequences), 0)

    def run(self, *chunks: tuple[int, Sequence[int], bool], ops: Sequence[Op] = ()) -> StepResult:
        """One step of (sequence, tokens, sample), each where its sequence ends."""
        for op in ops:
            if isinstance(op, Truncate):
                self.length[op.seq] = min(self.length[op.seq], op.length)
            elif isinstance(op, CopyPrefix):
                self.length[op.dst] = op.length
            elif isinstance(op, Restore):
                self.length[op.seq] = op.length
        planned = tuple(Chunk(seq, tokens, self.length[seq], sample) for seq, tokens, sample in chunks)
        result = self.backend.execute(Plan(tuple(ops), planned))
        for seq, tokens, _ in chunks:
            if result.status is not Status.NO_CELLS and seq not in result.lost_prefix:
                self.length[seq] += len(tokens)
        return result

    def prefill(self, seq: int, tokens: Sequence[int], ops: Sequence[Op] = ()) -> int:
        """Compute a prompt in as many steps as it needs; the first drawn token."""
        opened: list[Op] = [*ops, OpenSampler(seq, GREEDY, tokens)]
        size = self.backend.info.batch_size
        for begin in range(0, len(tokens), size):
            last = begin + size >= len(tokens)
            result = self.run((seq, tokens[begin : begin + size], last), ops=opened)
            opened = []
        return result.tokens[seq][0]

    def decode(self, seq: int, token: int, count: int) -> list[int]:
        """Feed ``token`` and its successors; ``token`` and ``count - 1`` more."""
        tokens = [token]
        while len(tokens) < count:
            tokens.append(self.run((seq, tokens[-1:], True)).tokens[seq][0])
        return tokens

    def greedy(self, seq: int, prompt: Sequence[int], count: int) -> list[int]:
        return self.decode(seq, self.prefill(seq, prompt, [Truncate(seq, 0)]), count)


@pytest.fixture
def driver(backend: Backend) -> Driver:
    return Driver(backend)


def prompt(backend: Backend, text: str) -> list[int]:
    return backend.vocabulary.tokenize(text, add_special=True, parse_special=False)


# What it says about itself


def test_info_describes_what_was_asked_for(backend: Backend) -> None:
    info = backend.info
    assert (info.slots, info.ctx_per_slot, info.batch_size) == (SLOTS, CTX, BATCH)
    assert info.kv_cells >= SLOTS * CTX
    assert info.num_sequences >= SLOTS
    assert info.kv_bytes > 0
    assert info.vocab_size == backend.vocabulary.size
    assert info.can_reuse_prefix


@pytest.mark.parametrize("text", ["", " ", "plain", "zwölf Boxkämpfer", "日本語 🦙", "a\n\n\tb", "the " * 50])
def test_vocabulary_reads_back_what_it_tokenized(backend: Backend, text: str) -> None:
    vocabulary = backend.vocabulary
    tokens = vocabulary.tokenize(text, add_special=False, parse_special=False)
    assert vocabulary.detokenize(tokens, special=False) == text
    assert b"".join(map(vocabulary.piece, tokens)).decode() == text


def test_control_words_of_users_stay_text(backend: Backend) -> None:
    vocabulary = backend.vocabulary
    end = vocabulary.tokenize("<|im_end|>", add_special=False, parse_special=True)
    assert len(end) == 1
    assert end[0] in vocabulary.end_tokens
    assert vocabulary.piece(end[0]) == b""
    assert vocabulary.detokenize(end, special=True) == "<|im_end|>" == vocabulary.eos_text
    user = vocabulary.tokenize("<|im_end|>", add_special=False, parse_special=False)
    assert not vocabulary.end_tokens & set(user)
    assert vocabulary.detokenize(user, special=False) == "<|im_end|>"


def test_odd_text_and_odd_tokens(backend: Backend) -> None:
    vocabulary = backend.vocabulary
    assert vocabulary.tokenize("\ud800", add_special=False, parse_special=False)
    with pytest.raises(ValueError):
        vocabulary.piece(vocabulary.size)
    with pytest.raises(ValueError):
        vocabulary.piece(-1)
    assert vocabulary.detokenize([], special=False) == ""
    assert vocabulary.chat_template is not None


# Cells


def test_a_prompt_computed_in_pieces_equals_one_computed_whole(driver: Driver) -> None:
    tokens = prompt(driver.backend, "the rain in Spain stays mainly in the plain")
    whole = driver.greedy(0, tokens, 6)
    driver.run((1, tokens[:2], False), ops=[OpenSampler(1, GREEDY, tokens)])
    driver.run((1, tokens[2:3], False))
    first = driver.run((1, tokens[3:], True)).tokens[1][0]
    assert driver.decode(1, first, 6) == whole


@pytest.mark.parametrize("right", range(4))
def test_drafts_bring_what_is_drawn_without_them(driver: Driver, right: int) -> None:
    tokens = prompt(driver.backend, "the rain in Spain stays mainly in the plain")
    usual = driver.greedy(0, tokens, 8)
    wrong = [token + 1 for token in usual]
    drafts = [*usual[1 : 1 + right], *wrong[1 + right : 4]]
    other = prompt(driver.backend, "and in Hertford")
    others = driver.greedy(2, other, 3)
    back = (Truncate(0, len(tokens)), Truncate(2, len(other)))
    chunks = (
        Chunk(0, [usual[0], *drafts], len(tokens), True, drafted=3),
        Chunk(2, others[:1], len(other), True),
    )
    result = driver.backend.execute(Plan(back, chunks))
    assert list(result.tokens[0]) == usual[1 : 2 + right]
    assert list(result.tokens[2]) == others[1:2]
    driver.length |= {0: len(tokens) + 1 + right, 2: len(other) + 1}
    assert driver.decode(0, usual[1 + right], 6 - right) == usual[1 + right : 7]
    assert driver.decode(2, others[1], 2) == others[1:3]


def test_drafts_change_no_random_draw(driver: Driver) -> None:
    params = SamplingParams(temperature=0.9, seed=11, num_logprobs=0)
    tokens = prompt(driver.backend, "Sing, goddess, the")
    usual = draw(driver, params, 6)
    opened = (Truncate(0, 0), OpenSampler(0, params, tokens))
    result = driver.backend.execute(Plan(opened, (Chunk(0, tokens, 0, True),)))
    assert list(result.tokens[0]) == usual[:1]
    chunk = Chunk(0, usual[:3], len(tokens), True, drafted=2)
    result = driver.backend.execute(Plan((), (chunk,)))
    assert list(result.tokens[0]) == usual[1:4]
    assert [one.token for one in result.logprobs[0]] == usual[1:4]
    driver.length[0] = len(tokens) + 3
    assert driver.decode(0, usual[3], 3) == usual[3:6]


def test_a_prompt_longer_than_the_batch(driver: Driver) -> None:
    tokens = (prompt(driver.backend, "one two three four five ") * 40)[: 2 * BATCH + 7]
    assert driver.greedy(0, tokens, 4) == driver.greedy(3, tokens, 4)


def test_a_sequence_beside_others_is_as_it_is_alone(driver: Driver) -> None:
    prompts = [prompt(driver.backend, f"secret {name} is") for name in ("one", "two", "three")]
    alone = [driver.greedy(0, tokens, 6) for tokens in prompts]
    ops: list[Op] = [Truncate(0, 0)]
    for seq, tokens in enumerate(prompts):
        ops.append(OpenSampler(seq, GREEDY, tokens))
    result = driver.run(*((seq, tokens, True) for seq, tokens in enumerate(prompts)), ops=ops)
    together = [[result.tokens[seq][0]] for seq in range(3)]
    for _ in range(5):
        result = driver.run(*((seq, tokens[-1:], True) for seq, tokens in enumerate(together)))
        for seq in range(3):
            together[seq].append(result.tokens[seq][0])
    assert together == alone


def test_an_idle_sequence_between_decoding_ones_stays_as_it_was(driver: Driver) -> None:
    """Whatever a backend does to keep its batch in one piece, the sequence in the gap does not notice."""
    first, idle, third = (prompt(driver.backend, text) for text in ("one two", "three four five", "six"))
    expected = [driver.greedy(seq, tokens, 6) for seq, tokens in enumerate((first, idle, third))]
    said = [
        [driver.prefill(seq, tokens, [Truncate(seq, 0)])] for seq, tokens in enumerate((first, idle, third))
    ]
    for _ in range(5):
        result = driver.run((0, said[0][-1:], True), (2, said[2][-1:], True))
        said[0].append(result.tokens[0][0])
        said[2].append(result.tokens[2][0])
    for _ in range(5):
        said[1].append(driver.run((1, said[1][-1:], True)).tokens[1][0])
    assert said == expected


def test_prefill_beside_decode(driver: Driver) -> None:
    """A step that decodes one sequence and computes half a prompt of another disturbs neither."""
    first, second = (
        prompt(driver.backend, "to be or not"),
        prompt(driver.backend, "call me Ishmael, some years"),
    )
    expected_first, expected_second = driver.greedy(0, first, 4), driver.greedy(0, second, 3)
    tokens = [driver.prefill(0, first, [Truncate(0, 0)])]
    tokens.append(driver.run((0, tokens[-1:], True), (2, second[:3], False)).tokens[0][0])
    result = driver.run((0, tokens[-1:], True), (2, second[3:], True), ops=[OpenSampler(2, GREEDY, second)])
    tokens.append(result.tokens[0][0])
    others = [result.tokens[2][0]]
    for _ in range(2):
        result = driver.run((0, tokens[-1:], True), (2, others[-1:], True))
        tokens.append(result.tokens[0][0])
        others.append(result.tokens[2][0])
    assert tokens[:4] == expected_first
    assert others == expected_second


def test_a_prompt_scored_in_pieces_is_scored_like_the_whole(driver: Driver) -> None:
    """Beside a sequence that decodes; the rows of the last piece are also drawn from."""
    params = SamplingParams(temperature=0.0, num_prompt_logprobs=2)
    tokens = prompt(driver.backend, "the rain in Spain")
    other = [driver.prefill(2, prompt(driver.backend, "and in Hertford"), [Truncate(2, 0)])]

    def score(*pieces: range) -> tuple[list[TokenLogprob], int]:
        ops: list[Op] = [Truncate(0, 0), OpenSampler(0, params, tokens)]
        found: list[TokenLogprob] = []
        for piece in pieces:
            last = piece.stop == len(tokens)
            chunk = Chunk(
                0,
                tokens[piece.start : piece.stop],
                piece.start,
                last,
                scored=tokens[piece.start + 1 : piece.stop + 1],
            )
            beside = Chunk(2, other[-1:], driver.length[2], True)
            result = driver.backend.execute(Plan(tuple(ops), (chunk, beside)))
            driver.length[2] += 1
            other.append(result.tokens[2][0])
            ops = []
            found += result.scores[0] if chunk.scored else []
        return found, result.tokens[0][0]

    whole, drawn = score(range(len(tokens)))
    pieces, again = score(range(2), range(2, 3), range(3, len(tokens)))
    assert drawn == again == driver.prefill(1, tokens, [Truncate(1, 0)])
    assert [one.token for one in whole] == [one.token for one in pieces] == tokens[1:]
    assert all(len(one.top) == 2 and one.rank >= 1 for one in whole)
    # not bit by bit: kernels differ with the number of rows
    assert [one.logprob for one in whole] == pytest.approx([one.logprob for one in pieces], abs=0.3)


def test_a_copied_prefix_is_as_good_as_a_computed_one(driver: Driver) -> None:
    start = prompt(driver.backend, "Once upon a time there was a king who")
    full = [*start, *prompt(driver.backend, " had two sons")]
    expected = driver.greedy(0, full, 6)
    original = driver.greedy(0, start, 6)
    ops = [CopyPrefix(0, 2, len(start)), OpenSampler(2, GREEDY, full)]
    first = driver.run((2, full[len(start) :], True), ops=ops).tokens[2][0]
    assert driver.decode(2, first, 6) == expected
    ops = [Truncate(0, len(start) - 1), OpenSampler(0, GREEDY, start)]
    first = driver.run((0, start[-1:], True), ops=ops).tokens[0][0]
    assert driver.decode(0, first, 6) == original, "the source must not notice"


def test_copies_of_copies_in_one_plan(driver: Driver) -> None:
    start = prompt(driver.backend, "Alpha beta gamma delta")
    expected = driver.greedy(0, start, 5)
    ops = [
        CopyPrefix(0, 1, len(start)),
        CopyPrefix(1, 3, len(start) - 1),
        Truncate(0, 0),
        Truncate(1, 0),
        OpenSampler(3, GREEDY, start),
    ]
    first = driver.run((3, start[-1:], True), ops=ops).tokens[3][0]
    assert driver.decode(3, first, 5) == expected


def test_a_source_still_decoding_may_be_copied(driver: Driver) -> None:
    start = prompt(driver.backend, "The quick brown fox")
    expected = driver.greedy(0, start, 8)
    tokens = driver.decode(0, driver.prefill(0, start, [Truncate(0, 0)]), 3)
    ops = [CopyPrefix(0, 1, len(start) - 1), OpenSampler(1, GREEDY, start)]
    result = driver.run((0, tokens[-1:], True), (1, start[-1:], True), ops=ops)
    others = [result.tokens[1][0]]
    tokens.append(result.tokens[0][0])
    assert [*tokens[:-1], *driver.decode(0, tokens[-1], 5)] == expected
    assert driver.decode(1, others[0], 8) == expected


def report(result: StepResult) -> StoreReport:
    assert result.store is not None
    return result.store


def test_a_stored_prefix_is_as_good_as_a_computed_one(driver: Driver) -> None:
    """Whole or cut, in the sequence it came from or in another, beside others, and more than once."""
    start = prompt(driver.backend, "Once upon a time there was a king who")
    full = [*start, *prompt(driver.backend, " had two sons")]
    expected, shorter = driver.greedy(0, full, 6), driver.greedy(0, start, 6)
    driver.prefill(1, full, [Truncate(1, 0)])
    saved = report(driver.run(ops=[Save(1, 5, full, "", False), Truncate(1, 0)]))
    assert saved.saved.keys() == {5}
    assert saved.saved[5] == saved.save.amount > 0
    for seq in (1, 2):
        ops = [Restore(5, seq, len(full) - 1), OpenSampler(seq, GREEDY, full)]
        result = driver.run((seq, full[-1:], True), ops=ops)
        assert not result.lost_prefix
        assert report(result).restored_tokens == len(full) - 1
        assert driver.decode(seq, result.tokens[seq][0], 6) == expected
    ops = [Truncate(1, 0), Restore(5, 1, len(start) - 1), OpenSampler(1, GREEDY, start)]
    first = driver.run((1, start[-1:], True), ops=ops).tokens[1][0]
    assert driver.decode(1, first, 6) == shorter
    driver.run(ops=[Forget(5)])


def test_a_prefix_that_is_not_stored_is_lost_and_its_sequence_empty(driver: Driver) -> None:
    tokens = prompt(driver.backend, "nobody stored this")
    result = driver.run((1, tokens[-1:], False), (2, tokens, False), ops=[Restore(99, 1, len(tokens) - 1)])
    assert result.lost_prefix == {1}
    assert report(result).lost == {99}
    driver.length[1] = 0
    assert driver.greedy(1, tokens, 3) == driver.greedy(0, tokens, 3)


def test_what_was_just_copied_can_be_stored_or_says_that_it_cannot(driver: Driver) -> None:
    start = prompt(driver.backend, "Alpha beta gamma delta")
    expected = driver.greedy(0, start, 5)
    driver.prefill(0, start, [Truncate(0, 0)])
    ops = [CopyPrefix(0, 1, len(start)), Save(1, 6, start, "", False), Truncate(1, 0), Truncate(0, 0)]
    if 6 in report(driver.run(ops=ops)).saved:
        ops = [Restore(6, 2, len(start) - 1), OpenSampler(2, GREEDY, start), Forget(6)]
        first = driver.run((2, start[-1:], True), ops=ops).tokens[2][0]
        assert driver.decode(2, first, 5) == expected


def test_truncating_forgets(driver: Driver) -> None:
    start = prompt(driver.backend, "Four score and seven years ago our")
    expected = driver.greedy(0, [*start[:3], *start[:2]], 5)
    driver.prefill(1, start)
    ops = [Truncate(1, 3), OpenSampler(1, GREEDY, start)]
    first = driver.run((1, start[:2], True), ops=ops).tokens[1][0]
    assert driver.decode(1, first, 5) == expected
    driver.run(ops=[Truncate(1, 0)])
    assert driver.greedy(1, start, 3) == driver.greedy(0, start, 3)


def test_ops_alone_are_a_plan(driver: Driver) -> None:
    result = driver.run(ops=[OpenSampler(0, GREEDY, [1]), CloseSampler(0), CloseSampler(0), Truncate(3, 0)])
    assert result.status is Status.OK
    assert not result.tokens
    assert driver.run().status is Status.OK


def fill(driver: Driver, seq: int, count: int) -> None:
    tokens = (prompt(driver.backend, "fill ") * count)[:count]
    for begin in range(0, count, BATCH):
        assert driver.run((seq, tokens[begin : begin + BATCH], False)).status is Status.OK


def test_without_cells_nothing_is_computed_and_nothing_is_lost(driver: Driver) -> None:
    info = driver.backend.info
    tokens = prompt(driver.backend, "short")
    expected = driver.greedy(0, tokens, 4)
    first = driver.prefill(0, tokens, [Truncate(0, 0)])
    if info.kv_unified:  # another sequence takes every cell but one
        fill(driver, 1, info.kv_cells - len(tokens) - 1)
    else:  # its own stream is all that counts
        fill(driver, 1, info.kv_cells // info.slots - 1)
    full = driver.run((0, [first], True), (1, tokens[:1] * 3, False))
    assert full.status is Status.NO_CELLS
    assert not full.tokens
    assert not full.failed
    driver.run(ops=[Truncate(1, 5)])
    assert driver.decode(0, first, 4) == expected


# Drawing


def draw(driver: Driver, params: SamplingParams, count: int, *, banned: tuple[int, ...] = ()) -> list[int]:
    tokens = prompt(driver.backend, "Sing, goddess, the")
    ops = [Truncate(0, 0), OpenSampler(0, params, tokens, banned)]
    first = driver.run((0, tokens, True), ops=ops).tokens[0][0]
    return driver.decode(0, first, count)


def test_same_seed_same_tokens(driver: Driver) -> None:
    runs = {seed: draw(driver, SamplingParams(temperature=1.5, seed=seed), 12) for seed in (1, 2, 3, 2**40)}
    assert len({tuple(tokens) for tokens in runs.values()}) > 1
    for seed, tokens in runs.items():
        assert draw(driver, SamplingParams(temperature=1.5, seed=seed), 12) == tokens


def test_every_filter_at_once(driver: Driver) -> None:
    params = SamplingParams(
        temperature=0.7,
        top_k=20,
        top_p=0.9,
        min_p=0.05,
        typical_p=0.95,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.1,
        seed=7,
    )
    assert draw(driver, params, 8) == draw(driver, params, 8)


def test_banned_tokens_are_not_drawn_until_the_ban_is_lifted(driver: Driver) -> None:
    usual = draw(driver, GREEDY, 1)[0]
    tokens = prompt(driver.backend, "Sing, goddess, the")
    assert draw(driver, GREEDY, 1, banned=(usual,)) != [usual]
    again = driver.run((0, tokens[-1:], True), ops=[Truncate(0, len(tokens) - 1)])
    assert again.tokens[0][0] != usual
    free = driver.run((0, tokens[-1:], True), ops=[Truncate(0, len(tokens) - 1), LiftBan(0)])
    assert free.tokens[0][0] == usual


def test_a_ban_holds_for_random_draws(driver: Driver) -> None:
    banned = tuple(driver.backend.vocabulary.end_tokens)
    assert not set(banned) & set(draw(driver, SamplingParams(temperature=3.0, seed=5), 30, banned=banned))


def test_logit_bias_forces_and_forbids(driver: Driver) -> None:
    usual = draw(driver, GREEDY, 1)[0]
    forced = prompt(driver.backend, "Q")[0]
    assert draw(driver, SamplingParams(temperature=0.0, logit_bias=((forced, 100.0),)), 3) == [forced] * 3
    assert draw(driver, SamplingParams(temperature=0.0, logit_bias=((usual, -100.0),)), 1) != [usual]


def test_logprobs_come_when_asked_for(driver: Driver) -> None:
    tokens = prompt(driver.backend, "Sing, goddess, the")
    ops = [
        OpenSampler(0, SamplingParams(temperature=0.0, num_logprobs=3), tokens),
        OpenSampler(1, SamplingParams(temperature=0.0, num_logprobs=0), tokens),
        OpenSampler(2, GREEDY, tokens),
    ]
    result = driver.run(*((seq, tokens, True) for seq in range(3)), ops=ops)
    assert set(result.logprobs) == {0, 1}
    (drawn,) = result.logprobs[0]
    assert drawn.token == result.tokens[0][0] == drawn.top[0].token
    assert drawn.logprob == pytest.approx(drawn.top[0].logprob)
    assert [top.logprob for top in drawn.top] == sorted((top.logprob for top in drawn.top), reverse=True)
    assert len(drawn.top) == 3
    assert all(top.logprob < 0 for top in drawn.top)
    assert result.logprobs[1][0].top == ()


def test_a_chunk_that_does_not_sample_needs_no_sampler(driver: Driver) -> None:
    result = driver.run((1, prompt(driver.backend, "quiet"), False))
    assert result.status is Status.OK
    assert not result.tokens


# What it refuses


def test_a_plan_that_is_too_large_is_refused_before_anything_happens(driver: Driver) -> None:
    tokens = prompt(driver.backend, "a b c d ") * BATCH
    expected = driver.greedy(0, tokens[:5], 3)
    with pytest.raises(ValueError, match=str(BATCH)):
        driver.backend.execute(Plan((Truncate(0, 0),), (Chunk(1, tokens[: BATCH + 1], 0, False),)))
    assert driver.greedy(0, tokens[:5], 3) == expected


def test_broken_plans_are_refused(backend: Backend) -> None:
    tokens = prompt(backend, "x y")
    for chunks in (
        (Chunk(0, tokens, 0, False), Chunk(0, tokens, 2, False)),
        (Chunk(backend.info.num_sequences, tokens, 0, False),),
        (Chunk(-1, tokens, 0, False),),
        (Chunk(0, tokens, 0, True),),  # no sampler
    ):
        with pytest.raises(ValueError):
            backend.execute(Plan(chunks=chunks))
