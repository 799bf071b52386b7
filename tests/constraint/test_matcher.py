"""A matcher follows one answer: what may come, what must, when it may end, and what if it cannot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rllm.backends.constraint.compiler import Compiled, Compiler
from rllm.backends.constraint.matcher import TokenMatcher, allowed_among, bits_for
from rllm.backends.llama.vocabulary import LlamaVocabulary, load_vocabulary
from rllm.engine.constraint import Constraint, Kind
from rllm.errors import ConstraintBroken
from tests.constraint.answers import COMPILER, VOCABULARY, of_schema

END = 258
PERSON = {
    "type": "object",
    "properties": {"name_of_person": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name_of_person", "age"],
    "additionalProperties": False,
}


def begun(compiled: Compiled, text: str) -> TokenMatcher:
    return compiled.matcher(tuple(text.encode()))


def test_allows_is_what_the_mask_says() -> None:
    matcher = begun(of_schema(PERSON), '{"name_of_person": "A')
    bits = bits_for(VOCABULARY.size)
    matcher.fill(bits)
    tokens = np.arange(VOCABULARY.size)
    assert allowed_among(bits, tokens).tolist() == [matcher.allows(token) for token in tokens.tolist()]
    assert 0 < allowed_among(bits, tokens).sum() < VOCABULARY.size


def test_end_tokens_are_allowed_where_the_answer_is_complete() -> None:
    matcher = begun(COMPILER.compile(Constraint(Kind.REGEX, "ab?")), "a")
    ends = sorted(VOCABULARY.end_tokens)
    assert matcher.is_complete
    assert not matcher.is_over
    assert all(map(matcher.allows, ends))
    matcher.consume(ord("b"))
    assert matcher.is_over
    assert not matcher.allows(ord("b"))
    bits = bits_for(VOCABULARY.size)
    matcher.fill(bits)
    assert np.flatnonzero(allowed_among(bits, np.arange(VOCABULARY.size))).tolist() == ends
    matcher.consume(END)
    assert matcher.is_over
    assert not matcher.allows(END) or matcher.is_complete


def test_an_end_token_before_the_answer_is_complete_is_refused() -> None:
    matcher = begun(of_schema(PERSON), "{")
    assert not matcher.allows(END)
    with pytest.raises(ConstraintBroken, match="before it was complete"):
        matcher.consume(END)


def test_control_tokens_are_never_text() -> None:
    """Their names are spelt in plain characters, and may be part of an answer."""
    matcher = begun(COMPILER.compile(Constraint(Kind.REGEX, ".*")), "")
    assert matcher.allows(ord("<"))
    assert not matcher.allows(257)
    for token in b"<|im_start|>":
        matcher.consume(token)
    assert matcher.is_complete


def test_a_token_that_is_not_allowed_breaks_the_answer_and_nothing_else() -> None:
    compiled = of_schema(PERSON)
    matcher = begun(compiled, "{")
    with pytest.raises(ConstraintBroken):
        matcher.consume(ord("x"))
    with pytest.raises(ConstraintBroken):
        matcher.allows(ord('"'))
    with pytest.raises(ConstraintBroken):
        matcher.fill(bits_for(VOCABULARY.size))
    assert begun(compiled, "{").allows(ord('"'))


def test_forced_tokens_are_what_must_come() -> None:
    matcher = begun(of_schema(PERSON), "")
    assert bytes(matcher.forced()) == b'{"name_of_person": "'
    for token in matcher.forced():
        matcher.consume(token)
    assert matcher.forced() == []
    matcher.consume(ord('"'))
    assert bytes(matcher.forced()) == b', "age": '


def test_nothing_is_forced_at_the_end() -> None:
    matcher = begun(COMPILER.compile(Constraint(Kind.CHOICE, '["yes"]')), "yes")
    assert matcher.is_over
    assert matcher.forced() == []


def test_rollback_and_copies() -> None:
    compiled = of_schema(PERSON)
    matcher = begun(compiled, '{"name_of_person": "A"')
    twin = matcher.copy()
    matcher.rollback(2)
    assert matcher.allows(ord("B"))
    assert twin.allows(ord(","))
    assert not twin.allows(ord("B"))
    whole = begun(compiled, '{"name_of_person": "A", "age": 1}')
    whole.consume(END)
    whole.rollback(2)
    assert whole.allows(ord("}"))


def test_an_answer_is_taken_up_again_from_its_tokens() -> None:
    """After a pause, or in another worker."""
    text = '{"name_of_person": "A'
    matcher, again = begun(of_schema(PERSON), text), begun(of_schema(PERSON), text)
    assert matcher.forced() == again.forced()
    assert [matcher.allows(token) for token in range(VOCABULARY.size)] == [
        again.allows(token) for token in range(VOCABULARY.size)
    ]
    with pytest.raises(ConstraintBroken):
        begun(of_schema(PERSON), '{"x')


def test_the_same_schema_is_compiled_once_however_it_is_written() -> None:
    compiler = Compiler(VOCABULARY)
    first = compiler.compile(Constraint(Kind.JSON_SCHEMA, json.dumps(PERSON)))
    again = {"title": "a person", **{key: PERSON[key] for key in reversed(PERSON)}}
    assert compiler.compile(Constraint(Kind.JSON_SCHEMA, json.dumps(again, indent=2))) is first
    assert compiler.compile(Constraint(Kind.JSON_SCHEMA, json.dumps(PERSON), True)) is not first


def test_the_cache_is_bounded_in_bytes() -> None:
    compiler = Compiler(VOCABULARY, cache_bytes=300_000)
    first = compiler.compile(Constraint(Kind.CHOICE, '["0"]'))
    for number in range(1, 10):
        compiler.compile(Constraint(Kind.CHOICE, f'["{number}"]'))
    assert compiler.cached_bytes <= 300_000
    assert compiler.compile(Constraint(Kind.CHOICE, '["9"]')) is compiler.compile(
        Constraint(Kind.CHOICE, '["9"]')
    )
    assert compiler.compile(Constraint(Kind.CHOICE, '["0"]')) is not first


@pytest.fixture(scope="module")
def real() -> Iterator[LlamaVocabulary]:
    vocabulary = load_vocabulary(Path(__file__).parents[2] / "models" / "q4.gguf")
    yield vocabulary
    vocabulary.close()


@pytest.mark.model
def test_forced_tokens_are_cut_as_the_model_would_cut_them(real: LlamaVocabulary) -> None:
    """Wherever the answer stands, what is forced next is how the whole answer is tokenized."""
    compiled = Compiler(real).compile(Constraint(Kind.JSON_SCHEMA, json.dumps(PERSON)))
    answer = '{"name_of_person": "Ada Lovelace", "age": 36}'
    tokens = real.tokenize(answer, add_special=False, parse_special=False)
    matcher, num_forced = compiled.matcher(), 0
    for index, token in enumerate(tokens):
        forced = matcher.forced()
        assert list(forced) == tokens[index : index + len(forced)]
        num_forced += bool(forced)
        matcher.consume(token)
    assert matcher.is_over
    assert num_forced >= len(tokens) // 2


@pytest.mark.model
def test_the_vocabulary_of_a_real_model(real: LlamaVocabulary) -> None:
    matcher = Compiler(real).compile(Constraint(Kind.GRAMMAR, "root ::= .*")).matcher()
    allowed = [token for token in range(real.size) if matcher.allows(token)]
    texts = {token for token in range(real.size) if real.piece(token)}
    assert set(allowed) - real.end_tokens <= texts, "what has no text is not allowed"
    assert real.end_tokens <= set(allowed)
    assert len(allowed) > 0.95 * real.size
