"""The OpenAPI document, with the limits that only the running server knows written into it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from rllm.api.doors.door import Door
from rllm.api.fields.field_table import TABLE
from rllm.api.fields.known_fields import SameAs, Use
from rllm.api.fields.wire import Limits, WireModel, typed
from rllm.api.http.authorization import OPEN
from rllm.api.settings import ApiSettings
from rllm.serving.service import Service

Schema = dict[str, Any]


def build(
    app: FastAPI, doors: Sequence[Door], service: Service, settings: ApiSettings, *, needs_key: bool
) -> Schema:
    document: Schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    wires = [wire for door in doors for wire in door.wires]
    _, definitions = models_json_schema(
        [(wire, "validation") for wire in wires], ref_template="#/components/schemas/{model}"
    )
    schemas.update(definitions["$defs"])
    for door in doors:
        schemas.update(door.schemas())
    limits = _limits(service, settings)
    for wire in wires:
        schema = schemas[wire.__name__]
        if wire.example is not None:
            schema["example"] = wire.example
        wire.write_limits(schema, limits)
        if limits.models and "model" in schema["properties"]:
            typed(schema["properties"]["model"], "string")["enum"] = limits.models
    _write_models(document, limits)
    _write_known_fields(schemas, wires)
    if needs_key:
        _write_security(document, settings)
    return document


def _limits(service: Service, settings: ApiSettings) -> Limits:
    """With several models, the widest of them."""
    models = service.models()
    return Limits(
        settings,
        models=[name for model in models for name in (model.id, *model.aliases)],
        context=max((model.info.ctx_per_slot for model in models), default=0),
        vocab_size=max((model.info.vocab_size for model in models), default=0),
    )


def _write_models(document: Schema, limits: Limits) -> None:
    """Names, where a path has one."""
    for path in document["paths"].values() if limits.models else ():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if (parameter["in"], parameter["name"]) == ("path", "model"):
                    parameter["schema"]["enum"] = limits.models


def _write_known_fields(schemas: Schema, wires: Iterable[type[WireModel]]) -> None:
    """What is accepted beside the honoured fields: anything, or values that ask for nothing."""
    for wire in wires:
        if wire.place is None:
            continue
        fields = schemas[wire.__name__]["properties"]
        for row in TABLE.at(wire.place).values():
            if row.use is Use.NO_EFFECT:
                fields[row.name] = {"description": f"No effect: {row.note}."}
            elif row.use is Use.REFUSED:
                values = [None, *(value for value in row.neutral if not isinstance(value, SameAs))]
                fields[row.name] = {"description": f"Nothing else: {row.note}.", "enum": values}
            elif row.use is Use.RENAMED:
                fields[row.name] = {**fields[row.other], "description": f"Another name of {row.other}."}


def _write_security(document: Schema, settings: ApiSettings) -> None:
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    open_paths = OPEN | ({"/metrics"} if settings.open_metrics else set())
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if path in open_paths else [{"bearer": []}, {"x-api-key": []}]
