"""What an answer must match, out of the fields in which OpenAI, vLLM and llama-server ask for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import orjson

from rllm.api.answer.constraints import Asked
from rllm.engine.constraint import Constraint, Kind
from rllm.errors import BadRequest, ConstraintRefused

_OUTPUT_KINDS = {
    "json": Kind.JSON_SCHEMA,
    "regex": Kind.REGEX,
    "choice": Kind.CHOICE,
    "grammar": Kind.GRAMMAR,
    "json_object": Kind.JSON_OBJECT,
    "structural_tag": Kind.STRUCTURAL_TAG,
}
"""Of vLLM's `structured_outputs`."""
_FIELDS = {
    "guided_json": Kind.JSON_SCHEMA,
    "guided_regex": Kind.REGEX,
    "guided_choice": Kind.CHOICE,
    "guided_grammar": Kind.GRAMMAR,
    "json_schema": Kind.JSON_SCHEMA,
    "grammar": Kind.GRAMMAR,
}
_TEXT_KINDS = (Kind.REGEX, Kind.GRAMMAR)


class Fields(Protocol):
    """Of `GenerationRequest`, and those that `_FIELDS` names."""

    @property
    def response_format(self) -> dict[str, Any] | None: ...

    @property
    def structured_outputs(self) -> dict[str, Any] | None: ...


def asked(request: Fields) -> Asked | None:
    """
    Raises:
        BadRequest: several fields ask, or one does not say what for.
    """
    found = [*_of_response_format(request), *_of_structured_outputs(request), *_of_fields(request)]
    if len(found) > 1:
        names = " and ".join(one.param for one in found)
        raise BadRequest(
            f"{names}: only one of them may say what the answer must match", param=found[1].param
        )
    return found[0] if found else None


def _of_response_format(request: Fields) -> Iterator[Asked]:
    asked_for = request.response_format
    if asked_for is None:
        return
    param = "response_format"
    match asked_for.get("type"):
        case "text":
            return
        case "json_object" if "schema" not in asked_for:
            yield Asked(Constraint(Kind.JSON_OBJECT), param)
        case "json_object":
            yield _asked(Kind.JSON_SCHEMA, asked_for["schema"], param)
        case "json_schema":
            inner = asked_for.get("json_schema")
            if not isinstance(inner, dict) or inner.get("schema") is None:
                raise BadRequest("response_format.json_schema.schema is missing", param=param)
            yield _asked(Kind.JSON_SCHEMA, inner["schema"], param)
        case "structural_tag":
            yield _asked(Kind.STRUCTURAL_TAG, asked_for, param)
        case other:
            known = "text, json_object, json_schema or structural_tag"
            raise BadRequest(f"response_format.type must be {known}; got {str(other)[:40]!r}", param=param)


def _of_structured_outputs(request: Fields) -> Iterator[Asked]:
    options = dict(request.structured_outputs or {})
    loose = options.pop("disable_any_whitespace", None) is False
    for name, value in options.items():
        kind, param = _OUTPUT_KINDS.get(name), f"structured_outputs.{name}"
        if value is None or (kind is Kind.JSON_OBJECT and value is False):
            continue
        if kind is None:
            raise BadRequest(f"Unsupported parameter: '{param}'.", param=param, code="unsupported_parameter")
        yield _asked(kind, value, param, any_whitespace=loose)


def _of_fields(request: Fields) -> Iterator[Asked]:
    for name, kind in _FIELDS.items():
        value = getattr(request, name)
        if value or (value is not None and name == "guided_json"):  # the others ask for nothing when empty
            yield _asked(kind, value, name)


def _asked(kind: Kind, value: Any, param: str, *, any_whitespace: bool = False) -> Asked:
    if kind is Kind.JSON_OBJECT:
        source = ""
    elif isinstance(value, str):
        source = value
    elif kind in _TEXT_KINDS or not isinstance(value, Mapping | list | bool):
        raise BadRequest(f"{param} must be a string", param=param)
    else:
        try:
            source = orjson.dumps(value).decode()
        except TypeError:  # its word for what is nested too deeply
            raise ConstraintRefused("#", "nested too deeply", param=param) from None
    return Asked(Constraint(kind, source, any_whitespace), param)
