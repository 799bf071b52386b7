"""Structured output over HTTP on the real model: every answer that ends by itself is valid."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from tests.cli.server import RunningServer, running

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

QUESTION: list[Any] = [{"role": "user", "content": "Describe a person as JSON."}]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 16},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "colours": {"type": "array", "items": {"enum": ["red", "green"]}, "maxItems": 2},
    },
    "required": ["name", "age", "colours"],
    "additionalProperties": False,
}
FORMAT: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}


class Person(BaseModel):
    name: str = Field(max_length=16)
    age: int = Field(ge=0, le=120)


@pytest.fixture(scope="module")
def server(q8_model: Path) -> Iterator[RunningServer]:
    with running("--gguf", q8_model, "--slots", "8", "--ctx-size", "512", "--threads", "1") as started:
        yield started


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    url = f"http://127.0.0.1:{server.port}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=300) as made:
        yield made


def test_streamed_or_not_with_n(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model="q8", messages=QUESTION, response_format=FORMAT, max_tokens=100, n=2, seed=3
    )
    for choice in whole.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content or ""), SCHEMA)
    chunks = list(
        client.chat.completions.create(
            model="q8", messages=QUESTION, response_format=FORMAT, max_tokens=100, seed=3, stream=True
        )
    )
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    jsonschema.validate(json.loads(said), SCHEMA)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_client_parses_into_a_model_of_pydantic(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="q8", messages=QUESTION, response_format=Person, max_tokens=100
    )
    assert isinstance(answer.choices[0].message.parsed, Person)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_regex": "[A-Z][a-z]{2,8}"}, "[A-Z][a-z]{2,8}"),
        ({"guided_choice": ["red wine", "red", "blue"]}, "red wine|red|blue"),
        ({"grammar": 'root ::= "<" [0-9]{1,4} ">"'}, "<[0-9]{1,4}>"),
        ({"guided_grammar": 'start: "yes" | "no"'}, "yes|no"),
        ({"structured_outputs": {"json": {"type": "boolean"}}}, "true|false"),
        ({"json_schema": {"const": [1, "a"]}}, r'\[1, "a"\]'),
    ],
)
def test_every_kind_on_completions(client: openai.OpenAI, fields: dict[str, Any], pattern: str) -> None:
    answer = client.completions.create(
        model="q8", prompt="The answer is: ", max_tokens=40, extra_body=fields, logprobs=1
    )
    assert answer.choices[0].finish_reason == "stop"
    assert re.fullmatch(pattern, answer.choices[0].text), answer.choices[0].text


def test_what_max_tokens_cuts_off_says_length(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="q8", messages=QUESTION, response_format=FORMAT, max_tokens=5
    )
    assert answer.choices[0].finish_reason == "length"


def test_many_at_once_beside_free_ones(client: openai.OpenAI) -> None:
    def ask(number: int) -> tuple[str, str]:
        options: dict[str, Any] = {"response_format": FORMAT} if number % 3 else {}
        answer = client.chat.completions.create(
            model="q8", messages=QUESTION, max_tokens=80, temperature=number % 3, seed=number, **options
        )
        return answer.choices[0].finish_reason, answer.choices[0].message.content or ""

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(18)))
    constrained = [answer for number, answer in enumerate(answers) if number % 3]
    for finish, text in constrained:
        assert finish in ("stop", "length")
        if finish == "stop":
            jsonschema.validate(json.loads(text), SCHEMA)
    assert sum(finish == "stop" for finish, _ in constrained) >= 0.8 * len(constrained)


def test_a_schema_that_cannot_be_enforced_is_a_bad_request(client: openai.OpenAI) -> None:
    wrong: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}}
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="q8", messages=QUESTION, response_format=wrong)
    assert (refused.value.param, refused.value.code) == ("response_format", "invalid_constraint")
