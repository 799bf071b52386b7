"""Constrained answers of the real model, through the whole engine: all that finish are valid."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from rllm.backends.llama.backend import LlamaBackend
from rllm.backends.options import LlamaOptions
from rllm.engine.build import build_scheduler
from rllm.engine.constraint import Constraint, Kind
from rllm.engine.engine import Engine
from rllm.engine.port import Plan, Truncate
from rllm.engine.types import EngineRequest, Event, FinishReason, SamplingParams

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "email": {"type": "string", "pattern": "^[a-z]{1,8}@[a-z]{1,8}\\.com$"},
            "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3},
        },
        "required": ["name", "age", "email", "tags"],
        "additionalProperties": False,
    },
    {"type": "array", "items": {"type": "number", "minimum": -1, "maximum": 1}, "minItems": 2, "maxItems": 3},
    {"anyOf": [{"type": "boolean"}, {"type": "null"}, {"type": "string", "format": "date"}]},
]
SAMPLINGS = {
    "greedy": {"temperature": 0.0},
    "plain": {"temperature": 1.0},
    "hot": {"temperature": 2.0},
    "top-p": {"temperature": 1.0, "top_p": 0.5},
    "top-k": {"temperature": 1.5, "top_k": 20, "min_p": 0.01},
    "penalties": {"temperature": 1.0, "repetition_penalty": 1.3},
    "greedy with penalties": {"temperature": 0.0, "frequency_penalty": 0.5},
    "typical": {"temperature": 1.0, "typical_p": 0.9},
    "log probabilities": {"temperature": 1.0, "num_logprobs": 2},
    "bias": {"temperature": 1.0, "logit_bias": ((1, 5.0), (500, -100.0))},
    "bad words": {"temperature": 1.0, "bad_words": ((260,), (18, 19))},
}


@pytest.fixture(scope="module", params=["split", "unified"])
def backend(request: pytest.FixtureRequest, q8_model: Path) -> Iterator[LlamaBackend]:
    options = LlamaOptions(slots=4, ctx_per_slot=512, batch_size=256, threads=1, kv=request.param)
    made = LlamaBackend(q8_model, options)
    yield made
    made.close()


def run(backend: LlamaBackend, requests: Sequence[EngineRequest], **options: Any) -> dict[str, list[Event]]:
    """All events of each request, by an engine that begins with an empty cache."""
    backend.execute(Plan(tuple(Truncate(seq, 0) for seq in range(backend.info.num_sequences))))
    scheduler = build_scheduler(
        backend.info, backend.vocabulary, max_step_tokens=256, itl_target_s=0.1, max_pause_s=0.0, **options
    )
    engine = Engine(scheduler, backend, time.monotonic)
    for request in requests:
        if request.constraint is not None:
            backend.prepare(request.constraint).result()
        engine.submit(request, time.monotonic())
    events: dict[str, list[Event]] = {request.id: [] for request in requests}
    while engine.has_work:
        for event in engine.step().events:
            events[event.request_id].append(event)
        engine.check()
    return events


def asking(
    backend: LlamaBackend, name: str, constraint: Constraint | None, *, most: int = 120, **sampling: Any
) -> EngineRequest:
    prompt = backend.vocabulary.tokenize(
        "<|im_start|>user\nDescribe a person.<|im_end|>\n<|im_start|>assistant\n",
        add_special=False,
        parse_special=True,
    )
    params = SamplingParams(**{"seed": len(name), **sampling})
    return EngineRequest(
        id=name, prompt=tuple(prompt), max_tokens=most, constraint=constraint, sampling=params
    )


def said(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events)


def of_schema(schema: dict[str, Any]) -> Constraint:
    return Constraint(Kind.JSON_SCHEMA, json.dumps(schema))


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_every_way_of_drawing_keeps_to_the_schema(backend: LlamaBackend, sampling: dict[str, Any]) -> None:
    requests = [
        asking(backend, f"{number}", of_schema(schema), **sampling) for number, schema in enumerate(SCHEMAS)
    ]
    free = asking(backend, "free", None, most=30)
    events = run(backend, [*requests, free])
    for schema, request in zip(SCHEMAS, requests, strict=True):
        last = events[request.id][-1]
        assert last.finish is FinishReason.STOP, (last.finish, last.error, said(events[request.id]))
        jsonschema.validate(json.loads(said(events[request.id])), schema)
    assert events["free"][-1].finish is not FinishReason.ERROR


def test_other_kinds(backend: LlamaBackend) -> None:
    wanted = {
        "regex": (Constraint(Kind.REGEX, "[A-Z][a-z]{2,9}, [0-9]{2}"), "[A-Z][a-z]{2,9}, [0-9]{2}"),
        "choice": (Constraint(Kind.CHOICE, '["a man", "a woman", "nobody"]'), "a man|a woman|nobody"),
        "grammar": (Constraint(Kind.GRAMMAR, 'root ::= "<" [0-9]+ ">"'), "<[0-9]+>"),
        "object": (Constraint(Kind.JSON_OBJECT), r"\{.*\}"),
    }
    requests = [
        asking(backend, name, constraint, temperature=0.7) for name, (constraint, _) in wanted.items()
    ]
    events = run(backend, requests)
    for name, (_, pattern) in wanted.items():
        last = events[name][-1]
        if last.finish is FinishReason.STOP:
            assert re.fullmatch(pattern, said(events[name]), re.DOTALL), said(events[name])
        else:
            assert last.finish is FinishReason.LENGTH


def test_a_greedy_answer_is_that_of_always_masking(backend: LlamaBackend) -> None:
    """A penalty that changes nothing takes the native chain, which masks every row."""
    schema = of_schema(SCHEMAS[0])
    asked = asking(backend, "asked", schema, temperature=0.0)
    masked = asking(backend, "masked", schema, temperature=0.0, frequency_penalty=1e-9)
    assert said(run(backend, [asked])["asked"]) == said(run(backend, [masked])["masked"])


def test_forced_tokens_come_in_one_step(backend: LlamaBackend) -> None:
    schema = {
        "type": "object",
        "properties": {f"a_rather_long_name_{letter}": {"type": "boolean"} for letter in "abc"},
        "required": [f"a_rather_long_name_{letter}" for letter in "abc"],
        "additionalProperties": False,
    }
    request = asking(backend, "forced", of_schema(schema), temperature=0.0)
    events = run(backend, [request])["forced"]
    usage = events[-1].usage
    assert usage is not None
    jsonschema.validate(json.loads(said(events)), schema)
    assert len(events) <= usage.completion_tokens / 2, "fewer steps than tokens"
    logged = asking(backend, "logged", of_schema(schema), temperature=0.0, num_logprobs=0)
    assert said(run(backend, [logged])["logged"]) == said(events), "with log probabilities, token by token"


def test_what_is_cut_off_says_length(backend: LlamaBackend) -> None:
    request = asking(backend, "cut", of_schema(SCHEMAS[0]), most=6, temperature=0.0)
    last = run(backend, [request])["cut"][-1]
    assert last.finish is FinishReason.LENGTH
    assert last.usage is not None
    assert last.usage.completion_tokens == 6


def test_min_tokens_gives_way_to_the_constraint(backend: LlamaBackend) -> None:
    request = asking(backend, "short", Constraint(Kind.CHOICE, '["yes"]'), temperature=0.0)
    events = run(backend, [msgspec.structs.replace(request, min_tokens=50)])["short"]
    assert (said(events), events[-1].finish) == ("yes", FinishReason.STOP)


def test_guesses_beside_a_constraint(q8_model: Path) -> None:
    options = LlamaOptions(slots=2, ctx_per_slot=512, batch_size=256, threads=1, speculative_tokens=4)
    made = LlamaBackend(q8_model, options)
    try:
        requests = [asking(made, f"{n}", of_schema(SCHEMAS[n]), temperature=0.0) for n in range(2)]
        guessed = run(made, requests, speculative_tokens=4)
        plain = run(made, requests)
        for number in range(2):
            jsonschema.validate(json.loads(said(guessed[f"{number}"])), SCHEMAS[number])
            assert guessed[f"{number}"][-1].finish is plain[f"{number}"][-1].finish
    finally:
        made.close()


def test_an_answer_goes_on_after_it_was_preempted(q8_model: Path) -> None:
    """Four answers where two fit: the last in line gives its cells back and is computed again."""
    options = LlamaOptions(slots=4, ctx_per_slot=256, kv="unified", kv_cells=256, batch_size=256, threads=1)
    made = LlamaBackend(q8_model, options)
    schema = {
        "type": "array",
        "items": {"enum": ["a longer text", "another text"]},
        "minItems": 12,
        "maxItems": 12,
    }
    try:
        requests = [asking(made, f"{n}", of_schema(schema), most=150, seed=n) for n in range(4)]
        events = run(made, requests)
        for request in requests:
            assert events[request.id][-1].finish is FinishReason.STOP
            jsonschema.validate(json.loads(said(events[request.id])), schema)
    finally:
        made.close()
