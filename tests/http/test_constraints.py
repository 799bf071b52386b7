"""What an answer must match: every field that asks for it, and what is refused before any work."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from http_api import CHAT, Api

from rllm.engine.constraint import Constraint, Kind

SCHEMA = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "null"}}}
TEXT = '{"type":"object","properties":{"b":{"type":"integer"},"a":{"type":"null"}}}'
OF_SCHEMA = Constraint(Kind.JSON_SCHEMA, TEXT)
TAG = {
    "type": "structural_tag",
    "structures": [{"begin": "<f>", "schema": SCHEMA, "end": "</f>"}],
    "triggers": ["<f"],
}
PROMPT: dict[str, Any] = {"prompt": "ab", "max_tokens": 6}
ROUTES = [("/v1/chat/completions", CHAT), ("/v1/completions", PROMPT)]


def named(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **more}}


ASKED: dict[str, tuple[dict[str, Any], Constraint | None]] = {
    "json_object": ({"response_format": {"type": "json_object"}}, Constraint(Kind.JSON_OBJECT)),
    "json_schema": ({"response_format": named(SCHEMA)}, OF_SCHEMA),
    "json_schema, strict": ({"response_format": named(SCHEMA, strict=True)}, OF_SCHEMA),
    "llama-server's schema": ({"response_format": {"type": "json_object", "schema": SCHEMA}}, OF_SCHEMA),
    "structural_tag": (
        {"response_format": TAG},
        Constraint(Kind.STRUCTURAL_TAG, json.dumps(TAG, separators=(",", ":"))),
    ),
    "text": ({"response_format": {"type": "text"}}, None),
    "vLLM's json": ({"structured_outputs": {"json": SCHEMA}}, OF_SCHEMA),
    "vLLM's json as text": ({"structured_outputs": {"json": TEXT}}, OF_SCHEMA),
    "vLLM's regex": ({"structured_outputs": {"regex": "a+"}}, Constraint(Kind.REGEX, "a+")),
    "vLLM's choice": ({"structured_outputs": {"choice": ["a", "b"]}}, Constraint(Kind.CHOICE, '["a","b"]')),
    "vLLM's object": ({"structured_outputs": {"json_object": True}}, Constraint(Kind.JSON_OBJECT)),
    "any white space": (
        {"structured_outputs": {"json": TEXT, "disable_any_whitespace": False}},
        Constraint(Kind.JSON_SCHEMA, TEXT, any_whitespace=True),
    ),
    "guided_json": ({"guided_json": SCHEMA}, OF_SCHEMA),
    "guided_regex": ({"guided_regex": "a+"}, Constraint(Kind.REGEX, "a+")),
    "guided_choice": ({"guided_choice": ["a"]}, Constraint(Kind.CHOICE, '["a"]')),
    "guided_grammar": ({"guided_grammar": 'start: "a"'}, Constraint(Kind.GRAMMAR, 'start: "a"')),
    "json_schema of llama-server": ({"json_schema": SCHEMA}, OF_SCHEMA),
    "grammar": ({"grammar": 'root ::= "a"'}, Constraint(Kind.GRAMMAR, 'root ::= "a"')),
    "nothing": ({"grammar": "", "json_schema": {}, "guided_choice": [], "structured_outputs": {}}, None),
}
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown type": ({"response_format": {"type": "xml"}}, "response_format", "json_schema"),
    "no schema": ({"response_format": {"type": "json_schema"}}, "response_format", "missing"),
    "a keyword": (
        {"response_format": named({"properties": {"a": {"not": {}}}})},
        "response_format",
        "#/properties/a/not: 'not' is not supported",
    ),
    "no schema at all": ({"guided_json": "[1]"}, "guided_json", "JSON object"),
    "no JSON": ({"guided_json": "{"}, "guided_json", "not JSON"),
    "a pattern": ({"guided_regex": "(?=a)"}, "guided_regex", "lookahead"),
    "a grammar": ({"grammar": "root ::= x"}, "grammar", "'x' not found"),
    "an empty choice": ({"guided_choice": [""]}, "guided_choice", "at least one character"),
    "a grammar that is no text": (
        {"structured_outputs": {"grammar": {}}},
        "structured_outputs.grammar",
        "string",
    ),
    "an unknown option": (
        {"structured_outputs": {"whitespace_pattern": " "}},
        "structured_outputs.whitespace_pattern",
        "Unsupported",
    ),
    "two at once": ({"guided_regex": "a", "grammar": 'root ::= "a"'}, "grammar", "only one"),
    "triggers": ({"grammar": 'root ::= "a"', "grammar_lazy": True}, "grammar_lazy", "structural tags"),
}


@pytest.mark.parametrize(("path", "body"), ROUTES, ids=["chat", "text"])
@pytest.mark.parametrize(("fields", "wanted"), ASKED.values(), ids=ASKED.keys())
async def test_it_reaches_the_engine(
    api: Api,
    http: aiohttp.ClientSession,
    path: str,
    body: dict[str, Any],
    fields: dict[str, Any],
    wanted: Constraint | None,
) -> None:
    async with http.post(api.url + path, json={**body, **fields, "n": 2}) as response:
        assert response.status == 200, await response.text()
    assert [api.service.submitted.get_nowait().constraint for _ in range(2)] == [wanted, wanted]


@pytest.mark.parametrize(("path", "body"), ROUTES, ids=["chat", "text"])
@pytest.mark.parametrize(("fields", "param", "reason"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_be_enforced_is_refused_before_any_work(
    api: Api,
    http: aiohttp.ClientSession,
    path: str,
    body: dict[str, Any],
    fields: dict[str, Any],
    param: str,
    reason: str,
    stream: bool,
) -> None:
    async with http.post(api.url + path, json={**body, **fields, "stream": stream}) as response:
        error = (await response.json())["error"]
        assert (response.status, error["param"]) == (400, param)
        assert reason in error["message"]
    assert api.service.submitted.empty()
