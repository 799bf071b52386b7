"""Field types of the wire: strict (no "1" for 1, no true for 1), with one sentence per mistake.

JSON has one kind of number, so 16.0 is the integer 16.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from rllm.api.counts import DEFAULT_COUNTS, Counts
from rllm.api.fields.field_table import TABLE
from rllm.api.fields.known_fields import Place, refuse
from rllm.api.http.json_body import json_type, shorten
from rllm.api.text.tokenizing import Prompt

_LEAST = -(2**63)


def _integral(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        # orjson reads an integer below 64 bits as a float, and the first of them as the least of 64 bits
        return _LEAST - 1 if value == _LEAST else int(value)
    return value


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

RequestId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
MAX_WORD = 256
Word = Annotated[str, Field(min_length=1, max_length=MAX_WORD)]
"""A text that stands for tokens."""
TokenList = Annotated[list[Annotated[int, Field(ge=0, le=_MOST), Integer]], Field(max_length=4096)]
Variables = Annotated[dict[str, Any], Field(max_length=256)]
"""JSON for a chat template."""


def _counts(info: ValidationInfo) -> Counts:
    counts: Counts = info.context() if callable(info.context) else DEFAULT_COUNTS
    return counts


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


def _logit_bias(value: object, info: ValidationInfo) -> tuple[tuple[int | str, float], ...]:
    """OpenAI's object, or llama-server's array of pairs; tokens by id or by text."""
    if value is None:
        return ()
    if isinstance(value, dict | list) and len(value) > (most := _counts(info).logit_bias):
        raise refuse(f"logit_bias must have at most {most} entries; got {len(value)}")
    if isinstance(value, dict):
        return tuple((_bias_key(key), _bias_value(key, bias)) for key, bias in value.items())
    if not isinstance(value, list):
        raise refuse(
            f"logit_bias must be an object or an array of pairs; got {json_type(value)}", code="invalid_type"
        )
    found = []
    for index, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            raise refuse(f"logit_bias[{index}] must be a pair of token and number; got {json_type(pair)}")
        found.append((_bias_token(pair[0], index), _bias_value(str(index), pair[1])))
    return tuple(found)


def _bias_key(key: str) -> int | str:
    if key.isascii() and key.isdigit() and len(key) <= 10:
        return int(key)
    if not 0 < len(key) <= MAX_WORD:
        raise refuse(f"logit_bias has token ids or texts of 1 to {MAX_WORD} characters; got '{shorten(key)}'")
    return key


def _bias_token(token: object, index: int) -> int | str:
    if type(token) is int and token >= 0:
        return token
    if isinstance(token, str) and 0 < len(token) <= MAX_WORD:
        return token
    raise refuse(f"logit_bias[{index}] must begin with a token id or a text; got {json_type(token)}")


def _bias_value(key: str, bias: object) -> float:
    if bias is False:  # llama-server's ban
        return -math.inf
    if isinstance(bias, bool) or not isinstance(bias, int | float):
        raise refuse(f"logit_bias['{key}'] must be a number; got {json_type(bias)}", code="invalid_type")
    if not -100 <= bias <= 100:
        raise refuse(f"logit_bias['{key}'] must be between -100 and 100; got {shorten(bias)}")
    return float(bias)


_LOGIT_BIAS_SCHEMA: dict[str, Any] = {
    "description": "Token, by its id or its text, to a number added to its logit; -100 or false bans it."
    " A text of several tokens stands for each of them.",
    "anyOf": [
        {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]{1,4}$"},
            "additionalProperties": {
                "anyOf": [{"type": "number", "minimum": -100, "maximum": 100}, {"const": False}]
            },
        },
        {"type": "array", "items": {"type": "array", "minItems": 2, "maxItems": 2}},
        {"type": "null"},
    ],
}
LogitBias = Annotated[
    tuple[tuple[int | str, float], ...],
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


def _prompts(value: object, info: ValidationInfo) -> tuple[Prompt, ...]:
    counts = _counts(info)
    match value:
        case str():
            return (value,)
        case [_, *_] if {int, float}.intersection(map(type, value)):
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
        case str():
            return value
        case []:
            raise refuse(f"{where} must not be empty")
        case list():
            if len(value) > counts.prompt_tokens:
                raise refuse(
                    f"{where} has {len(value)} tokens; the longest context here has {counts.prompt_tokens}",
                    code="context_length_exceeded",
                )
            return _token_ids(value, where, texts=True)
        case _:
            raise refuse(
                f"{where} must be a string or token ids; got {json_type(value)}", code="invalid_type"
            )


def _token_ids(values: list[object], where: str, *, texts: bool = False) -> tuple[int | str, ...]:
    """All at once: one by one, a million would take half a second. ``texts``: may stand between them."""
    if set(map(type, values)) == {int}:
        return tuple(cast("list[int]", values))
    for index, item in enumerate(values):
        is_id = type(item) is int or (type(item) is float and item.is_integer())
        if not is_id and not (texts and isinstance(item, str)):
            wanted = "a token id or a text" if texts else "a token id"
            raise refuse(f"{where}[{index}] must be {wanted}; got {json_type(item)}", code="invalid_type")
    return tuple(item if isinstance(item, str) else int(cast(float, item)) for item in values)


def _tokens(value: object) -> tuple[int | str, ...]:
    if not isinstance(value, list):
        raise refuse(f"{{path}} must be an array; got {json_type(value)}", code="invalid_type")
    return _token_ids(value, "{path}") if value else ()


_TOKEN_ID_SCHEMA: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_TOKEN_IDS_SCHEMA: dict[str, Any] = {
    "description": "Token ids; texts may stand between them.",
    "type": "array",
    "minItems": 1,
    "items": {"anyOf": [_TOKEN_ID_SCHEMA, {"type": "string"}]},
}
TokenIds = Annotated[
    tuple[int, ...],
    PlainValidator(_tokens),
    WithJsonSchema({"type": "array", "items": _TOKEN_ID_SCHEMA}),
]
_TEXT_SCHEMA: dict[str, Any] = {"type": "string"}
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
