"""MaskBench's sample through the matcher as the server uses it, and through llguidance alone."""

from __future__ import annotations

import json
import lzma
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from llguidance import LLMatcher

from rllm.backends.constraint.compiler import Compiled, Compiler
from rllm.backends.constraint.matcher import TokenMatcher
from rllm.backends.constraint.vocabulary import tokenizer_of
from rllm.backends.llama.vocabulary import LlamaVocabulary, load_vocabulary
from rllm.engine.constraint import Constraint, Kind
from rllm.errors import ConstraintRefused
from tests.constraint.answers import of_schema

SAMPLE = Path(__file__).parent / "maskbench.jsonl.xz"
MODEL = Path(__file__).parents[2] / "models" / "q4.gguf"


@dataclass(slots=True)
class Outcome:
    """Of the sample as a whole."""

    num_schemas: int = 0
    num_instances: int = 0
    num_compiled: int = 0
    num_right: int = 0
    wrong: list[str] = field(default_factory=list)
    """Instances that were accepted and are not valid, or the other way round."""
    by_order: list[str] = field(default_factory=list)
    """Valid instances that were refused, and are accepted with their properties in another order."""
    refused: dict[str, str] = field(default_factory=dict)
    """Name of the schema -> place and reason."""
    num_compiled_by_llguidance: int = 0

    @property
    def share(self) -> float:
        return self.num_compiled / self.num_schemas

    def reasons(self) -> list[tuple[str, int]]:
        found = Counter(_kind_of(reason) for reason in self.refused.values())
        return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def schemas() -> Iterator[dict[str, Any]]:
    with lzma.open(SAMPLE, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


@cache
def outcome() -> Outcome:
    """With SmolLM2's vocabulary."""
    vocabulary = load_vocabulary(MODEL)
    compiler, alone, found = Compiler(vocabulary), tokenizer_of(vocabulary), Outcome()
    for row in schemas():
        found.num_schemas += 1
        found.num_instances += len(row["tests"])
        source = json.dumps(row["schema"])
        native = LLMatcher(alone, LLMatcher.grammar_from_json_schema(source), log_level=0)
        found.num_compiled_by_llguidance += not native.is_error()
        try:
            compiled = compiler.compile(Constraint(Kind.JSON_SCHEMA, source))
        except ConstraintRefused as refused:
            found.refused[row["name"]] = str(refused)
            continue
        found.num_compiled += 1
        for index, test in enumerate(row["tests"]):
            name = f"{row['name']} {index}"
            _judge(
                found,
                name,
                compiled,
                vocabulary,
                test,
                lambda schema=row["schema"]: of_schema(schema).matcher(),
            )
    vocabulary.close()
    return found


def _judge(
    found: Outcome,
    name: str,
    compiled: Compiled,
    vocabulary: LlamaVocabulary,
    test: dict[str, Any],
    bytewise: Callable[[], TokenMatcher],
) -> None:
    if accepts(compiled, vocabulary, test["data"]) == test["valid"]:
        found.num_right += 1
    elif test["valid"] and any(state.is_complete for state in in_some_order(bytewise(), test["data"])):
        found.by_order.append(name)
    else:
        found.wrong.append(name)


def accepts(compiled: Compiled, vocabulary: LlamaVocabulary, value: Any) -> bool:
    """Each token asked for and taken. Where the whole is accepted, what was said to be forced has come, cut
    into the same tokens."""
    text = json.dumps(value, ensure_ascii=False)
    tokens = vocabulary.tokenize(text, add_special=False, parse_special=False)
    matcher, forced_came = compiled.matcher(), True
    for index, token in enumerate(tokens):
        forced = matcher.forced()
        forced_came &= forced == tokens[index : index + len(forced)]
        if not matcher.allows(token):
            return False
        matcher.consume(token)
    if matcher.is_complete:
        assert forced_came, f"something else was forced than {text}"
    return matcher.is_complete


def in_some_order(matcher: TokenMatcher, value: Any) -> Iterator[TokenMatcher]:
    """Where a matcher of bytes stands after ``value``, its properties in any order that it allows."""
    if isinstance(value, dict):
        yield from _members(
            _after(matcher, "{"), [f"{json.dumps(key)}: " for key in value], list(value.values())
        )
    elif isinstance(value, list):
        states = _after(matcher, "[")
        for index, item in enumerate(value):
            states = _items(states, ", " if index else "", item)
        for state in states:
            yield from _after(state, "]")
    else:
        yield from _after(matcher, json.dumps(value, ensure_ascii=False))


def _members(
    states: Iterable[TokenMatcher], names: list[str], values: list[Any], comma: str = ""
) -> Iterator[TokenMatcher]:
    for state in states:
        if not names:
            yield from _after(state, "}")
        for index, name in enumerate(names):
            others = names[:index] + names[index + 1 :], values[:index] + values[index + 1 :]
            yield from _members(_items([state], comma + name, values[index]), *others, ", ")


def _items(states: Iterable[TokenMatcher], before: str, value: Any) -> Iterator[TokenMatcher]:
    for state in states:
        for begun in _after(state, before):
            yield from in_some_order(begun, value)


def _after(matcher: TokenMatcher, text: str) -> Iterator[TokenMatcher]:
    """One or none."""
    matcher = matcher.copy()
    for byte in text.encode():
        if not matcher.allows(byte):
            return
        matcher.consume(byte)
    yield matcher


def _kind_of(reason: str) -> str:
    if "format " in reason:
        return "`format` with a name that no draft has"
    if "'oneOf'" in reason:
        return "`oneOf` whose branches cannot be told apart"
    if "$id" in reason:
        return "`$ref` below an `$id` of its own"
    return "`{}`".format(re.findall("'([^']*)' is not supported", reason)[0])
