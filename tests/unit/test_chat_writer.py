"""A chat's parts as OpenAI's bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import orjson
import pytest

from rllm.api.answer.choice import Choice
from rllm.api.answer.job import Job
from rllm.api.answer.parts import CallArguments, CallBegin, CallEnd, End, Part, Reasoning, Refusal, Text
from rllm.api.answer.writer import Writer
from rllm.api.doors.openai_chat.wire import ChatCompletionRequest, to_request
from rllm.api.doors.openai_chat.writer import from_parts
from rllm.backends.fake.vocabulary import FakeVocabulary
from rllm.engine.types import EngineRequest, Event, FinishReason, ModelInfo, TokenLogprob
from rllm.serving.service import ServedModel

CALL: tuple[Part, ...] = (
    CallBegin(0, "call_1", "add"),
    CallArguments(0, '{"a":'),
    CallArguments(0, "1}"),
    CallEnd(0),
)


class Scripted:
    """A machine that makes the parts it was given, one list of them for every delta."""

    is_thinking = False

    def __init__(self, *lists: Sequence[Part]) -> None:
        self._lists = list(lists)

    def parts(self, delta: str) -> Sequence[Part]:
        return self._lists.pop(0) if delta else ()

    def rest(self) -> Sequence[Part]:
        return ()


def answer(machine: Scripted, **fields: Any) -> tuple[Choice, Writer]:
    body = {"messages": [{"role": "user", "content": "x"}], **fields}
    wire = ChatCompletionRequest.model_validate(body)
    info = ModelInfo(**dict.fromkeys(ModelInfo.__struct_fields__, 1))
    model = ServedModel("m", (), 0, info, FakeVocabulary())
    asked = EngineRequest(id="r", prompt=(1,), max_tokens=9)
    choice = Choice(0, machine)
    return choice, from_parts(wire)(Job(to_request(wire), model, [asked], "chatcmpl-1", 0), [choice])


def event(text: str, token: int = 1, finish: FinishReason | None = None) -> Event:
    logprobs = (TokenLogprob(token, -1.0, ()),)
    return Event(request_id="r", text=text, tokens=(token,), finish=finish, logprobs=logprobs)


def streamed(machine: Scripted, *events: Event, **fields: Any) -> list[dict[str, Any]]:
    """The choices of all chunks."""
    choice, writer = answer(machine, stream=True, **fields)
    data = b""
    for one in events:
        assert choice.add([one])
        delta = choice.delta()
        assert delta is not None
        data += writer.delta(choice, delta)
    return [json.loads(line[6:])["choices"][0] for line in data.splitlines() if line]


STREAMED = [
    pytest.param([Text("a")], [{"content": "a"}], id="text"),
    pytest.param([Reasoning("b")], [{"reasoning": "b", "reasoning_content": "b"}], id="reasoning"),
    pytest.param([Refusal("no")], [{"refusal": "no"}], id="refusal"),
    pytest.param(
        [Reasoning("b"), Text("a")], [{"reasoning": "b", "reasoning_content": "b"}, {"content": "a"}]
    ),
    pytest.param(
        CALL,
        [
            {
                "tool_calls": [
                    {
                        "index": 0,
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "add", "arguments": ""},
                    }
                ]
            },
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]},
        ],
        id="call",
    ),
    pytest.param([], [], id="held back"),
]


@pytest.mark.parametrize(("parts", "deltas"), STREAMED)
def test_each_part_is_a_chunk(parts: Sequence[Part], deltas: list[dict[str, Any]]) -> None:
    chunks = streamed(Scripted(parts), event("x"))
    assert [chunk["delta"] for chunk in chunks] == deltas
    assert all(chunk["finish_reason"] is None for chunk in chunks)


def test_arguments_are_told_as_they_come() -> None:
    begin, first, last, end = CALL
    chunks = streamed(Scripted([begin, first], [last, end]), event("x"), event("y"))
    told = [chunk["delta"]["tool_calls"][0]["function"]["arguments"] for chunk in chunks]
    assert told == ["", '{"a":', "1}"]


def test_the_end_comes_with_the_last_part_and_log_probabilities_with_the_first() -> None:
    parts = [Reasoning("b"), Text("a")]
    first, last = streamed(Scripted(parts), event("x", finish=FinishReason.STOP), logprobs=True)
    assert (first["finish_reason"], last["finish_reason"]) == (None, "stop")
    assert len(first["logprobs"]["content"]) == 1
    assert last["logprobs"] is None


def test_an_end_alone_is_an_empty_chunk() -> None:
    (chunk,) = streamed(Scripted([]), event("x", finish=FinishReason.LENGTH))
    assert (chunk["delta"], chunk["finish_reason"]) == ({}, "length")


def whole(parts: Sequence[Part]) -> dict[str, Any]:
    choice, writer = answer(Scripted(parts))
    choice.add([event("x", finish=FinishReason.STOP)])
    answered = cast(dict[str, Any], orjson.loads(writer.whole([choice.rest()])))
    return cast(dict[str, Any], answered["choices"][0])


def test_a_whole_message_has_all_parts() -> None:
    message = whole([Reasoning("b"), Reasoning("c"), Text("a")])["message"]
    assert message == {
        "role": "assistant",
        "content": "a",
        "refusal": None,
        "reasoning": "bc",
        "reasoning_content": "bc",
    }


def test_a_message_of_calls_has_no_content() -> None:
    message = whole(CALL)["message"]
    assert message["content"] is None
    (call,) = message["tool_calls"]
    assert (call["id"], call["function"]) == ("call_1", {"name": "add", "arguments": '{"a":1}'})


def test_calls_are_a_reason_to_end() -> None:
    class Calls(Scripted):
        def rest(self) -> Sequence[Part]:
            return (CallEnd(0),)

    choice, _ = answer(Calls([CallBegin(0, "call_1", "add"), CallArguments(0, "{}")]))
    choice.add([event("x", finish=FinishReason.STOP)])
    assert choice.rest().parts[-1] == End(FinishReason.STOP, called=True)
