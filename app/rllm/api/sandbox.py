"""A Jinja environment for chat templates, which are files from strangers: no attributes of Python, and
bounded in time and memory.

A thread cannot be stopped from outside, so the template is made to look at the clock itself: every loop
iteration and every call first passes `_Environment.tick`. Every operation that can make a long string
(``~``, ``+``, ``*``, ``%``, calls, filters) has its result measured. What cannot be bounded: one single
C call on text that is already there, e.g. ``replace`` over 8 MiB; such a call is short.
"""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_CHARS = 16 * 1024 * 1024
"""Longest string a template may make."""


class TemplateRefused(Exception):
    """The template itself refused the messages (``raise_exception``), in its own words."""


class TemplateTooExpensive(Exception):
    """A bound was reached."""


class _Generation(Extension):
    """``{% generation %} … {% endgeneration %}`` marks training targets; for serving it is transparent."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "%", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=[loopcontrols, _Generation]
        )
        self._clock = threading.local()
        self.filters["tojson"] = _tojson
        self.filters["format"] = _format
        self.filters = {name: self._bounded(function) for name, function in self.filters.items()}
        self.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        del self.globals["lipsum"]

    def start_clock(self, timeout_s: float) -> None:
        """For templates that run on this thread."""
        self._clock.deadline = time.monotonic() + timeout_s

    def tick(self) -> str:
        if time.monotonic() > self._clock.deadline:
            raise TemplateTooExpensive("the chat template takes too long for these messages")
        return ""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """``"{:999999999}".format(1)`` has no bound that could be seen from outside."""
        if isinstance(obj, str) and attr in ("format", "format_map"):
            return False
        return super().is_safe_attribute(obj, attr, value)

    def join(self, *parts: object) -> str:
        return str(_measured("".join(map(str, parts))))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise TemplateTooExpensive(f"the chat template uses {operator!r} in a way that has no bound")
        if operator == "*" and not (_is_number(left) and _is_number(right)):
            count = left if isinstance(left, int) else right
            items = right if isinstance(left, int) else left
            if (
                isinstance(count, int)
                and hasattr(items, "__len__")
                and len(items) * max(count, 0) > MAX_CHARS
            ):
                raise TemplateTooExpensive("the chat template makes a string that is too long")
        return _measured(super().call_binop(context, operator, left, right))

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.tick()
        _refuse_widths(args, kwargs)
        return _measured(super().call(context, called, *args, **kwargs))

    def _bounded(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)  # also keeps jinja2's marks on the function
        def bounded(*args: Any, **kwargs: Any) -> Any:
            _refuse_widths(args, kwargs)
            return _measured(function(*args, **kwargs))

        return bounded

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Compile with a tick in every loop, and with ``~`` as a measured call."""
        for loop in list(source.find_all(nodes.For)):
            call = nodes.Call(nodes.EnvironmentAttribute("tick"), [], [], None, None)
            loop.body.insert(0, nodes.ExprStmt(call).set_lineno(loop.lineno))
        _replace_concats(source)
        return super()._generate(source, *args, **kwargs)


def _replace_concats(node: nodes.Node) -> None:
    for name, value in list(node.iter_fields()):
        if isinstance(value, list):
            setattr(node, name, [_replaced(item) for item in value])
        elif isinstance(value, nodes.Node):
            setattr(node, name, _replaced(value))


def _replaced(item: Any) -> Any:
    if not isinstance(item, nodes.Node):
        return item
    _replace_concats(item)
    if isinstance(item, nodes.Concat):
        call = nodes.Call(nodes.EnvironmentAttribute("join"), item.nodes, [], None, None)
        call.environment = item.environment
        return call.set_lineno(item.lineno)
    return item


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _measured(value: Any) -> Any:
    if isinstance(value, str | list | tuple) and len(value) > MAX_CHARS:
        raise TemplateTooExpensive("the chat template makes a string that is too long")
    return value


def _refuse_widths(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Numbers given to calls are widths and counts, as in ``center(1000000000)``."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, int) and abs(value) > MAX_CHARS:
            raise TemplateTooExpensive(f"the chat template uses a number beyond {MAX_CHARS}")


def _format(value: object, *args: Any, **kwargs: Any) -> str:
    if re.search(r"[0-9]{5}|%[^%a-zA-Z]*\*", str(value)):
        raise TemplateTooExpensive("the chat template formats with a width that is too large")
    return str(value) % (kwargs or args)


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


class SandboxedTemplate:
    """One compiled template. Thread-safe."""

    def __init__(self, source: str) -> None:
        """
        Raises:
            jinja2.TemplateSyntaxError: it is not a template.
        """
        self.source = source
        self._environment = _Environment()
        self._template = self._environment.from_string(source)

    def render(self, variables: dict[str, Any], *, timeout_s: float, max_chars: int) -> str:
        """
        Raises:
            TemplateRefused: by the template's own ``raise_exception``.
            TemplateTooExpensive: time, memory or ``max_chars`` of output.
            jinja2.TemplateError, or what Python raises for a wrong operation: the template fails.
        """
        self._environment.start_clock(timeout_s)
        return "".join(_limited(self._template.generate(variables), max_chars))


def _limited(parts: Iterator[str], max_chars: int) -> Iterator[str]:
    total = 0
    for part in parts:
        total += len(part)
        if total > max_chars:
            raise TemplateTooExpensive(f"the rendered prompt is longer than {max_chars} characters")
        yield part
