"""A chat's answer: messages and their deltas."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from rllm.api.answer.choice import Choice, Delta, Totals
from rllm.api.answer.parts import CallArguments, CallBegin, End, Part, Reasoning, Refusal, Text
from rllm.api.answer.writer import NewWriter
from rllm.api.doors.openai import figures
from rllm.api.doors.openai.writer import OpenAiWriter
from rllm.api.doors.openai_chat.wire import ChatCompletionRequest
from rllm.engine.types import FinishReason, TokenLogprob


def from_parts(wire: ChatCompletionRequest) -> NewWriter:
    kind = "chat.completion.chunk" if wire.stream else "chat.completion"
    return partial(ChatWriter, wire, kind)


class ChatWriter(OpenAiWriter):
    def opening(self, index: int) -> bytes:
        echo = self._job.echo[index] if self._job.echo else ""
        body = {"index": index, "delta": {"role": "assistant", "content": echo, "refusal": None}}
        of_chunk = self._prompt_ids(index) if index == 0 else {}
        if self._wire.continuous_usage:
            of_chunk["usage"] = figures.usage(Totals(self._job.prompt_tokens, 0, 0))
        return self._chunk(body, of_chunk=of_chunk)

    def _body(self, index: int, part: Part) -> dict[str, Any] | None:
        delta = _delta(part)
        return None if delta is None else {"index": index, "delta": delta}

    def _empty(self, index: int) -> dict[str, Any]:
        return {"index": index, "delta": {}}

    def _logprobs(self, choice: Choice, items: Sequence[TokenLogprob]) -> dict[str, Any]:
        return self._shape.chat(items)

    def _finish(self, delta: Delta) -> str | None:
        end = delta.parts[-1] if delta.parts else None
        if isinstance(end, End) and end.called and end.finish is FinishReason.STOP:
            return "tool_calls"
        return super()._finish(delta)

    def _choice(self, choice: Choice, delta: Delta) -> dict[str, Any]:
        return {**super()._choice(choice, delta), "message": self._message(choice.index, delta.parts)}

    def _message(self, index: int, parts: Sequence[Part]) -> dict[str, Any]:
        text = "".join(part.text for part in parts if isinstance(part, Text))
        reasoning = "".join(part.text for part in parts if isinstance(part, Reasoning))
        refusal = "".join(part.text for part in parts if isinstance(part, Refusal))
        calls = _calls(parts)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": (self._job.echo[index] if self._job.echo else "") + text,
            "refusal": refusal or None,
        }
        if calls or refusal:
            message["content"] = message["content"] or None
        if reasoning:
            message["reasoning"] = message["reasoning_content"] = reasoning
        if calls:
            message["tool_calls"] = calls
        return message

    def _of_answer(self) -> dict[str, Any]:
        return self._prompt_logprobs(self._choices[0]) | self._prompt_ids(0)


def _delta(part: Part) -> dict[str, Any] | None:
    match part:
        case Text(text):
            return {"content": text}
        case Reasoning(text):  # vLLM's name, and DeepSeek's
            return {"reasoning": text, "reasoning_content": text}
        case Refusal(text):
            return {"refusal": text}
        case CallBegin(index, id, name):
            call = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
            return {"tool_calls": [call]}
        case CallArguments(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}
        case _:
            return None


def _calls(parts: Sequence[Part]) -> list[dict[str, Any]]:
    """The calls of a whole message; arguments follow the beginning of their call."""
    calls: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, CallBegin):
            calls.append(
                {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": ""}}
            )
        elif isinstance(part, CallArguments):
            calls[part.index]["function"]["arguments"] += part.text
    return calls
