"""Constraints that are no schema, as Lark text for llguidance."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from llguidance import gbnf_to_lark as gbnf

from rllm.backends.constraint import limits, patterns, schema
from rllm.backends.constraint.limits import MOST_RULES, MOST_VALUES
from rllm.errors import ConstraintRefused

JSON_STYLES: dict[bool, dict[str, Any]] = {
    False: {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "},
    True: {"whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,40}"},
}
"""By `Constraint.any_whitespace`. Where any is allowed it has an end, or a model may go on for ever."""
JSON_OPTIONS: dict[str, Any] = {"json_allowed_escapes": 'nrbtf\\"'}
"""Without ``\\u``: "\\u0061" is "a", and would pass for a property that has another schema."""

_TEXT = r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/|(?://|#)[^\n]*'
_LARK = re.compile(r"(?m)^\s*(?:%llguidance\b|start\s*(?:\[[^\]]*\])?\s*:)")
_ATTRIBUTES = re.compile(r"\[[^\]\n]*\b(stop|temperature|max_tokens|suffix)\b")


def choice(source: str) -> str:
    """One of several texts."""
    options = _loaded(source)
    if not isinstance(options, list) or not options or not all(isinstance(item, str) for item in options):
        raise ConstraintRefused("#", "expected a list of texts")
    if len(options) > MOST_VALUES:
        raise ConstraintRefused("#", f"more than {MOST_VALUES} choices")
    for index, option in enumerate(options):
        if not option:
            raise ConstraintRefused(f"#/{index}", "a choice has at least one character")
    # one terminal, so that a choice may begin with another
    return "start: CHOICE\nCHOICE: " + " | ".join(map(_quoted, options))


def regex(source: str) -> str:
    """The whole answer matches; anchors at its ends change nothing and are left out."""
    inner = source.removeprefix("^")
    if inner.endswith("$") and not re.search(r"(?:^|[^\\])(?:\\\\)*\\\$$", inner):
        inner = inner[:-1]
    try:
        pattern = patterns.rewritten(inner, in_json=False)
    except ValueError as error:
        raise ConstraintRefused("#", str(error)) from None
    return json.dumps({"grammars": [{"lark_grammar": f"start: WHOLE\nWHOLE: /{_slashed(pattern)}/"}]})


def grammar(source: str) -> str:
    """GBNF or Lark."""
    if _LARK.search(source):
        return _checked_lark(source)
    if "::=" in source:
        return _checked_lark(_lark_of_gbnf(source))
    raise ConstraintRefused("#", "neither GBNF (root ::= …) nor Lark (start: …)")


def _checked_lark(text: str) -> str:
    """What has a meaning for other engines than this one is refused, not ignored."""
    bare = re.sub(_TEXT, '""', text)
    if bare.count(":") > MOST_RULES:
        raise ConstraintRefused("#", f"more than {MOST_RULES} rules")
    for word in ("%json", "%import", "%include", "%declare", "%override", "%extend"):
        if word in bare:
            raise ConstraintRefused("#", f"{word} is not supported in a grammar")
    if found := _ATTRIBUTES.search(bare):
        raise ConstraintRefused("#", f"the attribute '{found[1]}' is not supported in a grammar")
    if "<" in bare or "@" in bare:
        raise ConstraintRefused("#", "special tokens and further grammars are not supported in a grammar")
    return text


def _lark_of_gbnf(text: str) -> str:
    try:
        rules = gbnf.GrammarParser().parse(
            re.sub(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))", _character, text)
        )
        if "root" not in rules:
            raise ConstraintRefused("#", "a GBNF grammar begins with a rule 'root'")
        _wrap_root(rules)
        for node in (node for rule in rules.values() for node in _nodes(rule)):
            if isinstance(node, gbnf.RegexNode) and node.rx == ".":
                node.rx = "(?s:.)"
            elif isinstance(node, gbnf.RegexNode):
                node.rx = _class_of_gbnf(node.rx)
        gbnf.resolve(rules)
    except ConstraintRefused:
        raise
    except RecursionError:
        raise ConstraintRefused("#", "nested too deeply") from None
    except Exception as error:  # the converter raises bare ones, of every kind
        raise ConstraintRefused("#", f"GBNF: {error}") from None
    return "\n".join(str(rule) for rule in sorted(rules.values(), key=lambda rule: rule.order))


def _character(found: re.Match[str]) -> str:
    r"""``\u0041``, which the converter gets wrong, as the character itself."""
    char = chr(min(int(found[1] or found[2], 16), 0x10FFFF))
    return f"\\{char}" if char in '"\\[]' else f"\\x{ord(char):02x}" if char < " " else char


def _class_of_gbnf(pattern: str) -> str:
    return re.sub(r"(?<!\\)(?:\\\\)*(?:&&|--|~~)", _refused_class, pattern)


def _refused_class(found: re.Match[str]) -> str:
    raise ConstraintRefused("#", f"{found[0]} in a class of characters is not supported")


def _wrap_root(rules: dict[str, Any]) -> None:
    """Rules without recursion become one regular expression each, and are then matched exactly; the
    converter never does that to the first."""
    inner = rules.pop("root")
    inner.name = "whole-answer"
    for rule in (*rules.values(), inner):
        for node in _nodes(rule):
            if isinstance(node, gbnf.RuleRefNode) and node.name == "root":
                node.name = inner.name
    body = gbnf.AlternativeNode([gbnf.SequenceNode([gbnf.RuleRefNode(inner.name)])])
    others = dict(rules)
    rules.clear()
    rules["root"] = gbnf.RuleNode("root", body, "")
    rules[inner.name] = inner
    rules.update(others)


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for child in node.children():
        yield from _nodes(child)


def structural_tag(source: str, *, any_whitespace: bool) -> str:
    """Free text; after a trigger one of the tags that begin with it, JSON, and the end of that tag."""
    asked = _loaded(source)
    if not isinstance(asked, dict):
        raise ConstraintRefused("#", "expected an object")
    if "format" in asked or "structures" not in asked:
        raise ConstraintRefused("#", "only 'structures' with 'triggers' are supported")
    structures, triggers = asked["structures"], asked.get("triggers")
    if not isinstance(structures, list) or not 0 < len(structures) <= limits.MOST_BRANCHES:
        raise ConstraintRefused("#/structures", f"expected 1 to {limits.MOST_BRANCHES} of them")
    if not isinstance(triggers, list) or not all(isinstance(item, str) and item for item in triggers):
        raise ConstraintRefused("#/triggers", "expected a list of texts")
    rules = [
        _tag(index, tag, triggers, any_whitespace=any_whitespace) for index, tag in enumerate(structures)
    ]
    tags = " | ".join(f"tag_{index}" for index in range(len(rules)))
    return "\n".join([f"start: ({tags})* rest", "rest: TEXT", r"TEXT: /(.|\n)*/", *rules])


def _tag(index: int, tag: Any, triggers: list[str], *, any_whitespace: bool) -> str:
    path = f"#/structures/{index}"
    if not isinstance(tag, dict) or not all(isinstance(tag.get(key), str) for key in ("begin", "end")):
        raise ConstraintRefused(path, "expected an object with 'begin', 'schema' and 'end'")
    begin = tag["begin"]
    trigger = next((item for item in triggers if begin.startswith(item)), None)
    if trigger is None:
        raise ConstraintRefused(f"{path}/begin", "begins with none of the triggers")
    inner = tag.get("schema", {})
    try:
        wanted, _ = schema.rewritten(_loaded(inner) if isinstance(inner, str) else inner)
    except ConstraintRefused as error:
        raise ConstraintRefused(f"{path}/schema{error.path[1:]}", error.reason) from None
    wanted["x-guidance"] = {**JSON_OPTIONS, **JSON_STYLES[any_whitespace]}
    parts = [f"tag_{index}_trigger", _optional(begin[len(trigger) :]), f"%json {json.dumps(wanted)}"]
    return (
        f"tag_{index}_trigger[lazy]: TEXT {_quoted(trigger)}\n"
        f"tag_{index}: {' '.join(filter(None, [*parts, _optional(tag['end'])]))}"
    )


def _optional(text: str) -> str:
    return _quoted(text) if text else ""


def _quoted(text: str) -> str:
    """As a literal of Lark."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConstraintRefused("#", "half a surrogate pair is no character") from None
    return json.dumps(text, ensure_ascii=False)


def _slashed(pattern: str) -> str:
    """Fit to stand between slashes."""
    escaped = re.sub(r"(\\.)|/", lambda found: found[1] or r"\/", pattern, flags=re.DOTALL)
    return escaped.replace("\n", r"\n")


def _loaded(source: str) -> Any:
    try:
        return json.loads(source)
    except (ValueError, RecursionError) as error:
        raise ConstraintRefused("#", f"not JSON: {error}") from None
