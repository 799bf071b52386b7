"""Earlier calls and results, and tools, as each template takes them."""

from __future__ import annotations

from typing import Any

from rllm.api.text.formats.generic import UNKNOWN
from rllm.api.text.formats.history import for_template
from tests.formats.samples import format_of, render_of

QUESTION = {"role": "user", "content": "Weather?"}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Now.", "parameters": {}}}


def called(*ids: str, content: str | None = None) -> dict[str, Any]:
    calls = [
        {"id": each, "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
        for each in ids
    ]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def result(call_id: str, content: str = "Sun.") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def test_a_template_that_shows_everything_gets_it_in_its_form() -> None:
    form = format_of("Qwen-Qwen3-0.6B")
    shown, tools = for_template([QUESTION, called("call_1"), result("call_1")], [TOOL], form)
    assert tools == [TOOL]
    assert shown[1]["tool_calls"][0]["function"]["arguments"] == {"city": "Rome"}
    assert shown[2] == {
        "role": "tool", "tool_call_id": "call_1", "content": "Sun.", "name": "get_weather"
    }  # fmt: skip
    text = render_of("Qwen-Qwen3-0.6B")(shown, tools, {"add_generation_prompt": True})
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>' in text
    assert "<tool_response>\nSun.\n</tool_response>" in text


def test_a_template_without_tools_has_them_in_texts_of_roles_that_take_turns() -> None:
    form = format_of("own/no-tools")
    assert not form.takes_system
    shown, tools = for_template(
        [QUESTION, called("a", "b", content="Well."), result("a"), result("b", "Rain.")], [TOOL], form
    )
    assert tools is None
    assert [message["role"] for message in shown] == ["user", "assistant", "user"]
    assert '"name": "get_weather"' in shown[0]["content"]
    assert shown[0]["content"].endswith("\n\nWeather?")
    assert shown[1]["content"].startswith("Well.\n<tool_call>\n")
    assert shown[1]["content"].count("<tool_call>") == 2
    expected = "<tool_response>\nSun.\n</tool_response>\n<tool_response>\nRain.\n</tool_response>"
    assert shown[2]["content"] == expected
    assert "<tool_response>" in render_of("own/no-tools")(shown, None, {"add_generation_prompt": True})


def test_the_system_message_says_what_the_template_does_not() -> None:
    shown, _ = for_template([{"role": "system", "content": "Be brief."}, QUESTION], [TOOL], UNKNOWN)
    assert shown[0]["content"].startswith("Be brief.\n\nYou can call these functions")
    shown, _ = for_template([QUESTION], [TOOL], UNKNOWN)
    assert [message["role"] for message in shown] == ["system", "user"]
    told = for_template([QUESTION], [TOOL], format_of("deepseek-ai-DeepSeek-V3.1"))[0][0]["content"]
    assert "<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>" in told


def test_ids_are_made_to_fit_and_stay_the_same_for_call_and_result() -> None:
    form = format_of("mistralai-Mistral-Nemo-Instruct-2407")
    shown, _ = for_template([QUESTION, called("call_0123456789"), result("call_0123456789")], [], form)
    call_id = shown[1]["tool_calls"][0]["id"]
    assert len(call_id) == 9
    assert shown[2]["tool_call_id"] == call_id
    form = format_of("own/function-ids")
    shown, _ = for_template([QUESTION, called("x"), result("x"), called("y"), result("y")], [], form)
    assert [shown[2]["tool_call_id"], shown[4]["tool_call_id"]] == [
        "functions.get_weather:0",
        "functions.get_weather:1",
    ]


def test_a_thought_stands_where_the_template_looks_for_it() -> None:
    message = {"role": "assistant", "content": "Sun.", "reasoning": "Hm."}
    shown, _ = for_template([QUESTION, message], [], format_of("Qwen-Qwen3-0.6B"))
    assert shown[1]["reasoning_content"] == "Hm."


def test_without_tools_and_calls_nothing_changes() -> None:
    messages = [{"role": "system", "content": "Be brief."}, QUESTION, {"role": "assistant", "content": "No."}]
    assert for_template(messages, [], UNKNOWN) == (messages, None)
