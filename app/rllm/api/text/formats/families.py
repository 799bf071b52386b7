"""Formats that a template does not show: it writes no calls, or an answer is more than one text.

Each is known by words of its template that nothing else has.
"""

from __future__ import annotations

from collections.abc import Mapping

from rllm.api.text.formats.shapes import AnswerFormat, ReasoningFormat, Style, ToolFormat

_HARMONY = AnswerFormat(
    tools=ToolFormat(
        source="harmony",
        style=Style.HARMONY,
        before_name="<|start|>assistant<|channel|>commentary to=functions.",
        before_arguments=" <|constrain|>json<|message|>",
        after_arguments="<|call|>",
        parallel=False,
    ),
    reasoning=ReasoningFormat(
        begin="<|channel|>analysis<|message|>", end="<|end|>", takes_effort=True, field="thinking"
    ),
)
_GRANITE_3 = AnswerFormat(
    tools=ToolFormat(
        source="Granite 3",
        writes_calls=False,
        style=Style.JSON,
        section_begin="<|tool_call|>[",
        section_end="]",
        separator=", ",
        before_name='{"name": "',
        before_arguments='", "arguments": ',
        after_arguments="}",
    ),
    reasoning=ReasoningFormat(begin="<think>", end="</think>", switch="thinking"),
    wrappers=("<response>", "</response>"),
)
_PHI_4 = AnswerFormat(
    tools=ToolFormat(
        source="Phi-4",
        writes_calls=False,
        style=Style.JSON,
        section_begin="<|tool_call|>[",
        section_end="]<|/tool_call|>",
        separator=", ",
        before_name='{"name": "',
        before_arguments='", "arguments": ',
        after_arguments="}",
    ),
)
_LFM_2 = AnswerFormat(
    tools=ToolFormat(
        source="LFM2",
        writes_calls=False,
        style=Style.PYTHON,
        section_begin="<|tool_call_start|>[",
        section_end="]<|tool_call_end|>",
        separator=", ",
        before_arguments="(",
        after_arguments=")",
    ),
)
_FAMILIES: Mapping[tuple[str, ...], AnswerFormat] = {
    ("<|channel|>analysis", "<|channel|>final"): _HARMONY,
    ("<|tool|>", "<|/tool|>"): _PHI_4,
    ("<|tool_list_start|>",): _LFM_2,
    ("<|start_of_role|>", "<|tool_call|>"): _GRANITE_3,
}


def family_of(source: str) -> AnswerFormat | None:
    """By the words of a template."""
    for words, family in _FAMILIES.items():
        if all(word in source for word in words):
            return family
    return None
