"""The answers as types: for the OpenAPI document and the tests, no answer passes through them."""

from __future__ import annotations

from typing import Literal

from rllm.api.doors.documented import AnswerModel
from rllm.api.doors.openai.answers import PromptLogprobs, Timings, Usage


class TopLogprob(AnswerModel):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(AnswerModel):
    content: list[TokenLogprob]
    refusal: None


class CalledFunction(AnswerModel):
    name: str
    arguments: str


class Call(AnswerModel):
    id: str
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(AnswerModel):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = None


class ChatChoice(AnswerModel):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]
    token_ids: list[int] | None = None


class ChatCompletion(AnswerModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    timings: Timings | None = None
    prompt_logprobs: PromptLogprobs | None = None
    prompt_token_ids: list[int] | None = None
