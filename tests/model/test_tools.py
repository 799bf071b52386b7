"""Tools on the real model, whose template has none: it calls when it has seen calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.cli.server import RunningServer, running

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def server(q8_model: Path) -> Iterator[RunningServer]:
    options = ("--slots", "2", "--ctx-size", "1024", "--threads", "1", "--temperature", "0", "--top-p", "1")
    with running("--gguf", q8_model, *options) as started:
        yield started


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    url = f"http://127.0.0.1:{server.port}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=500) as made:
        yield made


def asked(city: str) -> dict[str, Any]:
    return {"role": "user", "content": f"What is the weather in {city}?"}


def called(city: str) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": json.dumps({"city": city})}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": f"call_{city}", "type": "function", "function": function}],
    }


HISTORY = [message for city in ("Paris", "Rome", "Oslo", "Bern") for message in (asked(city), called(city))]


def test_a_call_comes_out_and_its_result_goes_back(client: openai.OpenAI) -> None:
    messages: list[Any] = [*HISTORY, asked("London")]
    answer = client.chat.completions.create(model="q8", messages=messages, tools=[TOOL], max_tokens=60)  # type: ignore[list-item]
    choice = answer.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert choice.message.tool_calls is not None
    [call] = choice.message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "London"})
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "Rain, 12 degrees."}]
    told = client.chat.completions.create(model="q8", messages=messages, max_tokens=12)
    assert told.choices[0].message.content
