"""POST /tokenize and /detokenize: the requests."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from rllm.api.doors.openai_chat.wire import ChatMessage, TemplateOptions
from rllm.api.fields.known_fields import refuse
from rllm.api.fields.types import TokenIds
from rllm.api.fields.wire import Limits, WireModel


class TokenizeRequest(TemplateOptions):
    """llama-server's ``content``, vLLM's ``prompt``, or a chat's ``messages``: exactly one of them."""

    example: ClassVar = {"content": "Hello"}

    model: Annotated[str, Field(max_length=512)] | None = None
    content: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=10_000)] | None = None
    add_special: bool | None = Field(
        None,
        description="Add the tokens that begin a text. Default: as the two servers do, on for `prompt` only.",
    )
    add_special_tokens: bool | None = Field(None, description="vLLM's name for add_special.")
    parse_special: bool | None = Field(None, description="Read control tokens written as text. Default: on.")
    with_pieces: bool | None = Field(None, description="Return the text of each token beside its id.")
    return_token_strs: bool | None = Field(None, description="vLLM's way: return the texts in `token_strs`.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("content", "prompt", "messages") if getattr(self, name) is not None]
        if len(given) != 1:
            raise refuse(
                f"exactly one of content, prompt and messages is needed; got {given or 'none'}",
                param="content",
            )
        if (
            self.messages is not None
            and (self.add_special, self.add_special_tokens, self.parse_special) != (None,) * 3
        ):
            raise refuse("with messages the chat template decides about special tokens", param="messages")
        return self


class DetokenizeRequest(WireModel):
    example: ClassVar = {"tokens": [1]}
    model: Annotated[str, Field(max_length=512)] | None = None
    tokens: TokenIds

    @classmethod
    def write_limits(cls, schema: dict[str, Any], limits: Limits) -> None:
        if limits.models:
            schema["properties"]["tokens"]["items"]["maximum"] = limits.vocab_size - 1
