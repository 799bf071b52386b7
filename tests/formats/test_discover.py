"""What is found in chat templates of many families."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rllm.api.text.formats.discover import discover
from rllm.api.text.formats.shapes import AnswerFormat, IdForm, Style
from rllm.api.text.sandbox import SandboxedTemplate
from tests.formats.samples import NAMES, format_of, render_of

FOUND: dict[str, tuple[str, str | None]] = {
    "Apertus-8B-Instruct": (
        "<|tools_prefix|> name and JSON, parallel, from the template",
        None,
    ),
    "Bielik-11B-v3.0-Instruct": (
        "<tool_call> JSON, parallel, from the template",
        "<think> … </think>, switch enable_thinking",
    ),
    "ByteDance-Seed-OSS": (
        "<seed:tool_call> a tag per argument, parallel, from the template",
        "<seed:think> … </seed:think>",
    ),
    "GLM-4.6": (
        "<tool_call> a tag per argument, parallel, from the template",
        "<think> … </think>, switch enable_thinking",
    ),
    "GLM-4.7-Flash": (
        "<tool_call> a tag per argument, parallel, from the template",
        "<think> … </think>, the prompt opens it, switch enable_thinking",
    ),
    "GigaChat3-10B-A1.8B": (
        "<|message_sep|> JSON, one at a time, from the template",
        None,
    ),
    "HuggingFaceTB-SmolLM3-3B": (
        "<tool_call> JSON, parallel, generic: the template has none",
        "<think> … </think>, switch enable_thinking",
    ),
    "MiMo-VL": (
        "<tool_call> JSON, parallel, from the template",
        None,
    ),
    "MiniMax-M1": (
        "<tool_calls> JSON, parallel, from the template",
        None,
    ),
    "Mistral-Small-3.2-24B-Instruct-2506": (
        "[TOOL_CALLS] name and JSON, parallel, from the template",
        None,
    ),
    "Qwen-QwQ-32B": (
        "<tool_call> JSON, parallel, from the template",
        "<think> … </think>, switch enable_thinking",
    ),
    "Qwen-Qwen2.5-7B-Instruct": (
        "<tool_call> JSON, parallel, from the template",
        None,
    ),
    "Qwen-Qwen3-0.6B": (
        "<tool_call> JSON, parallel, from the template",
        "<think> … </think>, switch enable_thinking",
    ),
    "Qwen3-Coder": (
        "<tool_call> a tag per argument, parallel, from the template",
        None,
    ),
    "StepFun3.5-Flash": (
        "<tool_call> a tag per argument, parallel, from the template",
        "<think> … </think>, the prompt opens it",
    ),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": (
        "<｜tool▁calls▁begin｜> name and JSON, parallel, from the template, told of in the system message",
        "<think> … </think>, switch enable_thinking",
    ),
    "deepseek-ai-DeepSeek-V3.1": (
        "<｜tool▁calls▁begin｜> name and JSON, parallel, from the template, told of in the system message",
        "<think> … </think>, switch enable_thinking",
    ),
    "deepseek-ai-DeepSeek-V3.2": (
        "<｜DSML｜function_calls> a tag per argument, parallel, from the template",
        "<think> … </think>, switch enable_thinking",
    ),
    "ibm-granite-granite-3.3-2B-Instruct": (
        "<|tool_call|> JSON, parallel, known family Granite 3",
        "<think> … </think>, switch thinking",
    ),
    "ibm-granite-granite-4.0": (
        "<tool_call> JSON, parallel, from the template",
        None,
    ),
    "microsoft-Phi-3.5-mini-instruct": (
        "<tool_call> JSON, parallel, generic: the template has none",
        None,
    ),
    "mistralai-Mistral-Nemo-Instruct-2407": (
        "[TOOL_CALLS] JSON, parallel, from the template",
        None,
    ),
    "openai-gpt-oss-120b": (
        "<|start|> channels, one at a time, known family harmony",
        "<|channel|>analysis<|message|> … <|end|>, reasoning_effort",
    ),
    "own/bare-json": (
        "JSON, one at a time, from the template",
        None,
    ),
    "own/function-ids": (
        "<|tool_calls_section_begin|> name and JSON, parallel, from the template",
        None,
    ),
    "own/function-tag-json": (
        "<function= name and JSON, parallel, from the template",
        None,
    ),
    "own/id-before-name": (
        "<|tool_calls|> name and JSON, parallel, from the template",
        None,
    ),
    "own/indexed-array": (
        "<|START_ACTION|> JSON, parallel, from the template",
        "<|START_THINKING|> … <|END_THINKING|>",
    ),
    "own/invoke-tags": (
        "<acme:tool_call> a tag per argument, parallel, from the template",
        "<think> … </think>, the prompt opens it",
    ),
    "own/lfm-list": (
        "<|tool_call_start|> Python, parallel, known family LFM2",
        None,
    ),
    "own/no-tools": (
        "<tool_call> JSON, parallel, generic: the template has none",
        None,
    ),
    "own/python-calls": (
        "<|tool_call_start|> Python, parallel, from the template",
        None,
    ),
    "own/unquoted-keys": (
        "<|tool_call> unquoted keys, parallel, from the template",
        "<|channel>thought … <channel|>, switch enable_thinking",
    ),
    "unsloth-Apriel-1.5": (
        "<tool_calls> JSON, parallel, from the template",
        "<thinking> … </thinking>",
    ),
    "unsloth-mistral-Devstral-Small-2507": (
        "[TOOL_CALLS] name and JSON, parallel, from the template",
        None,
    ),
}
"""Template → its tools and its thoughts, as `rllm-models inspect` says them."""


@pytest.mark.parametrize("name", NAMES)
def test_what_is_found_is_what_the_template_shows(name: str) -> None:
    form = format_of(name)
    assert (str(form.tools), str(form.reasoning) if form.reasoning else None) == FOUND[name]


def test_there_are_many_ways_to_write_a_call() -> None:
    tools = [format_of(name).tools for name in NAMES]
    ways = {(each.style, each.section_begin, each.before_name, each.before_arguments) for each in tools}
    assert {each.style for each in tools} == set(Style)
    assert len(ways) >= 20


@pytest.mark.parametrize("name", NAMES)
def test_a_format_survives_its_way_between_processes(name: str) -> None:
    form = format_of(name)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(form), type=AnswerFormat) == form


def test_marks_are_told_apart_though_they_begin_alike() -> None:
    tools = format_of("deepseek-ai-DeepSeek-V3.1").tools
    assert tools.section_begin == "<｜tool▁calls▁begin｜>"
    assert tools.before_name == "<｜tool▁call▁begin｜>"
    assert tools.before_arguments == "<｜tool▁sep｜>"
    assert (tools.after_arguments, tools.section_end) == ("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>")
    assert not tools.tells_tools


def test_arguments_in_tags_are_found_with_the_words_for_their_types() -> None:
    tags = format_of("deepseek-ai-DeepSeek-V3.2").tools.tags
    assert tags is not None
    assert tags.before_key == '\n<｜DSML｜parameter name="'
    assert tags.before_value == '" string="⟨kind⟩">'
    assert tags.after_value == "</｜DSML｜parameter>"
    assert {kind for kind, word in tags.kinds.items() if word == "true"} == {"string"}


def test_ids_have_the_form_that_the_template_demands() -> None:
    assert format_of("mistralai-Mistral-Nemo-Instruct-2407").tools.id_form is IdForm.NINE
    assert format_of("own/function-ids").tools.id_form is IdForm.FUNCTIONS
    assert format_of("Qwen-Qwen3-0.6B").tools.id_form is IdForm.FREE


def test_history_is_given_in_the_form_that_the_template_takes() -> None:
    assert format_of("own/id-before-name").tools.arguments_as_text
    assert not format_of("Qwen-Qwen3-0.6B").tools.arguments_as_text
    assert format_of("deepseek-ai-DeepSeek-V3.1").tools.no_content is None
    assert format_of("Qwen-QwQ-32B").tools.no_content == ""
    assert format_of("Qwen-Qwen3-0.6B").tools.result_begin == "<|im_start|>user\n<tool_response>\n"
    assert not format_of("own/no-tools").tools.shows_results


def test_a_prompt_shows_whether_it_ends_inside_a_thought() -> None:
    render = render_of("Qwen-Qwen3-0.6B")
    reasoning = format_of("own/invoke-tags").reasoning
    assert reasoning is not None
    assert reasoning.opened
    question = [{"role": "user", "content": "?"}]
    assert reasoning.is_open(render_of("own/invoke-tags")(question, None, {"add_generation_prompt": True}))
    asked = {"add_generation_prompt": True, "enable_thinking": False}
    assert not reasoning.is_open(render(question, None, asked))


def test_a_template_that_refuses_everything_gets_the_generic_format() -> None:
    def refuses(*_: Any) -> str:
        raise ValueError("no")

    form = discover(refuses, "{{ raise_exception('no') }}")
    assert (form.tools.source, form.reasoning) == ("generic", None)


@pytest.mark.parametrize("source", ["{{ messages }}", "{{ messages | tojson }}", "{{ messages[-1] }}"])
def test_messages_shown_as_they_are_are_no_format(source: str) -> None:
    template = SandboxedTemplate(source)

    def render(messages: Any, tools: Any, variables: dict[str, Any]) -> str:
        return template.render({**variables, "messages": messages, "tools": tools}, max_chars=10**5)

    assert discover(render, source).tools.source == "generic"
