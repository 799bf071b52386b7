"""Answers that are not quite what the format says, and what becomes of them."""

from __future__ import annotations

import re

import pytest

from rllm.api.answer.parts import CallArguments, CallBegin, CallEnd, Reasoning, Text
from rllm.api.text.formats.generic import GENERIC_TOOLS
from rllm.api.text.formats.parser import AnswerParser, new_id
from rllm.api.text.formats.shapes import AnswerFormat, IdForm, ReasoningFormat
from tests.formats.samples import SCHEMAS, format_of, parse

THINKS = AnswerFormat(tools=GENERIC_TOOLS, reasoning=ReasoningFormat(begin="<think>\n", end="\n</think>\n\n"))
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
ROME = ("get_weather", {"city": "Rome"})


@pytest.mark.parametrize(
    "text",
    [
        "2 < 3 <tool_call",
        "<tool_call>",
        "<tool_call>\nno JSON\n</tool_call>",
        '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": }}\n</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": [1]}\n</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Ro',
        '<tool_call>\n{"name": ["get_weather"]}',
        '<tool_call>\n{"arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": "{"}\n</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": {}} and more',
        '{"name": "get_weather", "arguments": {}}',
        "  spaces are kept  \n",
    ],
)
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_what_is_no_call_stays_text(text: str, size: int) -> None:
    told, source = parse(THINKS, text, size)
    assert (told.text, told.begins, source) == (text, [], text)


@pytest.mark.parametrize(
    "written",
    [
        '{"arguments": {"city": "Rome"}, "name": "get_weather"}',
        '{"name":"get_weather","parameters":{"city":"Rome"}}',
        '{"name" : "get_weather" , "arguments" : {"city": "Rome"}, "id": "x"}',
        '{"name": "get_weather", "arguments": "{\\"city\\": \\"Rome\\"}"}',
        '{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}',
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_calls_may_be_written_a_little_differently(written: str, size: int) -> None:
    told, _ = parse(THINKS, f"<tool_call>{written}</tool_call>", size)
    assert (told.calls, told.text) == ([ROME], "")


def test_a_malformed_call_does_not_hide_the_next() -> None:
    told, _ = parse(THINKS, f"<tool_call>{{x}}</tool_call>{CALL}", 2)
    assert (told.text, told.calls) == ("<tool_call>{x}</tool_call>", [ROME])


def test_a_call_after_a_good_one_that_is_malformed_is_text() -> None:
    told, _ = parse(THINKS, f"{CALL}\n<tool_call>\n{{x}}", 2)
    assert (told.calls, told.text.strip()) == ([ROME], "<tool_call>\n{x}")


def test_a_missing_last_marker_is_forgiven() -> None:
    """It may be a token that ends the answer."""
    told, _ = parse(THINKS, CALL.removesuffix("</tool_call>"), 3)
    assert told.calls == [ROME]


def test_text_around_calls_loses_only_the_space_beside_them() -> None:
    told, source = parse(THINKS, f"I look it up.\n\n{CALL}\nDone.", 5)
    assert (told.text, told.calls) == ("I look it up.Done.", [ROME])
    assert source == f"I look it up.\n\n{CALL}\nDone."


def test_a_thought_is_told_apart() -> None:
    told, _ = parse(THINKS, "<think>\na < b\n</think>\n\nYes.", 1)
    assert (told.thought, told.text) == ("a < b", "Yes.")


def test_a_thought_that_the_prompt_opened_needs_no_mark() -> None:
    told, _ = parse(THINKS, "a < b\n</think>\n\nYes.", 3, in_thought=True)
    assert (told.thought, told.text) == ("a < b", "Yes.")


def test_a_thought_may_never_end() -> None:
    told, _ = parse(THINKS, "<think>hm", 1)
    assert (told.thought, told.text) == ("hm", "")


def test_a_call_inside_a_thought_is_a_thought() -> None:
    told, _ = parse(THINKS, f"<think>{CALL}</think>no", 6)
    assert (told.thought, told.begins, told.text) == (CALL, [], "no")


def test_arguments_are_passed_on_as_they_come_where_that_is_asked_for() -> None:
    parser = AnswerParser(THINKS, SCHEMAS, streams=True, ids=lambda name, index: "id")
    assert parser.parts('<tool_call>\n{"name": "get_weather", "arguments": {"ci') == [
        CallBegin(0, "id", "get_weather"),
        CallArguments(0, '{"ci'),
    ]
    assert parser.parts('ty": "R') == [CallArguments(0, 'ty": "R')]
    assert parser.parts('"}}\n</tool_call>') == [CallArguments(0, '"}'), CallEnd(0)]
    assert parser.rest() == []


def test_a_call_is_held_back_until_it_is_whole_otherwise() -> None:
    parser = AnswerParser(THINKS, SCHEMAS, ids=lambda name, index: "id")
    assert parser.parts('Well. <tool_call>{"name": "get_weather", "arguments": {"city": "R') == [
        Text("Well.")
    ]
    assert parser.parts('"}}</tool_call>') == [
        CallBegin(0, "id", "get_weather"),
        CallArguments(0, '{"city": "R"}'),
        CallEnd(0),
    ]


def test_text_is_passed_on_as_it_comes() -> None:
    parser = AnswerParser(THINKS, SCHEMAS)
    assert parser.parts("Hello") == [Text("Hello")]
    assert parser.parts(" there <") == [Text(" there")]
    assert parser.parts("tool") == []
    assert parser.parts("s>") == [Text(" <tools>")]
    assert parser.parts("<think>hm") == [Reasoning("hm")]


def test_without_functions_calls_are_text() -> None:
    parser = AnswerParser(THINKS, None)
    assert [*parser.parts(f"<think>a</think>{CALL}"), *parser.rest()] == [Reasoning("a"), Text(CALL)]


def test_control_characters_inside_strings_come_out_as_json_wants_them() -> None:
    told, _ = parse(THINKS, CALL.replace("Rome", "Ro\nme\t"), 2)
    assert told.calls == [("get_weather", {"city": "Ro\nme\t"})]


def test_a_call_in_a_channel() -> None:
    form = format_of("openai-gpt-oss-120b")
    text = (
        "<|channel|>analysis<|message|>The weather.<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
        '{"city": "Rome"}<|call|>'
    )
    for size in (1, 2, 7, 1000):
        told, source = parse(form, text, size)
        assert (told.thought, told.text, told.calls, source) == ("The weather.", "I look.", [ROME], text)


def test_a_final_channel_is_text() -> None:
    form = format_of("openai-gpt-oss-120b")
    told, _ = parse(
        form, "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.", 3
    )
    assert (told.thought, told.text) == ("Hm.", "Yes.")
    told, _ = parse(form, "Just text.", 3)
    assert told.text == "Just text."


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        (IdForm.FREE, r"call_[A-Za-z0-9]{24}"),
        (IdForm.NINE, r"[A-Za-z0-9]{9}"),
        (IdForm.FUNCTIONS, r"functions\.f:3"),
    ],
)
def test_ids_have_a_form_that_the_template_can_show(form: IdForm, pattern: str) -> None:
    assert re.fullmatch(pattern, new_id(form)("f", 3))


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("5", 5),
        ("five", "five"),
        ("[1, 2]", [1, 2]),
        ("['a', True, None]", ["a", True, None]),
        ("True", True),
        ("", ""),
        ("{'a': __import__('os')}", "{'a': __import__('os')}"),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_values_in_tags_are_what_they_look_like_where_the_schema_does_not_say(
    raw: str, value: object
) -> None:
    argument = f"<parameter=unknown>\n{raw}\n</parameter>"
    text = f"<tool_call>\n<function=get_weather>\n{argument}\n</function>\n</tool_call>"
    told, _ = parse(format_of("Qwen3-Coder"), text, 100)
    assert told.calls == [("get_weather", {"unknown": value})]


@pytest.mark.parametrize(
    "text", ["<tool_call>" * 2000, '<tool_call>{"name": "' * 2000, "[TOOL_CALLS]get_weather{" * 500]
)
def test_text_that_begins_a_thousand_calls_is_read_in_time(text: str) -> None:
    for name in ("Qwen-Qwen3-0.6B", "unsloth-mistral-Devstral-Small-2507"):
        assert parse(format_of(name), text, 50)[0].text == text
