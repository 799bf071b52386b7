"""Reading one call, in each of the styles that models write."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

from rllm.api.text.formats.reader import Malformed, Paused, Reader
from rllm.api.text.formats.shapes import KEY, KIND, ArgumentTags, Style, ToolFormat
from rllm.api.text.formats.values import as_json, python_arguments, tagged_value, unquoted_value

_FIELD = re.compile(r'"(\w+)"\s*:\s*"?$')
_USUAL_NAMES = ("name", "tool_name")
_USUAL_ARGUMENTS = ("arguments", "parameters")


class Sink(Protocol):
    """Where a call goes while it is read."""

    def begin(self, name: str, call_id: str) -> None:
        """
        Raises:
            Malformed: there is no such function.
        """

    def arguments(self, piece: str) -> None: ...

    def identify(self, call_id: str) -> None:
        """The id stands after the arguments."""
        ...


class CallReader:
    """Reads calls of one format. Its generators pause for more text, and raise Malformed."""

    def __init__(self, tools: ToolFormat, reader: Reader, sink: Sink, schemas: Mapping[str, Any]) -> None:
        """``schemas``: of each function's parameters, by its name."""
        self._tools = tools
        self._reader = reader
        self._sink = sink
        self._schemas = schemas
        self._has_begun = False

    def read(self) -> Paused[None]:
        """One call, its last marker with it."""
        self._has_begun = False
        start = self._reader.pos
        try:
            yield from self._styles[self._tools.style](self)
        except Malformed:
            if self._tools.style is not Style.JSON or self._has_begun:
                raise
            self._reader.pos = start
            yield from self._any_object()

    def _named(self) -> Paused[str]:
        """Up to the arguments."""
        call_id = yield from self._reader.expect(self._tools.before_name)
        name = yield from self._reader.name()
        call_id = (yield from self._reader.expect(self._tools.before_arguments)) or call_id
        self._sink.begin(name, call_id)
        return name

    def body(self, name: str, after: str) -> Paused[None]:
        """A call whose name was read: its arguments as JSON, and what is after them."""
        self._sink.begin(name, "")
        yield from self._object()
        yield from self._reader.close(after)

    def _json(self) -> Paused[None]:
        yield from self._named()
        yield from self._object()
        yield from self._end()

    def _object(self) -> Paused[None]:
        for piece in self._reader.json_object():
            if piece:
                self._has_begun = True
                self._sink.arguments(piece)
            else:
                yield

    def _end(self) -> Paused[None]:
        if call_id := (yield from self._reader.close(self._tools.after_arguments)):
            self._sink.identify(call_id)

    def _python(self) -> Paused[None]:
        yield from self._named()
        arguments = yield from python_arguments(self._reader)
        self._sink.arguments(as_json(arguments))
        yield from self._reader.close(self._tools.after_arguments.removeprefix(")"))

    def _unquoted(self) -> Paused[None]:
        yield from self._named()
        arguments = yield from unquoted_value(self._reader, self._tools.quote)
        if not isinstance(arguments, dict):
            raise Malformed
        self._sink.arguments(as_json(arguments))
        yield from self._end()

    # --- a tag per argument ---------------------------------------------------------------------

    def _tagged(self) -> Paused[None]:
        name = yield from self._named()
        tags = self._tools.tags
        if tags is None:
            raise Malformed
        schema = self._schemas.get(name)
        properties = schema.get("properties") if isinstance(schema, dict) else None
        seen: set[str] = set()
        while not (yield from self._has_ended(tags)):
            key, value = yield from self._argument(tags, properties if isinstance(properties, dict) else {})
            if key in seen:
                raise Malformed
            self._sink.arguments(f"{', ' if seen else '{'}{as_json(key)}: {as_json(value)}")
            seen.add(key)
        self._sink.arguments("}" if seen else "{}")
        yield from self._end()

    def _has_ended(self, tags: ArgumentTags) -> Paused[bool]:
        yield from self._reader.skip_blank()
        if (yield from self._reader.begins(first_word(self._tools.after_arguments))):
            return True
        return not (yield from self._reader.begins(first_word(tags.separator + tags.before_key)))

    def _argument(self, tags: ArgumentTags, properties: Mapping[str, Any]) -> Paused[tuple[str, Any]]:
        reader = self._reader
        if first_word(tags.separator) and (yield from reader.begins(first_word(tags.separator))):
            yield from reader.expect(tags.separator)
        yield from reader.expect(tags.before_key)
        before_kind, _, after_kind = tags.before_value.partition(KIND)
        key_end = first_word(before_kind)
        key = yield from reader.until(key_end)
        reader.pos -= len(key_end)
        yield from reader.expect(before_kind)
        kind = None
        if tags.kinds:
            word = yield from reader.name()
            kind = "string" if word == tags.kinds["string"] else "other"
            yield from reader.expect(after_kind)
        after_value = tags.after_value.replace(KEY, key)
        raw = yield from reader.until(after_value.strip())
        raw = _without_margins(raw, tags.before_value, after_value)
        return key, tagged_value(raw, properties.get(key), kind) if tags.raw_strings else _strict(raw)

    # --- objects that are not written as the template does ----------------------------------------

    def _any_object(self) -> Paused[None]:
        """Fields in another order, further ones, arguments as JSON text."""
        tools, reader = self._tools, self._reader
        before, brace, inside = tools.before_name.partition("{")
        if not brace:
            raise Malformed
        yield from reader.expect(before)
        pieces = []
        for piece in reader.json_object():
            pieces.append(piece)
            if not piece:
                yield
        self._take(json.loads("".join(pieces)))
        depth = 1 + inside.count("{")
        yield from reader.close(tools.after_arguments.split("}", depth)[-1])

    def _take(self, call: dict[str, Any]) -> None:
        if isinstance(call.get("function"), dict):
            call = {**call, **call["function"]}
        name = _field(call, self._tools.before_name, _USUAL_NAMES)
        arguments = _field(call, self._tools.before_arguments, _USUAL_ARGUMENTS)
        if isinstance(arguments, str):
            arguments = _strict(arguments)
        arguments = {} if arguments is None else arguments
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise Malformed
        call_id = call.get("id")
        self._sink.begin(name, call_id if isinstance(call_id, str) else "")
        self._sink.arguments(as_json(arguments))

    _styles: Mapping[Style, Callable[[CallReader], Generator[None, None, None]]] = {
        Style.JSON: _json,
        Style.NAMED_JSON: _json,
        Style.TAGGED: _tagged,
        Style.PYTHON: _python,
        Style.UNQUOTED: _unquoted,
    }


def first_word(literal: str) -> str:
    words = literal.split(maxsplit=1)
    return words[0].partition("⟨")[0] if words else ""


def _field(call: dict[str, Any], before: str, usual: tuple[str, ...]) -> Any:
    found = _FIELD.search(before)
    names = (found.group(1), *usual) if found else usual
    return next((call[name] for name in names if name in call), None)


def _strict(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Malformed from None


def _without_margins(raw: str, before: str, after: str) -> str:
    """Only the whitespace goes that the format puts there."""
    left = before[len(before.rstrip()) :]
    right = after[: len(after) - len(after.lstrip())]
    return raw.removeprefix(left).removesuffix(right)
