"""A JSON schema, read keyword by keyword: what is enforced is handed on, all else is refused by name.

What validators ignore (titles, unknown keywords) is dropped. What is handed on is one document in the dialect
of draft 2020-12, in one order of keywords, with every reference under ``$defs``: so nothing depends on where
and in which draft something was written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from rllm.backends.constraint import limits, patterns
from rllm.errors import ConstraintRefused

Json = Any
Handler = Callable[["_Reader", Json, str], Json]

TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
FORMATS = (
    "date-time",
    "date",
    "time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
)
_LEAP_DAY = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29"
_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_DAY = (
    f"{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_ZONE = "(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_TIME = rf"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?{_ZONE}"
EXACT_FORMATS = {"date": f"^(?:{_LEAP_DAY}|{_DAY})$", "date-time": f"^(?:{_LEAP_DAY}|{_DAY})[tT]{_TIME}$"}
"""Where llguidance's own pattern lets 29 February pass in any year."""
PLAIN = (
    "type",
    "properties",
    "patternProperties",
    "additionalProperties",
    "required",
    "minProperties",
    "maxProperties",
    "prefixItems",
    "items",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
)
"""What is enforced, in the order in which it is handed on: llguidance merges keywords one after the other."""
COMBINED = ("const", "enum", "$ref", "allOf", "anyOf", "oneOf")
"""The same; before the plain ones where the schema has `properties` after one of these. An answer's
properties come in this order."""
REFUSED = (
    "not",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$recursiveRef",
    "divisibleBy",
    "disallow",
    "extends",
)
_LONELY_REF = ("draft-03", "draft-04", "draft-06", "draft-07")
"""Drafts in which nothing beside a `$ref` counts."""
_OLD_DRAFTS = (*_LONELY_REF, "2019-09")


def rewritten(schema: Json) -> tuple[dict[str, Json], dict[str, str]]:
    """The schema to compile, and for each name in its ``$defs`` the place that it came from.

    Raises:
        ConstraintRefused: with the JSON pointer to what is malformed, unsupported or too much.
    """
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise ConstraintRefused("#", "a schema is a JSON object")
    reader = _Reader(schema)
    root = reader.schema(schema, "#")
    reader.follow()
    if reader.definitions:
        root["$defs"] = reader.definitions
    if not _has_finite_value(root):
        raise ConstraintRefused("#", "no finite answer matches it")
    return root, reader.places


class _Reader:
    def __init__(self, root: dict[str, Json]) -> None:
        self._root = root
        self._own_address = _own_address(root)
        draft = str(root.get("$schema", ""))
        self._is_old = any(name in draft for name in _OLD_DRAFTS)
        self._has_lonely_ref = any(name in draft for name in _LONELY_REF)
        self._num_nodes = self._num_values = 0
        self._names: dict[str, str] = {}
        self._waiting: list[tuple[str, Json, str]] = []
        self.definitions: dict[str, Json] = {}
        self.places: dict[str, str] = {}

    def follow(self) -> None:
        """Read what references point at, until they point at nothing new."""
        while self._waiting:
            name, target, path = self._waiting.pop()
            self.definitions[name] = self.schema(target, path)

    def schema(self, node: Json, path: str) -> Json:
        self._num_nodes += 1
        if self._num_nodes > limits.MOST_NODES:
            raise ConstraintRefused(path, f"more than {limits.MOST_NODES} schemas in one")
        if path.count("/") > 2 * limits.MOST_DEPTH:
            raise ConstraintRefused(path[:80] + "…", f"nested deeper than {limits.MOST_DEPTH} schemas")
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            raise ConstraintRefused(path, "a schema is a JSON object, true or false")
        if self._has_lonely_ref and "$ref" in node:
            node = {"$ref": node["$ref"]}
        for keyword in REFUSED:
            if keyword in node:
                raise ConstraintRefused(f"{path}/{keyword}", f"'{keyword}' is not supported")
        if path != "#" and _own_address(node) and _has_reference(node):
            raise ConstraintRefused(f"{path}/$id", "references below an '$id' of its own are not supported")
        given = dict(node)
        self._drop_what_is_no_text(given)
        self._modernize(given, path)
        _check_object(given, path)
        _check_unique(given, path)
        return {
            keyword: _HANDLERS[keyword](self, given[keyword], f"{path}/{_escaped(keyword)}")
            for keyword in _order(given)
            if keyword in given
        }

    def _modernize(self, node: dict[str, Json], path: str) -> None:
        """Older spellings of what draft 2020-12 has too."""
        items = node.get("items")
        if isinstance(items, list):
            node["prefixItems"] = items
            node["items"] = node.get("additionalItems", True)
        elif self._is_old and "prefixItems" in node:
            raise ConstraintRefused(f"{path}/prefixItems", "not known to the draft that '$schema' names")
        exact = EXACT_FORMATS.get(str(node.get("format")))
        if exact is not None and isinstance(node.get("allOf", []), list):
            del node["format"]
            node["allOf"] = [*node.get("allOf", []), {"pattern": exact}]
        for side in ("inimum", "aximum"):
            exclusive, inclusive = "exclusiveM" + side, "m" + side
            is_exclusive = isinstance(node.get(exclusive), bool) and node.pop(exclusive)
            if is_exclusive and inclusive in node:
                node[exclusive] = node.pop(inclusive)

    def _drop_what_is_no_text(self, node: dict[str, Json]) -> None:
        """A format such as "int32" says nothing of numbers, to a validator either."""
        types = node.get("type")
        types = [types] if isinstance(types, str) else types
        if isinstance(types, list) and "string" not in types:
            for keyword in ("format", "pattern", "minLength", "maxLength"):
                node.pop(keyword, None)

    def subschemas(self, value: Json, path: str) -> list[Json]:
        if not isinstance(value, list) or not value:
            raise ConstraintRefused(path, "expected a list of schemas")
        return [self.schema(item, f"{path}/{index}") for index, item in enumerate(value)]

    def branches(self, value: Json, path: str) -> list[Json]:
        if isinstance(value, list) and len(value) > limits.MOST_BRANCHES:
            raise ConstraintRefused(path, f"more than {limits.MOST_BRANCHES} branches")
        return self.subschemas(value, path)

    def properties(self, value: Json, path: str) -> dict[str, Json]:
        if not isinstance(value, dict):
            raise ConstraintRefused(path, "expected an object of schemas")
        if len(value) > limits.MOST_PROPERTIES:
            raise ConstraintRefused(path, f"more than {limits.MOST_PROPERTIES} properties")
        for name in value:
            _check_text(name, path)
        return {name: self.schema(item, f"{path}/{_escaped(name)}") for name, item in value.items()}

    def pattern_properties(self, value: Json, path: str) -> dict[str, Json]:
        named = self.properties(value, path)
        return {self.pattern(name, f"{path}/{_escaped(name)}"): item for name, item in named.items()}

    def pattern(self, value: Json, path: str) -> str:
        if not isinstance(value, str):
            raise ConstraintRefused(path, "expected a string")
        _check_text(value, path)
        try:
            return patterns.rewritten(value, in_json=True)
        except ValueError as error:
            raise ConstraintRefused(path, str(error)) from None

    def reference(self, value: Json, path: str) -> str:
        if not isinstance(value, str):
            raise ConstraintRefused(path, "expected a string")
        pointer = value.removeprefix(self._own_address) if self._own_address else value
        if pointer not in ("", "#") and not pointer.startswith("#/"):
            raise ConstraintRefused(path, "only references within the schema ('#/…') are supported")
        pointer = unquote(pointer.removeprefix("#"))
        name = self._names.get(pointer)
        if name is None:
            if len(self._names) >= limits.MOST_NODES // 4:
                raise ConstraintRefused(path, f"more than {limits.MOST_NODES // 4} references")
            name = self._names[pointer] = f"d{len(self._names)}"
            self.places[name] = f"#{pointer}"
            self._waiting.append((name, self._find(pointer, path), f"#{pointer}"))
        return f"#/$defs/{name}"

    def _find(self, pointer: str, path: str) -> Json:
        found: Json = self._root
        for step in pointer.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and step in found:
                if found is not self._root and _own_address(found):
                    raise ConstraintRefused(path, "references into an '$id' of its own are not supported")
                found = found[step]
            elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                found = found[int(step)]
            else:
                raise ConstraintRefused(path, "points at nothing")
        return found

    def values(self, value: Json, path: str) -> list[Json]:
        if not isinstance(value, list) or not value:
            raise ConstraintRefused(path, "expected a list of values")
        for index, item in enumerate(value):
            self.constant(item, f"{path}/{index}")
        return value

    def constant(self, value: Json, path: str) -> Json:
        self._num_values += 1
        if self._num_values > limits.MOST_VALUES:
            raise ConstraintRefused(path, f"more than {limits.MOST_VALUES} values")
        if path.count("/") > 2 * limits.MOST_DEPTH:
            raise ConstraintRefused(path[:80] + "…", f"nested deeper than {limits.MOST_DEPTH} values")
        if isinstance(value, str):
            _check_text(value, path)
            try:
                patterns.check_quotable(value)
            except ValueError as error:
                raise ConstraintRefused(path, str(error)) from None
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self.constant(item, f"{path}/{index}")
        elif isinstance(value, dict):
            for name, item in value.items():
                _check_text(name, path)
                self.constant(item, f"{path}/{_escaped(name)}")
        elif value is not None and not isinstance(value, bool):
            return self.number(value, path)
        return value

    def number(self, value: Json, path: str) -> Json:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConstraintRefused(path, "expected a number")
        if not math.isfinite(value) or abs(value) > limits.MOST_EXACT:
            raise ConstraintRefused(path, "numbers beyond 2^53 are not supported")
        return value

    def factor(self, value: Json, path: str) -> Json:
        number = Decimal(str(self.number(value, path))).normalize()
        digits = int("".join(map(str, number.as_tuple().digits)))
        exponent = number.as_tuple().exponent
        if number <= 0:
            raise ConstraintRefused(path, "expected a number above 0")
        if isinstance(exponent, int) and exponent > 0:
            digits *= 10**exponent
        if digits > limits.MOST_FACTOR:
            most = limits.MOST_FACTOR
            raise ConstraintRefused(path, f"supported up to {most}, not counting the decimal point")
        return value

    def count(self, value: Json, path: str) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConstraintRefused(path, "expected a whole number from 0 on")
        if value > limits.MOST_LENGTH:
            raise ConstraintRefused(path, f"supported up to {limits.MOST_LENGTH}")
        return value

    def types(self, value: Json, path: str) -> Json:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names or any(name not in TYPES for name in names):
            raise ConstraintRefused(path, f"expected one or more of {', '.join(TYPES)}")
        if "number" in names:
            names = [name for name in names if name != "integer"]
        return names[0] if len(names) == 1 else list(dict.fromkeys(names))

    def names(self, value: Json, path: str) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise ConstraintRefused(path, "expected a list of names")
        if len(value) > limits.MOST_PROPERTIES:
            raise ConstraintRefused(path, f"more than {limits.MOST_PROPERTIES} names")
        for name in value:
            _check_text(name, path)
        return list(dict.fromkeys(value))

    def format(self, value: Json, path: str) -> str:
        if not isinstance(value, str) or value not in FORMATS:
            raise ConstraintRefused(path, f"format {value!r:.60} is not supported; {', '.join(FORMATS)} are")
        return value


_HANDLERS: dict[str, Handler] = {
    "type": _Reader.types,
    "properties": _Reader.properties,
    "patternProperties": _Reader.pattern_properties,
    "additionalProperties": _Reader.schema,
    "required": _Reader.names,
    "prefixItems": _Reader.subschemas,
    "items": _Reader.schema,
    "multipleOf": _Reader.factor,
    "pattern": _Reader.pattern,
    "format": _Reader.format,
    "const": _Reader.constant,
    "enum": _Reader.values,
    "$ref": _Reader.reference,
    "allOf": _Reader.subschemas,
    "anyOf": _Reader.subschemas,
    "oneOf": _Reader.branches,
    **dict.fromkeys(
        ("minProperties", "maxProperties", "minItems", "maxItems", "minLength", "maxLength"), _Reader.count
    ),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _Reader.number),
}


def _order(node: dict[str, Json]) -> tuple[str, ...]:
    for keyword in node:
        if keyword == "properties":
            break
        if keyword in ("$ref", "allOf", "anyOf", "oneOf"):
            return COMBINED + PLAIN
    return PLAIN + COMBINED


def _check_object(node: dict[str, Json], path: str) -> None:
    """llguidance does not keep names apart that are written by no `properties`: they may repeat, and then
    count as several where the parsed object has one."""
    fewest = node.get("minProperties", 0)
    required = node.get("required", ())
    if not isinstance(fewest, int | float) or not isinstance(required, list | tuple):
        return  # refused by its handler
    if fewest > len(set(map(str, required))) + 1:
        raise ConstraintRefused(
            f"{path}/minProperties", "supported up to one more than there are required properties"
        )
    properties = node.get("properties", {})
    counted = "maxProperties" in node or fewest > len(required)
    if counted and isinstance(properties, dict) and len(properties) > len(required) + limits.MOST_OPTIONAL:
        raise ConstraintRefused(
            f"{path}/properties", f"more than {limits.MOST_OPTIONAL} optional ones beside a count of them"
        )


def _check_unique(node: dict[str, Json], path: str) -> None:
    if node.get("uniqueItems", False) is not False and node.get("maxItems") not in (0, 1):
        raise ConstraintRefused(f"{path}/uniqueItems", "'uniqueItems' is not supported")


def _check_text(text: str, path: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConstraintRefused(path, "half a surrogate pair is no character") from None


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _own_address(node: dict[str, Json]) -> str:
    """Of a schema that says where it lives; "id" is draft 4's name for it, and often just a property's."""
    for keyword in ("$id", "id"):
        value = node.get(keyword)
        if isinstance(value, str) and not value.startswith("#"):
            return value.removesuffix("#")
    return ""


def _has_reference(node: Json) -> bool:
    if isinstance(node, dict):
        return "$ref" in node or any(map(_has_reference, node.values()))
    return isinstance(node, list) and any(map(_has_reference, node))


def _has_finite_value(root: dict[str, Json]) -> bool:
    """Whether something of finite size matches: a required property may need itself for ever."""
    definitions = root.get("$defs", {})
    finite: set[str] = set()
    for _ in range(limits.MOST_ROUNDS):
        known = len(finite)
        for name in reversed(definitions):  # what was referred to last refers to the fewest
            if name not in finite and _ends(definitions[name], finite):
                finite.add(name)
        if len(finite) == known:
            return _ends(root, finite)
    raise ConstraintRefused("#", "references are too entangled")


def _ends(node: Json, finite: set[str]) -> bool:
    """Whether ``node`` has a finite value when those definitions have one."""
    if isinstance(node, bool):
        return node
    if "$ref" in node and node["$ref"].removeprefix("#/$defs/") not in finite:
        return False
    if not all(_ends(part, finite) for part in node.get("allOf", ())):
        return False
    for keyword in ("anyOf", "oneOf"):
        if keyword in node and not any(_ends(part, finite) for part in node[keyword]):
            return False
    types = node.get("type", TYPES)
    types = {types} if isinstance(types, str) else set(types)
    if "const" in node or "enum" in node or types - {"array", "object"}:
        return True
    return ("object" in types and _object_ends(node, finite)) or (
        "array" in types and _array_ends(node, finite)
    )


def _object_ends(node: dict[str, Json], finite: set[str]) -> bool:
    others = node.get("additionalProperties", True)
    if "patternProperties" in node:
        others = True
    return all(
        _ends(node.get("properties", {}).get(name, others), finite) for name in node.get("required", ())
    )


def _array_ends(node: dict[str, Json], finite: set[str]) -> bool:
    fewest = node.get("minItems", 0)
    prefix = node.get("prefixItems", [])
    if not all(_ends(item, finite) for item in prefix[:fewest]):
        return False
    return fewest <= len(prefix) or _ends(node.get("items", True), finite)
