"""What all requests have in common, whichever door they come through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

from rllm.api.fields.field_table import TABLE
from rllm.api.fields.known_fields import Place
from rllm.api.settings import ApiSettings


@dataclass(frozen=True, slots=True)
class Limits:
    """What the OpenAPI document says of fields, and only the running server knows."""

    settings: ApiSettings
    models: Sequence[str]
    """Their names. Empty as long as none is ready; the two below are 0 then."""
    context: int
    """Tokens, of the model that has most."""
    vocab_size: int


class WireModel(BaseModel):
    """Null asks for nothing in every field, known or not."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, json_schema_extra={"additionalProperties": {"type": "null"}}
    )
    place: ClassVar[Place | None] = None
    """Where its fields stand in the table of known ones."""
    example: ClassVar[dict[str, Any] | None] = None
    """For the OpenAPI document."""

    @model_validator(mode="before")
    @classmethod
    def _what_asks_for_something(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if cls.place is None:
            return {name: value for name, value in data.items() if value is not None}
        return TABLE.pick(cls.place, data)

    @classmethod
    def write_limits(cls, schema: dict[str, Any], limits: Limits) -> None:
        """Into the schema of this class."""


def typed(field: dict[str, Any], kind: str) -> dict[str, Any]:
    """The branch of an optional field's schema that is not null."""
    branch: dict[str, Any] = next(branch for branch in field["anyOf"] if branch.get("type") == kind)
    return branch
