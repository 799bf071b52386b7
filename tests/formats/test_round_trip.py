"""Calls that a template wrote are found again, whatever pieces they come in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rllm.api.text.formats.families import family_of
from rllm.api.text.formats.generic import GENERIC_TOOLS
from rllm.api.text.formats.shapes import AnswerFormat, Style
from rllm.api.text.formats.writer import written_calls
from tests.formats.samples import (
    ARGUMENTS,
    NAMES,
    SCHEMAS,
    THOUGHT,
    Told,
    answer,
    can_write_calls,
    format_of,
    given_id,
    parse,
    source_of,
)

WRITERS = [name for name in NAMES if can_write_calls(name)]
SIZES = (1, 2, 3, 4, 5, 6, 7, 10**6)

_strings = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>[]|｜"), max_size=12)
_values = st.recursive(
    _strings
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_strings, inner, max_size=3),
    max_leaves=6,
)


def read_back(name: str, arguments: list[dict[str, Any]], thought: str = "") -> Told:
    """The same from pieces of every size, held back or not; and nothing lost."""
    text, in_thought = answer(name, arguments, thought=thought)
    found = [
        parse(format_of(name), text, size, in_thought=in_thought, streams=streams)
        for size in SIZES
        for streams in (False, True)
    ]
    assert {source for _, source in found} == {text}
    for told, _ in found[1:]:
        assert told.begins[0].name == found[0][0].begins[0].name
        assert (told.text, told.thought, told.calls) == (
            found[0][0].text,
            found[0][0].thought,
            found[0][0].calls,
        )
    return found[0][0]


def test_at_least_twenty_families_write_calls() -> None:
    tools = [format_of(name).tools for name in WRITERS]
    assert (
        len({(each.style, each.section_begin, each.before_name, each.after_arguments) for each in tools})
        >= 20
    )


@pytest.mark.parametrize("name", WRITERS)
def test_one_call_comes_back(name: str) -> None:
    told = read_back(name, [ARGUMENTS[0]])
    assert told.calls == [("get_weather", ARGUMENTS[0])]
    assert (told.text, told.ends) == ("", [0])


@pytest.mark.parametrize("name", [name for name in WRITERS if format_of(name).tools.parallel])
def test_parallel_calls_come_back(name: str) -> None:
    told = read_back(name, list(ARGUMENTS))
    assert told.calls == list(zip(SCHEMAS, ARGUMENTS, strict=True))
    assert (told.text, told.ends) == ("", [0, 1])


THINKERS = [name for name in WRITERS if (form := format_of(name)).reasoning and form.reasoning.field]


@pytest.mark.parametrize("name", THINKERS)
def test_a_thought_before_calls_comes_back(name: str) -> None:
    told = read_back(name, [ARGUMENTS[0]], thought=THOUGHT)
    assert (told.thought, told.text) == (THOUGHT, "")
    assert told.calls == [("get_weather", ARGUMENTS[0])]


@pytest.mark.parametrize("name", ["mistralai-Mistral-Nemo-Instruct-2407", "own/id-before-name"])
def test_ids_that_the_model_writes_are_kept(name: str) -> None:
    text, _ = answer(name, list(ARGUMENTS))
    told, _ = parse(format_of(name), text, 3)
    assert [begin.id for begin in told.begins] == ["abcdefgh0", "abcdefgh1"]


_FORMATS = {
    **{name: format_of(name) for name in NAMES if format_of(name).tools.style is not Style.HARMONY},
    "generic": AnswerFormat(tools=GENERIC_TOOLS),
}


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(_FORMATS)),
    options=st.dictionaries(st.text("abc", min_size=1, max_size=3), _values, max_size=3),
    city=_strings,
    size=st.integers(1, 7),
    streams=st.booleans(),
)
def test_what_is_written_in_a_format_is_read_in_it(
    name: str, options: dict[str, Any], city: str, size: int, streams: bool
) -> None:
    form = _FORMATS[name]
    tools = form.tools
    if tools.tags is not None:
        city = city.strip()
    if tools.style is Style.UNQUOTED:
        options = {"near": 1}
    calls = [("get_weather", {"city": city, "options": options}, given_id(form, "get_weather", 0))]
    text = written_calls(tools, calls)
    told, source = parse(form, text, size, streams=streams)
    assert told.calls == [(function, arguments) for function, arguments, _ in calls]
    assert (told.text, source) == ("", text)


_WORDS = """
<tool_call> </tool_call>
<think> </think> [TOOL_CALLS] [ARGS] <function= get_weather {"name":" " ","arguments":
{} } ] [ ( ) a < <arg_key>
é , <parameter=city> </parameter> </function> <|tool_call>call: <|"|> : <|channel|>
analysis <|message|> <|end|> <|start|> assistant to=functions. <|call|> <|tool_call_start|> =
"""
_ALPHABET = st.sampled_from([*_WORDS.split(), "\n", " "])


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    words=st.lists(_ALPHABET, max_size=14),
    size=st.integers(1, 7),
    streams=st.booleans(),
    in_thought=st.booleans(),
)
def test_nothing_is_lost_and_pieces_do_not_matter(
    name: str, words: list[str], size: int, streams: bool, in_thought: bool
) -> None:
    text, form = "".join(words), format_of(name)
    whole, source = parse(form, text, len(text) + 1, in_thought=in_thought, streams=streams)
    assert source == text
    assert parse(form, text, size, in_thought=in_thought, streams=streams) == (whole, text)
    if not streams:
        assert len(whole.calls) == len(whole.begins) == len(whole.ends)
        assert all(json.loads(arguments) is not None for arguments in whole.arguments)


def test_families_are_known_by_their_templates() -> None:
    assert family_of(source_of("openai-gpt-oss-120b")) is not None
    assert family_of(source_of("Qwen-Qwen3-0.6B")) is None
