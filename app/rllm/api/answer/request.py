"""A request, whichever door it came through. Limits of its fields are checked in `rllm.api.answer.checks`.

What a request says nothing about has its default here; where the model has one of its own, it is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from rllm.api.answer.constraints import Asked
from rllm.api.text.messages import Chat
from rllm.api.text.tokenizing import Prompt


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Doors whose fields have these names hand them over as they are; see `rllm.api.doors.openai.wire`."""

    prompts: Chat | tuple[Prompt, ...]
    """A conversation, or prompts that are written out."""
    id_prefix: str
    """Of the answer's id: "chatcmpl"."""
    prompts_name: str = "prompt"
    """What the door calls them, for errors."""
    logprobs_name: str = "logprobs"
    add_special_tokens: bool | None = None
    """Put BOS before a prompt that is written out. None: unless it begins with it."""
    echoes_prompts: bool = False
    """Each answer begins with its prompt."""
    echoed: str = ""
    """Each answer begins with this."""

    model: str | None = None
    stream: bool = False
    n: int = 1
    """Answers per prompt."""
    max_tokens: int | None = None
    default_max_tokens: int | None = None
    """Where max_tokens says nothing. None: as many as the context has room for."""
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] | list[int] = ()
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    """Keep so many tokens of each prompt. -1: as many as leave room for the answer."""
    truncation_side: Literal["left", "right"] = "left"

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_last_n: int = -1
    seed: int | None = None
    logit_bias: tuple[tuple[int | str, float], ...] = ()
    """Tokens by their ids or their texts."""
    allowed_token_ids: tuple[int, ...] | list[int] = ()
    """Nothing else is drawn. Empty: anything may be."""
    bad_words: tuple[str, ...] | list[str] = ()

    constraint: Asked | None = None
    """What each answer must match."""
    functions: Mapping[str, Any] = {}
    """That the model may call: name → schema of the parameters. Empty: calls are not looked for."""
    parallel_calls: bool = True
    """Several in one answer."""
    include_reasoning: bool = True

    num_logprobs: int = -1
    """Rivals of each token that are reported beside it; -1: not even its own log probability."""
    num_prompt_logprobs: int = -1
    """The same for the prompt's tokens, in a field of their own."""
    num_scored: int = -1
    """The same for the prompt's tokens, wherever they are reported."""
    reports_steps: bool = False
    """A stream says how things stand."""
    stream_interval: int = 1
    """Tokens that a chunk of a stream has, at least."""

    request_id: str | None = None
    """The end of the answer's id."""
    priority: int = 0
    cache_salt: str = ""
    cache_prompt: bool = True

    @property
    def num_prompts(self) -> int:
        return 1 if isinstance(self.prompts, Chat) else len(self.prompts)
