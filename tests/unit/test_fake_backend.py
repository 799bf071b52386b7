"""What a test may ask of the fake backend beyond the port."""

from __future__ import annotations

import pytest

from rllm.backends.fake import ContractBroken, FakeBackend, FakeScript, FakeVocabulary, continuation
from rllm.backends.options import FakeOptions
from rllm.engine.port import BackendFailed, Chunk, CopyPrefix, OpenSampler, Plan, Status, Truncate
from rllm.engine.types import SamplingParams

GREEDY = SamplingParams(temperature=0.0)
vocabulary = FakeVocabulary()


def encode(text: str) -> list[int]:
    return vocabulary.tokenize(text, add_special=True, parse_special=True)


def answer(backend: FakeBackend, prompt: list[int], limit: int = 100) -> list[int]:
    """A whole generation in sequence 0."""
    ops = (Truncate(0, 0), OpenSampler(0, GREEDY, prompt))
    result = backend.execute(Plan(ops, (Chunk(0, prompt, 0, True),)))
    tokens: list[int] = []
    while 0 in result.tokens and len(tokens) < limit:
        tokens.append(result.tokens[0][0])
        if tokens[-1] in vocabulary.end_tokens:
            break
        result = backend.execute(Plan((), (Chunk(0, tokens[-1:], len(prompt) + len(tokens) - 1, True),)))
    return tokens


@pytest.mark.parametrize("text", ["Hello, wörld", "two\nlines", "", "a"])
@pytest.mark.parametrize(
    "template", ["{}", "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"], ids=["raw", "chat"]
)
def test_it_says_what_the_prompt_tells_it_to(text: str, template: str) -> None:
    backend = FakeBackend(FakeOptions(batch_size=256))
    prompt = encode(template.format(f"[[say {text}]]"))
    tokens = answer(backend, prompt)
    assert vocabulary.detokenize(tokens, special=True) == text + "<|im_end|>"
    assert tokens == continuation(prompt, 100)


def test_it_rambles_without_end_otherwise() -> None:
    prompt = encode("once upon")
    tokens = answer(FakeBackend(), prompt, limit=40)
    assert tokens == continuation(prompt, 40)
    assert len(set(tokens)) > 5
    assert tokens != continuation(encode("once upom"), 40)


def test_wrong_cells_show_as_wrong_text() -> None:
    backend = FakeBackend(FakeOptions(batch_size=256))
    prompt = encode("[[say right]]")
    backend.execute(Plan((OpenSampler(0, GREEDY, prompt),), (Chunk(0, prompt, 0, True),)))
    wrong = backend.execute(Plan((), (Chunk(0, encode("R"), len(prompt), True),)))  # it had drawn "r"
    assert wrong.tokens[0][0] != ord("i")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan((), (Chunk(0, [1], 3, False),)), "starts at 3"),
        (Plan((), (Chunk(0, [], 0, False),)), "empty"),
        (Plan((), (Chunk(0, [999], 0, False),)), "unknown token"),
        (Plan((), (Chunk(1, [1], 0, False), Chunk(0, [1], 0, False))), "not ordered"),
        (Plan((CopyPrefix(0, 1, 1),)), "0 tokens copied|of 0 tokens"),
        (Plan((Truncate(99, 0),)), "sequence 99"),
    ],
)
def test_plans_that_break_the_rules_are_found(plan: Plan, message: str) -> None:
    with pytest.raises(ContractBroken, match=message):
        FakeBackend().execute(plan)


def test_copies_share_cells_only_when_unified() -> None:
    for unified, used in ((True, 8), (False, 16)):
        backend = FakeBackend(FakeOptions(kv_unified=unified))
        backend.execute(Plan((), (Chunk(0, list(b"12345678"), 0, False),)))
        backend.execute(Plan((CopyPrefix(0, 1, 8),)))
        assert backend.cells.used == used
        backend.execute(Plan((Truncate(0, 0),)))
        assert backend.cells.tokens(1) == list(b"12345678")
        backend.check()


def test_scripted_faults() -> None:
    script = FakeScript(fail={1: frozenset({0})}, no_cells=frozenset({0}), die_at=2)
    backend = FakeBackend(script=script)
    plan = Plan((), (Chunk(0, [65], 0, False), Chunk(1, [66], 0, False)))
    assert backend.execute(plan).status is Status.NO_CELLS
    result = backend.execute(plan)
    assert result.status is Status.FAILED
    assert result.failed == {0}
    assert backend.cells.tokens(0) == []
    with pytest.raises(BackendFailed):
        backend.execute(Plan((), (Chunk(0, [65], 0, False),)))


def test_faults_named_in_a_prompt_come_at_their_token() -> None:
    backend = FakeBackend(FakeOptions(batch_size=256))
    assert len(answer(backend, encode("[[fail 3]]"))) == 3
    assert len(answer(backend, encode("[[say Hello]][[fail 2]]"))) == 2
    with pytest.raises(BackendFailed):
        answer(backend, encode("[[die]]"))


def test_a_memory_that_cannot_reuse_prefixes() -> None:
    backend = FakeBackend(script=FakeScript(can_reuse_prefix=False))
    assert not backend.info.can_reuse_prefix
    backend.execute(Plan((), (Chunk(0, [65, 66], 0, False),)))
    result = backend.execute(Plan((CopyPrefix(0, 1, 1), Truncate(0, 1)), (Chunk(1, [67], 1, False),)))
    assert result.lost_prefix == {0, 1}
    assert backend.cells.used == 0


def test_delays_go_through_the_injected_sleep() -> None:
    slept: list[float] = []
    backend = FakeBackend(FakeOptions(step_s=1.0, token_s=0.25), sleep=slept.append)
    backend.execute(Plan((), (Chunk(0, [65, 66], 0, False),)))
    assert slept == [1.5]
