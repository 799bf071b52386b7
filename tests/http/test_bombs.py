"""Requests made to cost more than they weigh: each ends in a 4xx soon, and meanwhile others are answered.

"Soon" is 5 s here: a test machine may be busy, and a bomb that works takes minutes or all the memory.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest
from fake_service import FakeService
from http_api import CHAT, Api, StartApi, serve_fake

from rllm.api.settings import ApiSettings

SOON_S = 5.0
DEEP = 900
"""Levels that the JSON parser still accepts."""


def _nested(depth: int, inner: Any, wrap: Callable[[Any], Any]) -> Any:
    for _ in range(depth):
        inner = wrap(inner)
    return inner


def _schema_of_references(count: int) -> dict[str, Any]:
    """Each definition uses the next one twice: 2^count when it is written out."""
    definitions = {
        f"a{i}": {"type": "array", "prefixItems": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(count)
    }
    return {"$ref": "#/$defs/a0", "$defs": definitions}


def _format(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


GRAMMARS: dict[str, dict[str, Any]] = {
    "a schema nested deeply": _format(_nested(DEEP, {"type": "null"}, lambda s: {"items": s})),
    "a schema that doubles": _format(_schema_of_references(64)),
    "a schema with a huge repetition": _format({"type": "array", "minItems": 10**9, "items": {}}),
    "a schema with an exponential pattern": _format({"type": "string", "pattern": "^(a|a)*(a+)+$" * 1000}),
    "a schema of two megabytes": _format({"enum": ["x" * 20] * 100_000}),
    "a grammar that is left-recursive": {"grammar": "root ::= root root | root"},
    "a grammar with a huge repetition": {"grammar": 'root ::= (("a"{1,10000}){1,10000}){1,10000}'},
    "a grammar nested deeply": {"grammar": "root ::= " + "(" * 500_000 + '"a"' + ")" * 500_000},
    "a regex with a lookahead": {"guided_regex": "(?=" * 50 + "a+" + ")+" * 50},
    "an exponential regex, and two at once": {
        "grammar": 'root ::= "a"',
        "guided_regex": "(" * 50 + "a+" + ")+" * 50,
    },
    "a template of the caller's": {"chat_template": "{% for i in range(10**9) %}{% endfor %}"},
    "tools": {
        "tool_choice": "required",
        "tools": [{"type": "function", "function": {"name": "f", "parameters": _schema_of_references(64)}}],
    },
}
SHAPES: dict[str, dict[str, Any]] = {
    "a million brackets in a text": {"unknown": "[{" * 500_000},
    "wrong messages by the thousand": {"messages": [{"role": "king", "content": 1}] * 10_000},
    "an unknown field with a huge name": {"x" * 4_000_000: 1},
    "thousands of unknown fields": {f"max_token{i}": 1 for i in range(100_000)},
    "a huge object where a word is expected": {"messages": [{"role": {str(i): i for i in range(200_000)}}]},
    "a huge string where a number is expected": {"temperature": "\u2028" * 1_000_000},
    "a deep value where a number is expected": {"seed": _nested(DEEP, 1, lambda inner: [inner])},
    "a million stop strings": {"stop": ["x"] * 1_000_000},
    "a million biases": {"logit_bias": {str(i): 1 for i in range(400_000)}},
    "content in a million parts": {"messages": [{"role": "user", "content": [{"type": "text"}] * 200_000}]},
}


@pytest.fixture(scope="module")
def shared_api() -> Iterator[Api]:
    """With room for larger bombs than by default."""
    with serve_fake(ApiSettings(max_body_bytes=8 * 1024 * 1024)) as api:
        yield api


async def _seconds_of_silence(url: str, until: asyncio.Event) -> float:
    """The longest that a health check took meanwhile."""
    longest = 0.0
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as http:
        while not until.is_set():
            began = loop.time()
            async with http.get(f"{url}/health/live") as response:
                assert response.status == 200
            longest = max(longest, loop.time() - began)
            await asyncio.sleep(0.01)
    return longest


async def _send(api: Api, http: aiohttp.ClientSession, path: str, data: bytes) -> tuple[int, Any]:
    """Status and error of an answer that came soon, while health checks were answered."""
    over = asyncio.Event()
    watching = asyncio.create_task(_seconds_of_silence(api.url, over))
    headers = {"content-type": "application/json"}
    async with asyncio.timeout(SOON_S):
        async with http.post(api.url + path, data=io.BytesIO(data), headers=headers) as response:
            answer = json.loads(await response.read())
    over.set()
    assert await watching < SOON_S / 2
    return response.status, answer.get("error")


@pytest.mark.parametrize("name", GRAMMARS)
async def test_what_would_blow_up_is_refused_by_name(
    shared_api: Api, http: aiohttp.ClientSession, name: str
) -> None:
    """By its size, its depth or what it asks for, before it is compiled or within a second of that."""
    status, error = await _send(
        shared_api, http, "/v1/chat/completions", json.dumps({**CHAT, **GRAMMARS[name]}).encode()
    )
    assert status == 400
    assert error["code"] in ("unsupported_parameter", "invalid_constraint", "invalid_value")
    assert error["param"] in GRAMMARS[name]
    assert len(error["message"]) < 500


@pytest.mark.parametrize("name", SHAPES)
async def test_a_costly_shape_is_refused_soon_and_shortly(
    shared_api: Api, http: aiohttp.ClientSession, name: str
) -> None:
    status, error = await _send(
        shared_api, http, "/v1/chat/completions", json.dumps({**CHAT, **SHAPES[name]}).encode()
    )
    assert status in (400, 413)
    assert len(error["message"]) < 500


@pytest.mark.parametrize("depth", [2000, 1_000_000])
async def test_json_nested_beyond_the_parser_is_not_json(
    shared_api: Api, http: aiohttp.ClientSession, depth: int
) -> None:
    data = b'{"prompt": ' + b"[" * depth + b"]" * depth + b"}"
    status, error = await _send(shared_api, http, "/v1/completions", data)
    assert (status, error["code"]) == (413, "body_too_large") if depth > 50_000 else (400, "invalid_json")


LOOPS = {
    "a loop in a loop": "{% for m in range(99999) %}{% for n in range(99999) %}{% endfor %}{% endfor %}",
    "text that doubles": "{% set ns = namespace(x='a') %}{% for i in range(60) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "a call without end": "{% macro m() %}{% for i in range(99999) %}{{ m() }}{% endfor %}{% endmacro %}"
    "{{ m() }}",
    "a long argument": "{% for i in range(n) %}{% for j in range(n) %}{% endfor %}{% endfor %}",
    "more output than the context": "{% for i in range(99999) %}0123456789{% endfor %}",
}


@pytest.mark.parametrize("name", LOOPS)
async def test_a_template_that_explodes_ends_as_a_bad_request(
    start_api: StartApi, http: aiohttp.ClientSession, name: str
) -> None:
    """The template is the model's own; several requests at once must not keep the others from the loop."""
    api = start_api(ApiSettings(render_timeout_s=0.3), FakeService(template=LOOPS[name]))
    data = json.dumps({**CHAT, "chat_template_kwargs": {"n": 99_999}}).encode()
    answers = await asyncio.gather(*(_send(api, http, "/v1/chat/completions", data) for _ in range(4)))
    code = "context_length_exceeded" if name == "more output than the context" else "chat_template_error"
    assert [(status, error["code"]) for status, error in answers] == [(400, code)] * 4
    status, _ = await _send(api, http, "/v1/completions", json.dumps({"prompt": "x"}).encode())
    assert status == 200
