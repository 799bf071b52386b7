"""Chat templates as Jinja: they reach no attributes of Python and change nothing they are given.

Time and memory are not bounded here: a template can keep the interpreter inside one call in C, where no check
of ours runs. So templates are compiled and rendered only where they can be killed, in
`rllm.api.text.rendering`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class TemplateRefused(Exception):
    """The template itself refused the messages (``raise_exception``), in its own words."""


class TemplateTooLong(Exception):
    """The rendered text is longer than was allowed."""


class _Generation(Extension):
    """``{% generation %} … {% endgeneration %}`` marks training targets; for serving it is transparent."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _LateConstants(CodeGenerator):
    """Leaves constant expressions to rendering, each of which has a deadline; compiling then takes as long as
    the template is."""

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible()
        return super()._output_child_to_const(node, frame, finalize)


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = _LateConstants


class SandboxedTemplate:
    """One compiled template."""

    def __init__(self, source: str) -> None:
        """
        Raises:
            jinja2.TemplateSyntaxError: it is not a template.
            Exception: the Python that jinja2 makes of it does not compile (25 nested loops: SyntaxError).
        """
        environment = _Environment(
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
            optimized=False,  # see _LateConstants
            extensions=[loopcontrols, _Generation],
        )
        environment.filters["tojson"] = _tojson
        environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        self.source = source
        self._template = environment.from_string(source)

    def render(self, variables: dict[str, Any], *, max_chars: int) -> str:
        """
        Raises:
            TemplateRefused: by the template's own ``raise_exception``.
            TemplateTooLong: more than ``max_chars`` of output.
            Exception: jinja2.TemplateError, or what Python raises for a wrong operation.
        """
        return "".join(_limited(self._template.generate(variables), max_chars))


def _limited(parts: Iterator[str], max_chars: int) -> Iterator[str]:
    total = 0
    for part in parts:
        total += len(part)
        if total > max_chars:
            raise TemplateTooLong(f"the prompt is longer than {max_chars} characters")
        yield part


def _raise_exception(message: object) -> NoReturn:
    raise TemplateRefused(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers does it: not escaped for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
