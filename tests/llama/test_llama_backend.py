"""What only llama.cpp can do wrong: return codes, lost prefixes, files it must refuse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from rllm.backends.llama import lib
from rllm.backends.llama.backend import LlamaBackend
from rllm.backends.llama.batch import Batch
from rllm.backends.llama.context import default_threads
from rllm.backends.llama.scoring import prompt_logprobs, token_logprob
from rllm.backends.llama.vocabulary import load_vocabulary
from rllm.backends.options import LlamaOptions
from rllm.engine.port import BackendFailed, Chunk, CopyPrefix, OpenSampler, Plan, Status, Truncate
from rllm.engine.types import SamplingParams
from rllm.errors import StartError
from tests.tinymodel import write_tiny_mamba, write_tiny_model

GREEDY = SamplingParams(temperature=0.0)
PROMPT = list(range(10, 20))
OPTIONS = LlamaOptions(slots=4, ctx_per_slot=256, batch_size=64, threads=1)


@pytest.fixture(params=["unified", "split"])
def backend(request: pytest.FixtureRequest, tiny_model: Path) -> Iterator[LlamaBackend]:
    options = LlamaOptions(slots=4, ctx_per_slot=256, batch_size=64, threads=1, kv=request.param)
    made = LlamaBackend(tiny_model, options)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def errors() -> Iterator[list[str]]:
    """llama.cpp's log lines, kept off the terminal."""
    lines: list[str] = []
    before = lib.log.sink
    lib.send_log_to(lambda level, line: lines.append(line) if level == "error" else None)
    yield lines
    lib.send_log_to(before)


def begin(backend: LlamaBackend, *seqs: int) -> dict[int, int]:
    ops = tuple(OpenSampler(seq, GREEDY, PROMPT) for seq in seqs)
    result = backend.execute(Plan(ops, tuple(Chunk(seq, PROMPT, 0, True) for seq in seqs)))
    return {seq: tokens[0] for seq, tokens in result.tokens.items()}


def decode_all(tokens: dict[int, int], start: int = len(PROMPT)) -> Plan:
    return Plan(chunks=tuple(Chunk(seq, [token], start, True) for seq, token in sorted(tokens.items())))


class FlakyDecode:
    """Stands in for ``Context.decode`` and returns scripted codes; what it does before is scripted too."""

    def __init__(self, backend: LlamaBackend, codes: list[int], *, compute_first: bool = False) -> None:
        self.real: Callable[[Batch], int] = backend.inspect().context.decode
        self.codes = codes
        self.compute_first = compute_first
        backend.inspect().context.decode = self  # type: ignore[method-assign]

    def __call__(self, batch: Batch) -> int:
        code = self.codes.pop(0) if self.codes else 0
        if code == 0 or self.compute_first:
            assert self.real(batch) == 0
        return code


# Return codes of llama_decode


def test_invalid_chunks_fail_alone(backend: LlamaBackend) -> None:
    tokens = begin(backend, 0, 1, 2)
    expected = backend.execute(decode_all(tokens)).tokens
    again = [Truncate(seq, len(PROMPT)) for seq in range(3)]
    chunks = (
        Chunk(0, [tokens[0]], len(PROMPT), True),
        Chunk(1, [tokens[1]], 99, True),  # a gap before it
        Chunk(2, [999_999], len(PROMPT), True),  # no such token
    )
    result = backend.execute(Plan(tuple(again), chunks))
    assert result.status is Status.FAILED
    assert result.failed == {1, 2}
    assert result.tokens == {0: expected[0]}
    assert begin(backend, 1) == {1: tokens[1]}, "its cells were cleared"


@pytest.mark.parametrize("code", [2, -2, -3])
@pytest.mark.parametrize("compute_first", [False, True], ids=["nothing kept", "all kept"])
def test_a_batch_that_failed_half_way_is_computed_again(
    backend: LlamaBackend, code: int, compute_first: bool
) -> None:
    tokens = begin(backend, 0, 1, 2)
    expected = backend.execute(decode_all(tokens)).tokens
    backend.execute(Plan(tuple(Truncate(seq, len(PROMPT)) for seq in range(3))))
    FlakyDecode(backend, [code], compute_first=compute_first)
    result = backend.execute(decode_all(tokens))
    assert result.status is Status.OK
    assert result.tokens == expected
    assert result.retries == 3
    assert [backend.inspect().context.length(seq) for seq in range(3)] == [len(PROMPT) + 1] * 3


def test_who_fails_twice_fails_alone(backend: LlamaBackend) -> None:
    tokens = begin(backend, 0, 1, 2)
    expected = backend.execute(decode_all(tokens)).tokens
    backend.execute(Plan(tuple(Truncate(seq, len(PROMPT)) for seq in range(3))))
    FlakyDecode(backend, [-3, 0, -3, 0])
    result = backend.execute(decode_all(tokens))
    assert result.status is Status.FAILED
    assert result.failed == {1}
    assert result.tokens == {0: expected[0], 2: expected[2]}
    assert backend.inspect().context.length(1) == 0


def test_when_nobody_can_be_computed_the_backend_failed(backend: LlamaBackend) -> None:
    tokens = begin(backend, 0, 1)
    FlakyDecode(backend, [-3] * 3)
    with pytest.raises(BackendFailed, match="-3"):
        backend.execute(decode_all(tokens))


def test_no_cells_is_passed_on(backend: LlamaBackend) -> None:
    tokens = begin(backend, 0, 1)
    FlakyDecode(backend, [1])
    assert backend.execute(decode_all(tokens)).status is Status.NO_CELLS
    assert backend.execute(decode_all(tokens)).status is Status.OK


# Prefixes that the memory cannot give


def test_a_refused_truncate_loses_the_sequence(backend: LlamaBackend) -> None:
    begin(backend, 0, 1)
    real = backend.inspect().context.truncate
    backend.inspect().context.truncate = lambda seq, length: length == 0 and real(seq, 0)  # type: ignore[method-assign]
    plan = Plan((Truncate(0, 5),), (Chunk(0, PROMPT[5:], 5, True), Chunk(1, [3], len(PROMPT), True)))
    result = backend.execute(plan)
    assert result.lost_prefix == {0}
    assert set(result.tokens) == {1}
    assert backend.inspect().context.length(0) == 0


def test_a_prefix_that_is_not_there_is_lost(backend: LlamaBackend) -> None:
    begin(backend, 0)
    plan = Plan((CopyPrefix(0, 1, len(PROMPT) + 1),), (Chunk(1, [3], len(PROMPT) + 1, False),))
    assert backend.execute(plan).lost_prefix == {1}
    assert backend.inspect().context.length(1) == 0


def test_a_recurrent_memory_gives_no_prefixes_and_says_so(tmp_path: Path) -> None:
    made = LlamaBackend(write_tiny_mamba(tmp_path / "mamba.gguf"), OPTIONS)
    try:
        assert not made.info.can_reuse_prefix
        assert made.info.num_sequences == made.info.slots, "every sequence has a state of its own"
        first = begin(made, 0, 1)
        second = made.execute(decode_all(first)).tokens
        chunks = (Chunk(0, PROMPT[5:], 5, True), Chunk(1, [7], len(PROMPT) + 1, True))
        result = made.execute(Plan((Truncate(0, 5), CopyPrefix(1, 2, 4)), chunks))
        assert result.lost_prefix == {0, 2}
        assert set(result.tokens) == {1}
        made.execute(Plan((Truncate(0, 0), Truncate(1, 0))))
        assert begin(made, 0, 1) == first
        assert made.execute(decode_all(first)).tokens == second
    finally:
        made.close()


def test_more_rows_of_logits_than_are_reserved_are_refused(tiny_model: Path) -> None:
    """llama.cpp would end the process."""
    made = LlamaBackend(tiny_model, LlamaOptions(slots=1, ctx_per_slot=256, batch_size=128, threads=1))
    try:
        most = made.info.num_sequences + made.info.max_scored
        tokens = [10 + i % 100 for i in range(most + 2)]
        ops = (OpenSampler(0, SamplingParams(num_prompt_logprobs=0), tokens),)
        too_many = Chunk(0, tokens[: most + 1], 0, False, scored=tokens[1:])
        with pytest.raises(ValueError, match="reserved"):
            made.execute(Plan(ops, (too_many,)))
        chunk = Chunk(0, tokens[:most], 0, False, scored=tokens[1 : most + 1])
        assert len(made.execute(Plan(ops, (chunk,))).scores[0]) == most
    finally:
        made.close()


# Sampling


def test_logprobs_are_those_of_a_softmax() -> None:
    row = np.random.default_rng(1).normal(0, 5, 1000).astype(np.float32)
    exact = row.astype(np.float64)
    logs = exact - (exact.max() + math.log(np.exp(exact - exact.max()).sum()))
    order = np.argsort(-row)
    result = token_logprob(row, 17, 5)
    assert result.logprob == pytest.approx(logs[17], abs=1e-5)
    assert [top.token for top in result.top] == order[:5].tolist()
    assert [top.logprob for top in result.top] == pytest.approx(logs[order[:5]].tolist(), abs=1e-5)
    assert len(token_logprob(row, 0, 5000).top) == 1000
    assert result.rank == 0
    scored = prompt_logprobs(np.stack([row, row[::-1]]), [17, 999 - 17], 5)
    assert [one.logprob for one in scored] == [result.logprob, result.logprob]
    assert scored[0].top == result.top
    assert [one.rank for one in scored] == [1 + int(np.flatnonzero(order == 17)[0])] * 2


def test_among_equally_likely_tokens_the_first_are_reported() -> None:
    """As a greedy draw takes the first: it is among those that are reported."""
    row = np.zeros(1000, dtype=np.float32)
    assert [top.token for top in token_logprob(row, 0, 3).top] == [0, 1, 2]


def test_penalties_look_back_on_the_prompt(backend: LlamaBackend) -> None:
    """The greedy token, once it is in the history, is pushed down by a strong penalty."""
    usual = begin(backend, 0)[0]
    for history, same in (([usual], False), ([t for t in PROMPT if t != usual], True)):
        params = SamplingParams(temperature=0.0, presence_penalty=50.0)
        plan = Plan((Truncate(0, 0), OpenSampler(0, params, history)), (Chunk(0, PROMPT, 0, True),))
        assert (backend.execute(plan).tokens[0][0] == usual) is same


def test_a_short_look_back_forgets(backend: LlamaBackend) -> None:
    usual = begin(backend, 0)[0]
    params = SamplingParams(temperature=0.0, presence_penalty=50.0, penalty_last_n=2)
    history = [usual, 200, 201]
    plan = Plan((Truncate(0, 0), OpenSampler(0, params, history)), (Chunk(0, PROMPT, 0, True),))
    assert backend.execute(plan).tokens[0][0] == usual


def test_a_bias_outside_the_vocabulary_is_refused(backend: LlamaBackend) -> None:
    params = SamplingParams(logit_bias=((10**6, 1.0),))
    with pytest.raises(ValueError, match="vocabulary"):
        backend.execute(Plan((OpenSampler(0, params, PROMPT),)))


# Options and files


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (LlamaOptions(kv="both"), "kv is 'both'"),
        (LlamaOptions(cache_type_k="q3_0"), "cache_type_k"),
        (LlamaOptions(flash_attn="maybe"), "flash_attn"),
        (LlamaOptions(slots=0), "slots is 0"),
        (LlamaOptions(slots=100_000), "too many"),
        (LlamaOptions(slots=2, cache_type_v="q8_0", flash_attn="off"), "flash_attn"),
    ],
)
def test_options_that_cannot_be(tiny_model: Path, options: LlamaOptions, message: str) -> None:
    with pytest.raises(StartError, match=message) as refused:
        LlamaBackend(tiny_model, options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kv", ["unified", "split"])
def test_odd_sizes_are_read_back(tiny_model: Path, kv: str) -> None:
    options = LlamaOptions(slots=3, ctx_per_slot=300, batch_size=2, ubatch_size=1, threads=1, kv=kv)
    made = LlamaBackend(tiny_model, options)
    try:
        assert made.info.batch_size >= 3
        assert made.info.kv_cells >= 900
        assert made.info.ctx_per_slot == 300
    finally:
        made.close()


def test_the_context_is_cut_to_what_the_model_was_trained_for(tmp_path: Path) -> None:
    lines: list[str] = []
    lib.send_log_to(lambda _level, line: lines.append(line))
    path = write_tiny_model(tmp_path / "short.gguf", num_ctx=256)
    made = LlamaBackend(path, LlamaOptions(slots=2, ctx_per_slot=4096, threads=1))
    made.close()
    assert made.info.ctx_per_slot == 256
    assert any("cut to the 256 tokens" in line for line in lines)


def test_quantized_caches_work(tmp_path: Path, tiny_model: Path) -> None:
    made = LlamaBackend(tiny_model, LlamaOptions(slots=2, ctx_per_slot=256, threads=1, cache_type_k="bf16"))
    assert begin(made, 0)
    made.close()


def damaged(path: Path, **changes: object) -> Path:
    """The tiny model's header again, with some metadata changed and without its weights."""
    writer = GGUFWriter(path, str(changes.pop("architecture", "llama")))
    for key, value in changes.items():
        name = key.replace("__", ".")
        if isinstance(value, bool):
            writer.add_bool(name, value)
        else:
            writer.add_string(name, str(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_files_that_cannot_be_served(tmp_path: Path, tiny_model: Path) -> None:
    text = tmp_path / "notes.gguf"
    text.write_text("not a model")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_model.read_bytes()[:300_000])
    cases = {
        tmp_path / "missing.gguf": "No such file",
        text: "not a GGUF file",
        cut: "truncated",
        write_tiny_model(tmp_path / "new.gguf", architecture="gpt7"): "unknown model architecture: 'gpt7'",
        damaged(
            tmp_path / "embed.gguf", architecture="bert", bert__attention__causal=False
        ): "embedding model",
        damaged(tmp_path / "lora.gguf", general__type="adapter"): "weights of type .adapter.",
        damaged(tmp_path / "words.gguf"): "has no vocabulary",
        damaged(tmp_path / "empty.gguf", tokenizer__ggml__model="gpt2"): "empty.gguf: ",
    }
    for path, message in cases.items():
        with pytest.raises(StartError, match=message) as refused:
            LlamaBackend(path, OPTIONS)
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_vocabulary_is_loaded_without_weights(tiny_model: Path, tmp_path: Path) -> None:
    vocabulary = load_vocabulary(tiny_model)
    assert vocabulary.size == len(GGUFReader(tiny_model).fields["tokenizer.ggml.tokens"].data)
    assert (
        vocabulary.detokenize(
            vocabulary.tokenize("hi", add_special=False, parse_special=False), special=False
        )
        == "hi"
    )
    vocabulary.close()
    with pytest.raises(StartError, match="No such file"):
        load_vocabulary(tmp_path / "missing.gguf")


def test_a_vocabulary_may_be_used_from_several_threads(tiny_model: Path) -> None:
    vocabulary = load_vocabulary(tiny_model)
    texts = [f"the {number} thin hens in the inn <|im_end|>" * 20 for number in range(50)]
    expected = [vocabulary.tokenize(text, add_special=True, parse_special=True) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda text: vocabulary.tokenize(text, add_special=True, parse_special=True), texts)
        assert list(found) == expected
    vocabulary.close()


def test_default_threads_are_within_reason() -> None:
    assert 1 <= default_threads() <= 4096
