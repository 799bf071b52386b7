"""The OpenAPI document, with the limits that only the running server knows written into it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from rllm.api.doors.live import live_state
from rllm.api.fields.field_table import TABLE
from rllm.api.fields.known_fields import SameAs, Use
from rllm.api.fields.protocol import (
    ChatCompletionRequest,
    ChatMessage,
    CompletionRequest,
    DetokenizeRequest,
    StreamOptions,
    TokenizeRequest,
)
from rllm.api.http.authorization import OPEN
from rllm.api.settings import ApiSettings
from rllm.serving.service import Service

_REQUESTS = (ChatCompletionRequest, CompletionRequest, TokenizeRequest, DetokenizeRequest)
_EXAMPLES: dict[str, dict[str, Any]] = {
    "ChatCompletionRequest": {
        "messages": [{"role": "user", "content": "What is the capital of South Korea?"}],
        "max_tokens": 16,
    },
    "CompletionRequest": {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0},
    "TokenizeRequest": {"content": "Hello"},
    "DetokenizeRequest": {"tokens": [1]},
}

Schema = dict[str, Any]
_NULL: Schema = {"type": "null"}


def build(app: FastAPI, service: Service, settings: ApiSettings, *, needs_key: bool) -> Schema:
    document: Schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    _, definitions = models_json_schema(
        [(model, "validation") for model in _REQUESTS], ref_template="#/components/schemas/{model}"
    )
    schemas.update(definitions["$defs"])
    schemas.update(live_state.schemas())
    for name, example in _EXAMPLES.items():
        schemas[name]["example"] = example
    _write_limits(schemas, settings)
    _write_models(document, schemas, service)
    _write_known_fields(schemas)
    _write_content(schemas)
    if needs_key:
        _write_security(document, settings)
    return document


def _write_known_fields(schemas: Schema) -> None:
    """What is accepted beside the honoured fields: anything, or values that ask for nothing."""
    for model in (*_REQUESTS, ChatMessage, StreamOptions):
        if model.place is None:
            continue
        fields = schemas[model.__name__]["properties"]
        for row in TABLE.at(model.place).values():
            if row.use is Use.NO_EFFECT:
                fields[row.name] = {"description": f"No effect: {row.note}."}
            elif row.use is Use.REFUSED:
                values = [None, *(value for value in row.neutral if not isinstance(value, SameAs))]
                fields[row.name] = {"description": f"Nothing else: {row.note}.", "enum": values}
            elif row.use is Use.RENAMED:
                fields[row.name] = {**fields[row.other], "description": f"Another name of {row.other}."}


def _write_content(schemas: Schema) -> None:
    """Only an assistant's message may be without."""
    text = next(kind for kind in schemas["ChatMessage"]["properties"]["content"]["anyOf"] if kind != _NULL)
    schemas["ChatMessage"]["anyOf"] = [
        {"required": ["content"], "properties": {"content": text}},
        {"properties": {"role": {"const": "assistant"}}},
    ]


def _write_limits(schemas: Schema, settings: ApiSettings) -> None:
    for name in ("ChatCompletionRequest", "CompletionRequest"):
        fields = schemas[name]["properties"]
        _typed(fields["n"], "integer")["maximum"] = settings.max_n
        text, several, _ = fields["stop"]["anyOf"]
        text["maxLength"] = several["items"]["maxLength"] = settings.max_stop_chars
        several["maxItems"] = settings.counts.stop_strings
        fields["logit_bias"]["anyOf"][0]["maxProperties"] = settings.counts.logit_bias
        fields["logit_bias"]["anyOf"][1]["maxItems"] = settings.counts.logit_bias
    prompts = schemas["CompletionRequest"]["properties"]["prompt"]["anyOf"]
    for several in (prompts[1], prompts[3]):
        several["maxItems"] = settings.counts.prompts


def _write_models(document: Schema, schemas: Schema, service: Service) -> None:
    """Names, context and vocabulary; with several models, the widest of them."""
    models = service.models()
    if not models:
        return
    names = [name for model in models for name in (model.id, *model.aliases)]
    context = max(model.info.ctx_per_slot for model in models)
    last_token = max(model.info.vocab_size for model in models) - 1
    for request in _REQUESTS:
        fields = schemas[request.__name__]["properties"]
        _typed(fields["model"], "string")["enum"] = names
        if "min_tokens" in fields:
            _typed(fields["min_tokens"], "integer")["maximum"] = context
    prompts = schemas["CompletionRequest"]["properties"]["prompt"]["anyOf"]
    for tokens in (prompts[2], prompts[3]["items"]):
        tokens["items"]["anyOf"][0]["maximum"] = last_token
    schemas["DetokenizeRequest"]["properties"]["tokens"]["items"]["maximum"] = last_token
    prompts[2]["maxItems"] = prompts[3]["items"]["maxItems"] = max(context - 1, 1)
    for name in ("ChatCompletionRequest", "CompletionRequest"):
        fields = schemas[name]["properties"]
        ids = _ids_below(last_token + 1)
        fields["logit_bias"]["anyOf"][0]["propertyNames"] = {"pattern": f"{ids}|[^0-9]", "maxLength": 256}
        for listed in ("stop_token_ids", "allowed_token_ids"):
            _typed(fields[listed], "array")["items"]["maximum"] = last_token
    path = document["paths"]["/v1/models/{model}"]["get"]
    path["parameters"][0]["schema"]["enum"] = names


def _ids_below(count: int) -> str:
    """A pattern for decimal ids that surely exist: those with fewer digits than ``count``."""
    digits = max(len(str(count)) - 1, 1)
    return f"^(0|[1-9][0-9]{{0,{digits - 1}}})$" if count >= 10 else f"^[0-{count - 1}]$"


def _typed(field: Schema, kind: str) -> Schema:
    """The branch of an optional field that is not null."""
    branch: Schema = next(branch for branch in field["anyOf"] if branch.get("type") == kind)
    return branch


def _write_security(document: Schema, settings: ApiSettings) -> None:
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    open_paths = OPEN | ({"/metrics"} if settings.open_metrics else set())
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if path in open_paths else [{"bearer": []}, {"x-api-key": []}]
