"""Answers to judge a constraint by: given ones, and ones drawn from what it allows."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from rllm.backends.constraint.compiler import Compiled, Compiler
from rllm.backends.fake.vocabulary import FakeVocabulary
from rllm.engine.constraint import Constraint, Kind

_CLOSING = frozenset(b'"}]')
VOCABULARY = FakeVocabulary()
COMPILER = Compiler(VOCABULARY)


def of_schema(schema: Any, *, any_whitespace: bool = False) -> Compiled:
    return COMPILER.compile(Constraint(Kind.JSON_SCHEMA, json.dumps(schema), any_whitespace))


def accepts(compiled: Compiled, text: str) -> bool:
    """The whole text, asked and taken token by token as the server does."""
    matcher = compiled.matcher()
    for token in text.encode():
        if not matcher.allows(token):
            return False
        matcher.consume(token)
    return matcher.is_complete


def drawn(compiled: Compiled, random: Random, *, about: int = 200) -> str | None:
    """A random answer, which ends sooner the longer it is; None where it does not."""
    matcher, answer = compiled.matcher(), bytearray()
    while len(answer) < 6 * about:
        if matcher.is_over or (matcher.is_complete and random.random() < 0.3):
            return answer.decode()
        token = _pick(matcher.allowed(), random, hurry=len(answer) > about)
        if token in VOCABULARY.end_tokens:
            return answer.decode()
        matcher.consume(token)
        answer.append(token)
    return None


def _pick(allowed: list[int], random: Random, *, hurry: bool) -> int:
    assert allowed, "a dead end: nothing may follow and the answer is not complete"
    closing = [token for token in allowed if token in _CLOSING]
    if closing and (hurry or random.random() < 0.25):
        return random.choice(closing)
    printable = [token for token in allowed if 32 <= token < 127]
    return random.choice(printable if printable and random.random() < 0.9 else allowed)
