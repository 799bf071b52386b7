"""What is made to take long is refused in under a second, and takes no process with it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from rllm.backends.constraint import limits
from rllm.backends.constraint.compiler import check, within_limits
from rllm.engine.constraint import Constraint, Kind
from rllm.errors import ConstraintRefused

TEXT = {"type": "string"}


def exponential(depth: int = 24) -> dict[str, Any]:
    """Each definition asks twice for the one before, twice."""
    definitions: dict[str, Any] = {"a0": TEXT}
    for level in range(1, depth):
        below = {"$ref": f"#/$defs/a{level - 1}"}
        both = {"type": "object", "properties": {"x": below, "y": below}}
        definitions[f"a{level}"] = {"allOf": [both, both]}
    return {"$ref": f"#/$defs/a{depth - 1}", "$defs": definitions}


def chain(length: int) -> dict[str, Any]:
    definitions = {
        f"a{i}": {"type": "object", "properties": {"x": {"$ref": f"#/$defs/a{i + 1}"}}} for i in range(length)
    }
    return {"$ref": "#/$defs/a0", "$defs": {**definitions, f"a{length}": TEXT}}


def entangled(count: int) -> dict[str, Any]:
    """No definition can be seen to end before the one after it."""
    definitions = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}]} for i in range(count)}
    first = {"allOf": [{"$ref": f"#/$defs/a{i}"} for i in range(count)]}
    return {**first, "$defs": {**definitions, f"a{count}": TEXT}}


def nested(keyword: str, depth: int) -> str:
    return f'{{"{keyword}":' * depth + "{}" + "}" * depth


def chained_rules(count: int) -> str:
    """Ten times what llguidance's own stack bears."""
    return "start: r0\n" + "\n".join(f'r{i}: "x" r{(i + 1) % count} | "y"' for i in range(count))


SCHEMAS: dict[str, Any] = {
    "10,000 branches": {"anyOf": [{"type": "object", "required": [f"k{i}"]} for i in range(10_000)]},
    "10,000 branches, one of": {"oneOf": [{"const": i} for i in range(10_000)]},
    "100,000 constants": {"enum": [f"value {i}" for i in range(100_000)]},
    "exponential nesting": exponential(),
    "exponential combinations": {
        "allOf": [
            {"anyOf": [{"properties": {f"p{i}": {"type": name}}} for name in ("string", "integer")]}
            for i in range(16)
        ]
    },
    "a long chain of references": chain(20_000),
    "entangled references": entangled(1_000),
    "references in a circle": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
    },
    "merged references": {
        "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
        "$defs": {
            name: {"type": "object", "properties": {"child": {"$ref": f"#/$defs/{name}"}}} for name in "ab"
        },
    },
    "5,000 properties": {"properties": {f"p{i}": TEXT for i in range(5_000)}},
    "at least one of 1,000 properties": {
        "type": "object",
        "properties": {f"p{i}": TEXT for i in range(1_000)},
        "minProperties": 1,
        "additionalProperties": False,
    },
    "multiples of a large number": {"type": "integer", "multipleOf": 123_456_789},
    "lengths out of reach": {"type": "string", "minLength": 10**12},
    "a list out of reach": {"type": "array", "minItems": 10**12},
    "200 overlapping patterns": {"patternProperties": {f"^a{i}.*b.*c": TEXT for i in range(200)}},
    "a long pattern": {"pattern": "a" * 100_000},
    "a pattern of 20,000 words": {"pattern": "|".join(f"a{i}" for i in range(20_000))},
    "a nested pattern": {"pattern": "(" * 1_000 + "a" + ")" * 1_000},
}
SOURCES: dict[str, tuple[Kind, str]] = {
    **{name: (Kind.JSON_SCHEMA, json.dumps(schema)) for name, schema in SCHEMAS.items()},
    "nested lists": (Kind.JSON_SCHEMA, nested("items", 5_000)),
    "nested constants": (Kind.JSON_SCHEMA, '{"const":' + "[" * 500 + "]" * 500 + "}"),
    "a nested annotation": (Kind.JSON_SCHEMA, f'{{"items": {{"$id": "x", "y": {nested("z", 900)}}}}}'),
    "a large schema": (Kind.JSON_SCHEMA, json.dumps({"title": "x" * 300_000})),
    "nested groups in Lark": (Kind.GRAMMAR, "start: " + "(" * 20_000 + '"a"' + ")" * 20_000),
    "nested groups in GBNF": (Kind.GRAMMAR, "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000),
    "20,000 rules": (Kind.GRAMMAR, chained_rules(20_000)),
    "patterns that are intersected": (
        Kind.GRAMMAR,
        "start: A\nA: ~/(.*a){20}/ & /(.*b){20}/ & /(.*c){20}/",
    ),
    "100,000 choices": (Kind.CHOICE, json.dumps([f"v{i}" for i in range(100_000)])),
}
CATASTROPHIC = (
    "(a+)+$",
    "(a|a)*$",
    "(.*a){25}",
    "((a{1,1000}){1,1000}){1,1000}",
    "(x|y)*x(x|y){40}",
    "(a*)*b",
)
ALLOWED: dict[str, tuple[Kind, str]] = {
    "as many properties as may be": (
        Kind.JSON_SCHEMA,
        json.dumps({"properties": {f"p{i}": TEXT for i in range(limits.MOST_PROPERTIES)}}),
    ),
    "as many constants as may be": (
        Kind.JSON_SCHEMA,
        json.dumps({"enum": [f"value {i}" for i in range(limits.MOST_VALUES)]}),
    ),
    "as many references as may be": (Kind.JSON_SCHEMA, json.dumps(chain(limits.MOST_NODES // 4 - 1))),
    "as deep as may be": (Kind.JSON_SCHEMA, nested("items", limits.MOST_DEPTH)),
    "as many rules as may be": (Kind.GRAMMAR, chained_rules(limits.MOST_RULES - 10)),
    "multiples": (Kind.JSON_SCHEMA, '{"type": "integer", "multipleOf": 4999}'),
    "at least one of many": (
        Kind.JSON_SCHEMA,
        json.dumps(
            {
                "type": "object",
                "properties": {f"p{i}": TEXT for i in range(limits.MOST_OPTIONAL)},
                "minProperties": 1,
                "additionalProperties": False,
            }
        ),
    ),
}


def processor_s(work: Callable[[], None]) -> float:
    """Of this process and so of all its threads: a busy machine makes nothing slower by this clock."""
    before = time.process_time()
    work()
    return time.process_time() - before


@pytest.mark.parametrize(("kind", "source"), SOURCES.values(), ids=SOURCES.keys())
def test_refused_in_under_a_second(kind: Kind, source: str) -> None:
    def refused() -> None:
        with pytest.raises(ConstraintRefused):
            check(Constraint(kind, source))

    assert processor_s(refused) < 1.0


@pytest.mark.parametrize(("kind", "source"), ALLOWED.values(), ids=ALLOWED.keys())
def test_what_is_within_limits_compiles_in_time(kind: Kind, source: str) -> None:
    assert processor_s(lambda: check(Constraint(kind, source))) < limits.COMPILE_S


@pytest.mark.parametrize("source", CATASTROPHIC)
def test_no_pattern_is_catastrophic(source: str) -> None:
    """There is no backtracking: it compiles, or is refused."""

    def compiled() -> None:
        with suppress(ConstraintRefused):
            check(Constraint(Kind.REGEX, source))

    assert processor_s(compiled) < 1.0


def test_what_takes_too_long_is_left_behind() -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            pass

    try:
        with pytest.raises(ConstraintRefused, match="s to compile"):
            within_limits(work)
    finally:
        stop.set()


def test_waiting_for_a_processor_is_no_fault() -> None:
    within_limits(lambda: time.sleep(1.5 * limits.COMPILE_S))


def test_others_go_on_while_it_compiles() -> None:
    """llguidance holds the interpreter while it reads the text, and drops it while it builds the grammar."""
    longest, stop = 0.0, threading.Event()

    def tick() -> None:
        nonlocal longest
        last = time.perf_counter()
        while not stop.is_set():
            time.sleep(0.0005)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    ticking = threading.Thread(target=tick)
    ticking.start()
    started = time.perf_counter()
    check(Constraint(Kind.JSON_SCHEMA, json.dumps(chain(limits.MOST_NODES // 4 - 1))))
    took = time.perf_counter() - started
    stop.set()
    ticking.join()
    assert longest < max(0.9 * took, 0.05)
