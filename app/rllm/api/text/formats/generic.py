"""Tools for a model whose template has none: told of in the system message, called as models mostly learn."""

from __future__ import annotations

from rllm.api.text.formats.shapes import GENERIC, AnswerFormat, Style, ToolFormat

GENERIC_TOOLS = ToolFormat(
    source=GENERIC,
    style=Style.JSON,
    before_name='<tool_call>\n{"name": "',
    before_arguments='", "arguments": ',
    after_arguments="}\n</tool_call>",
    separator="\n",
    tells_tools=False,
    writes_calls=False,
    shows_results=False,
    result_begin="<tool_response>\n",
    result_end="\n</tool_response>",
)
UNKNOWN = AnswerFormat(tools=GENERIC_TOOLS)
"""Of a template of which nothing could be found out."""
