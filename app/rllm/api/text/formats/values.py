"""Arguments that are not written as JSON, as JSON values."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Mapping
from typing import Any

from rllm.api.text.formats.reader import Malformed, Paused, Reader

_MAX_DEPTH = 64
_MAX_PYTHON = 64 * 1024
"""Characters of a call in Python's way of writing, which is parsed at once."""
_WORDS: Mapping[str, Any] = {
    "true": True,
    "false": False,
    "null": None,
    "True": True,
    "False": False,
    "None": None,
}


def as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def tagged_value(raw: str, schema: object, kind: str | None) -> Any:
    """The value between an argument's tags.

    Args:
        schema: the parameter's, as far as it is known.
        kind: the JSON type that the tag names; None: it names none.
    """
    if raw.startswith("<![CDATA[") and raw.endswith("]]>"):
        return raw[len("<![CDATA[") : -len("]]>")]
    if kind == "string":
        return raw
    types = types_of(schema)
    if kind is None and types == {"string"}:
        return raw
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return _python_value(raw)


def _python_value(raw: str) -> Any:
    """Some templates write lists and objects as Python shows them; what is no such thing is a string."""
    word = raw.strip()
    if word in _WORDS:
        return _WORDS[word]
    if word[:1] not in ("[", "{") or len(word) > _MAX_PYTHON:
        return raw
    try:
        return _literal(_parsed(word))
    except (Malformed, SyntaxError, ValueError, RecursionError, MemoryError):
        return raw


def types_of(schema: object) -> set[str]:
    """The JSON types that a schema names, as far as that is said plainly; empty: anything."""
    if not isinstance(schema, dict):
        return set()
    if isinstance(found := schema.get("type"), str):
        return {found}
    if isinstance(found, list):
        return {each for each in found if isinstance(each, str)}
    if isinstance(values := schema.get("enum"), list) and values:
        return {"string"} if all(isinstance(each, str) for each in values) else set()
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            kinds = [types_of(each) for each in schema[word]]
            return set().union(*kinds) if all(kinds) else set()
    return set()


def python_arguments(reader: Reader) -> Paused[dict[str, Any]]:
    """``a=1, b='x')``: up to the closing bracket, which is consumed.

    Raises:
        Malformed: it is nothing of the kind.
    """
    written = yield from _to_closing_bracket(reader)
    try:
        tree = _parsed(f"f({written}")
        if not isinstance(tree, ast.Call) or tree.args or any(each.arg is None for each in tree.keywords):
            raise Malformed
        return {str(each.arg): _literal(each.value) for each in tree.keywords}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Malformed from None


def _to_closing_bracket(reader: Reader) -> Paused[str]:
    """With the lines of strings escaped, which models and templates leave as they are."""
    chars: list[str] = []
    depth, quote = 1, ""
    while depth:
        char = yield from _next(reader)
        chars.append(char)
        if quote and char == "\\":
            chars.append((yield from _next(reader)))
        elif quote:
            chars[-1] = "\\n" if char == "\n" else char
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        else:
            depth += (char in "([{") - (char in ")]}")
        if len(chars) > _MAX_PYTHON or depth > _MAX_DEPTH:
            raise Malformed
    return "".join(chars)


def _next(reader: Reader) -> Paused[str]:
    while reader.pos >= len(reader.text):
        yield from reader.wait()
    reader.pos += 1
    return reader.text[reader.pos - 1]


def _literal(node: ast.expr) -> Any:
    """As `ast.literal_eval`, with JSON's words too, and only JSON's values."""
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(each) for each in node.elts]
    if isinstance(node, ast.Dict):
        return {_key(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True)}
    value = ast.literal_eval(node)
    if value is None or isinstance(value, str | int | float):
        return value
    raise Malformed


def _parsed(source: str) -> ast.expr:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that Python does not know
        return ast.parse(source, mode="eval").body


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise Malformed


def unquoted_value(reader: Reader, quote: str, depth: int = 0) -> Paused[Any]:
    """``{a:1,b:<|"|>x<|"|>}``: JSON whose keys stand bare and whose strings have a quote of their own.

    Raises:
        Malformed: it is nothing of the kind.
    """
    if depth > _MAX_DEPTH:
        raise Malformed
    yield from reader.skip_blank()
    if (yield from reader.begins(quote)):
        reader.pos += len(quote)
        return (yield from reader.until(quote))
    if (yield from reader.begins("{")):
        return (yield from _unquoted_object(reader, quote, depth))
    if (yield from reader.begins("[")):
        return (yield from _unquoted_list(reader, quote, depth))
    word = yield from reader.name()
    if word in _WORDS:
        return _WORDS[word]
    try:
        return json.loads(word)
    except ValueError:
        raise Malformed from None


def _unquoted_object(reader: Reader, quote: str, depth: int) -> Paused[dict[str, Any]]:
    found: dict[str, Any] = {}
    reader.pos += 1
    while not (yield from _closes(reader, "}", first=not found)):
        yield from reader.skip_blank()
        if (yield from reader.begins(quote)):
            reader.pos += len(quote)
            key = (yield from reader.until(quote)) + (yield from reader.until(":"))
        else:
            key = yield from reader.until(":")
        found[key.strip()] = yield from unquoted_value(reader, quote, depth + 1)
    return found


def _unquoted_list(reader: Reader, quote: str, depth: int) -> Paused[list[Any]]:
    found: list[Any] = []
    reader.pos += 1
    while not (yield from _closes(reader, "]", first=not found)):
        found.append((yield from unquoted_value(reader, quote, depth + 1)))
    return found


def _closes(reader: Reader, bracket: str, *, first: bool) -> Paused[bool]:
    """Past the bracket: True; past the comma before a further item, or at the first one: False."""
    yield from reader.skip_blank()
    if (yield from reader.begins(bracket)):
        reader.pos += 1
        return True
    if first:
        return False
    if not (yield from reader.begins(",")):
        raise Malformed
    reader.pos += 1
    return False
