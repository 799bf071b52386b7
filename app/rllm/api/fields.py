"""Field types of the wire: strict (no "1" for 1, no true for 1), with one sentence per mistake.

JSON has one kind of number, so 16.0 is the integer 16.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from rllm.api.counts import DEFAULT_COUNTS, Counts
from rllm.api.field_table import TABLE
from rllm.api.json_body import json_type, shorten
from rllm.api.known_fields import Place, refuse


def _integral(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = BeforeValidator(_integral)
"""Put into every ``Annotated[int, …]``."""

_MOST = 2**31 - 1
_ALL_ROOM = BeforeValidator(lambda value: _MOST if _integral(value) == -1 else _integral(value))
"""-1, as llama-server has it, is as many as there is room for."""
MaxTokens = Annotated[
    int, Field(ge=1, le=_MOST, json_schema_extra={"minimum": -1, "not": {"const": 0}}), _ALL_ROOM
]
MaxTokensOrNone = Annotated[int, Field(ge=0, le=_MOST, json_schema_extra={"minimum": -1}), _ALL_ROOM]

Role = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
"""Any word: the chat template says whether it takes it."""


def _counts(info: ValidationInfo) -> Counts:
    return info.context if isinstance(info.context, Counts) else DEFAULT_COUNTS


def _stop(value: object, info: ValidationInfo) -> tuple[str, ...]:
    if value is None:
        return ()
    strings = [value] if isinstance(value, str) else value
    if not isinstance(strings, list):
        raise refuse(
            f"stop must be a string or an array of strings; got {json_type(value)}", code="invalid_type"
        )
    if len(strings) > (most := _counts(info).stop_strings):
        raise refuse(f"stop must have at most {most} strings; got {len(strings)}")
    for index, item in enumerate(strings):
        if not isinstance(item, str):
            raise refuse(f"stop[{index}] must be a string; got {json_type(item)}", code="invalid_type")
        if not item:
            raise refuse(f"stop[{index}] must not be empty")
    return tuple(strings)


_STOP_SCHEMA: dict[str, Any] = {
    "description": "Up to so many strings; the answer ends before the first of them that appears.",
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "string", "minLength": 1}},
        {"type": "null"},
    ],
}
Stop = Annotated[
    tuple[str, ...],
    PlainValidator(_stop),
    WithJsonSchema(_STOP_SCHEMA),
]


def _logit_bias(value: object, info: ValidationInfo) -> tuple[tuple[int, float], ...]:
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise refuse(
            f"logit_bias must be an object of token id to number; got {json_type(value)}", code="invalid_type"
        )
    if len(value) > (most := _counts(info).logit_bias):
        raise refuse(f"logit_bias must have at most {most} entries; got {len(value)}")
    return tuple((_bias_token(key), _bias_value(key, bias)) for key, bias in value.items())


def _bias_token(key: str) -> int:
    if not (key.isascii() and key.isdigit() and len(key) <= 10):
        raise refuse(f"logit_bias has token ids as keys; got '{shorten(key)}'")
    return int(key)


def _bias_value(key: str, bias: object) -> float:
    if isinstance(bias, bool) or not isinstance(bias, int | float):
        raise refuse(f"logit_bias['{key}'] must be a number; got {json_type(bias)}", code="invalid_type")
    if not -100 <= bias <= 100:
        raise refuse(f"logit_bias['{key}'] must be between -100 and 100; got {shorten(bias)}")
    return float(bias)


_LOGIT_BIAS_SCHEMA: dict[str, Any] = {
    "description": "Token id to a number added to that token's logit; -100 bans it.",
    "anyOf": [
        {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]{1,4}$"},
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        },
        {"type": "null"},
    ],
}
LogitBias = Annotated[
    tuple[tuple[int, float], ...],
    PlainValidator(_logit_bias),
    WithJsonSchema(_LOGIT_BIAS_SCHEMA),
]


def _content(value: object) -> str:
    """Text parts are joined by newlines, as llama-server and vLLM do."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise refuse(
            f"{{path}} must be a string or an array of text parts; got {json_type(value)}",
            code="invalid_type",
        )
    if not value:
        raise refuse("{path} must have at least one part")
    return "\n".join(_text_part(part, index) for index, part in enumerate(value))


def _text_part(part: object, index: int) -> str:
    """Of ``text``, or of an earlier answer's ``refusal``."""
    where = f"{{path}}[{index}]"
    if not isinstance(part, dict):
        raise refuse(f"{where} must be an object; got {json_type(part)}", code="invalid_type")
    kind = part.get("type")
    if kind not in ("text", "refusal"):
        raise refuse(f"{where}.type must be 'text': this server takes text only; got {json_type(kind)}")
    text = TABLE.pick(Place.PART, part, at=f"[{index}].").get(kind)
    if not isinstance(text, str):
        raise refuse(f"{where}.{kind} must be a string; got {json_type(text)}", code="invalid_type")
    return text


_CONTENT_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
                "required": ["type", "text"],
                "additionalProperties": {"type": "null"},
            },
        },
    ]
}
Content = Annotated[str, PlainValidator(_content), WithJsonSchema(_CONTENT_SCHEMA)]


Prompt = str | tuple[int, ...]


def _prompts(value: object, info: ValidationInfo) -> tuple[Prompt, ...]:
    counts = _counts(info)
    match value:
        case str():
            return (_prompt(value, "prompt", counts),)
        case [int() | float(), *_]:
            return (_prompt(value, "prompt", counts),)
        case [_, *_] if len(value) > counts.prompts:
            raise refuse(f"prompt must hold at most {counts.prompts} prompts; got {len(value)}")
        case [_, *_]:
            return tuple(_prompt(item, f"prompt[{index}]", counts) for index, item in enumerate(value))
        case []:
            raise refuse("prompt must not be empty")
        case _:
            raise refuse(
                f"prompt must be a string, an array of strings, or token ids; got {json_type(value)}",
                code="invalid_type",
            )


def _prompt(value: object, where: str, counts: Counts) -> Prompt:
    match value:
        case "" | []:
            raise refuse(f"{where} must not be empty")
        case str():
            return value
        case list():
            if len(value) > counts.prompt_tokens:
                raise refuse(
                    f"{where} has {len(value)} tokens; the longest context here has {counts.prompt_tokens}",
                    code="context_length_exceeded",
                )
            return _token_ids(value, where)
        case _:
            raise refuse(
                f"{where} must be a string or token ids; got {json_type(value)}", code="invalid_type"
            )


def _token_ids(values: list[object], where: str) -> tuple[int, ...]:
    """All at once: one by one, a million would take half a second."""
    if set(map(type, values)) != {int}:
        for index, item in enumerate(values):
            if type(item) is not int and not (type(item) is float and item.is_integer()):
                raise refuse(
                    f"{where}[{index}] must be a token id; got {json_type(item)}", code="invalid_type"
                )
    return tuple(map(int, cast("list[float]", values)))


def _tokens(value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise refuse(f"{{path}} must be an array; got {json_type(value)}", code="invalid_type")
    return _token_ids(value, "{path}") if value else ()


_TOKEN_IDS_SCHEMA: dict[str, Any] = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
}
TokenIds = Annotated[
    tuple[int, ...],
    PlainValidator(_tokens),
    WithJsonSchema({key: value for key, value in _TOKEN_IDS_SCHEMA.items() if key != "minItems"}),
]
_TEXT_SCHEMA: dict[str, Any] = {"type": "string", "minLength": 1}
_PROMPT_SCHEMA: dict[str, Any] = {
    "description": "One prompt or several, each as text or as token ids.",
    "anyOf": [
        _TEXT_SCHEMA,
        {"type": "array", "minItems": 1, "items": _TEXT_SCHEMA},
        _TOKEN_IDS_SCHEMA,
        {"type": "array", "minItems": 1, "items": _TOKEN_IDS_SCHEMA},
    ],
}
Prompts = Annotated[tuple[Prompt, ...], PlainValidator(_prompts), WithJsonSchema(_PROMPT_SCHEMA)]
