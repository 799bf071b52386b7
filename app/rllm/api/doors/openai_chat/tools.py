"""Tools in a chat's request: what may be called, and what was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from rllm.api.fields.known_fields import refuse
from rllm.api.fields.wire import WireModel

_NAME = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9_./-]+$")]
_UNCONSTRAINED = "this server does not constrain calls yet"


class Function(WireModel):
    name: _NAME
    description: Annotated[str, Field(max_length=100_000)] | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _is_not_strict(self) -> Self:
        if self.strict:
            raise refuse(
                f"Unsupported parameter: '{{path}}': {_UNCONSTRAINED}.",
                field="strict",
                code="unsupported_parameter",
            )
        return self

    def told(self) -> dict[str, Any]:
        """As OpenAI has it, for a template."""
        return {"type": "function", "function": self.model_dump(exclude_none=True)}


class Tool(WireModel):
    type: Literal["function"]
    function: Function


class CalledFunction(WireModel):
    name: _NAME
    arguments: str = Field(description="A JSON object as text.")

    @model_validator(mode="after")
    def _has_an_object(self) -> Self:
        try:
            found = json.loads(self.arguments or "{}")
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise refuse("{path} must be a JSON object as text", field="arguments")
        return self


class Call(WireModel):
    id: Annotated[str, Field(min_length=1, max_length=128)]
    type: Literal["function"] | None = None
    function: CalledFunction
    index: int | None = None

    def told(self) -> dict[str, Any]:
        return {"id": self.id, "type": "function", "function": self.function.model_dump()}


def allowed(functions: Sequence[Function], choice: object, *, field: str) -> list[Function]:
    """Those that may be called.

    Raises:
        PydanticCustomError: a choice that must be constrained, or that makes no sense.
    """
    _refuse_twins(functions)
    match choice:
        case None | "auto":
            return list(functions)
        case "none":
            return []
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [*tools]}}:
            return [_named(functions, tool, field) for tool in tools]
        case "required" | {"type": "function"} | {"name": _} | {"type": "allowed_tools"}:
            raise refuse(
                f"Unsupported parameter: '{field}': only 'auto', 'none' and allowed_tools with mode 'auto'"
                f" are supported: {_UNCONSTRAINED}.",
                param=field,
                code="unsupported_parameter",
            )
        case _:
            raise refuse(f"{field} must be 'auto', 'none', 'required' or name a function", param=field)


def _refuse_twins(functions: Sequence[Function]) -> None:
    seen: set[str] = set()
    for function in functions:
        if function.name in seen:
            raise refuse(f"tools has two functions with the name '{function.name}'", param="tools")
        seen.add(function.name)


def _named(functions: Sequence[Function], tool: object, field: str) -> Function:
    match tool:
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            for function in functions:
                if function.name == name:
                    return function
    raise refuse(f"{field} names a function that is not in tools", param=field)
