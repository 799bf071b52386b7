"""Choices, GBNF, Lark and structural tags."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rllm.engine.constraint import Constraint, Kind
from rllm.errors import ConstraintRefused
from tests.constraint.answers import COMPILER, accepts

JSON_GBNF = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws # with escapes
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""
FUNCTION = {
    "begin": "<function=add>",
    "schema": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    "end": "</function>",
}
TAGS = {
    "structures": [FUNCTION, {"begin": "<function=say>", "schema": {"type": "string"}, "end": "</function>"}],
    "triggers": ["<function="],
}

CASES: dict[str, tuple[Kind, str, list[str], list[str]]] = {
    "choices": (
        Kind.CHOICE,
        '["a", "ab", "é\\n\\"\\\\/", "\\u0001"]',
        ["a", "ab", 'é\n"\\/', "\x01"],
        ["abc", "b"],
    ),
    "a regular grammar takes no more than it may": (Kind.GRAMMAR, 'root ::= [a-z]+ "x"', ["abcx"], ["abc"]),
    "escapes": (Kind.GRAMMAR, r'root ::= "\u0041" [\u0042-\u0044] "\x45" "\u0022\\/"', ['ABE"\\/'], ["AAE"]),
    "any character": (Kind.GRAMMAR, 'root ::= "a" . "b"', ["axb", "a\nb", "aéb"], ["ab"]),
    "repetitions": (Kind.GRAMMAR, 'root ::= "a"{2,3} "b"{2} ("c" | )', ["aabb", "aaabbc"], ["abb", "aab"]),
    "classes": (Kind.GRAMMAR, r"root ::= [a\]/&|-]+ [^a] [あ-ん]", ["a]/&|-bあ"], ["aaあ", "abx"]),
    "left recursion": (Kind.GRAMMAR, 'root ::= root "a" | "b"', ["b", "baa"], ["a", "ab"]),
    "nested": (
        Kind.GRAMMAR,
        'root ::= sum\nsum ::= term ("+" term)*\nterm ::= [0-9]+ | "(" sum ")"',
        ["1", "12+3", "(1+2)+3"],
        ["1+", "()", "(1"],
    ),
    "llama.cpp's JSON": (
        Kind.GRAMMAR,
        JSON_GBNF,
        ["{}", '{"a": [1, 2.5, "x\\n"], "b": {}}', '{"a":true }'],
        ["[1]", '{"a": }', '{"a" 1}', "{}}"],
    ),
    "Lark": (Kind.GRAMMAR, 'start: "<a>" B // @x %json\nB: /[<@]+/', ["<a><@"], ["<a>"]),
    "structural tags": (
        Kind.STRUCTURAL_TAG,
        json.dumps(TAGS),
        [
            "no tag at all",
            "a < b\n<func",
            'first <function=add>{"a": 1}</function> last',
            '<function=say>"x"</function><function=add>{"a": 1}</function>',
        ],
        ["<function=", '<function=add>{"a": "x"}</function>', "<function=sub>", '<function=say>"x"</func'],
    ),
}


@pytest.mark.parametrize(("kind", "source", "good", "bad"), CASES.values(), ids=CASES.keys())
def test_answers(kind: Kind, source: str, good: list[str], bad: list[str]) -> None:
    compiled = COMPILER.compile(Constraint(kind, source))
    assert [text for text in good if not accepts(compiled, text)] == []
    assert [text for text in bad if accepts(compiled, text)] == []


def tags(**changed: Any) -> str:
    return json.dumps({**TAGS, **changed})


REFUSED: dict[str, tuple[Kind, str, str, str]] = {
    "no list": (Kind.CHOICE, '"a"', "#", "list"),
    "no choice": (Kind.CHOICE, "[]", "#", "list"),
    "an empty choice": (Kind.CHOICE, '["a", ""]', "#/1", "character"),
    "choices that are no texts": (Kind.CHOICE, "[1]", "#", "texts"),
    "not JSON": (Kind.CHOICE, "[", "#", "not JSON"),
    "neither": (Kind.GRAMMAR, "hello", "#", "neither"),
    "llguidance's own": (Kind.GRAMMAR, '{"grammars": [{"json_schema": {}}]}', "#", "neither"),
    "no root": (Kind.GRAMMAR, 'x ::= "a"', "#", "root"),
    "an unknown rule": (Kind.GRAMMAR, "root ::= x", "#", "'x' not found"),
    "half a class": (Kind.GRAMMAR, "root ::= [a", "#", "end of input"),
    "a class of Rust's": (Kind.GRAMMAR, "root ::= [a&&b]", "#", "&&"),
    "names that become one": (
        Kind.GRAMMAR,
        'root ::= aB a-b\naB ::= "x"\na-b ::= "y"',
        "#",
        "already exists",
    ),
    "a rule that never ends": (Kind.GRAMMAR, "start: a\na: a", "#", "no answer"),
    "an unknown rule in Lark": (Kind.GRAMMAR, "start: x", "#", "x"),
    "a schema in Lark": (Kind.GRAMMAR, 'start: %json {"x-guidance": {"lenient": true}}', "#", "%json"),
    "a special token in Lark": (Kind.GRAMMAR, "start: <|im_end|>", "#", "special"),
    "another grammar in Lark": (Kind.GRAMMAR, "start: @other", "#", "further"),
    "an attribute in Lark": (Kind.GRAMMAR, 'start: a\na[stop="x"]: /.*/', "#", "'stop'"),
    "a temperature in Lark": (Kind.GRAMMAR, "start: a\na[temperature=2]: /.*/", "#", "'temperature'"),
    "tags of another form": (Kind.STRUCTURAL_TAG, '{"format": {}}', "#", "structures"),
    "no triggers": (Kind.STRUCTURAL_TAG, tags(triggers=None), "#/triggers", "list"),
    "a tag without its trigger": (
        Kind.STRUCTURAL_TAG,
        tags(triggers=["["]),
        "#/structures/0/begin",
        "triggers",
    ),
    "a tag with a schema that is refused": (
        Kind.STRUCTURAL_TAG,
        tags(structures=[{**FUNCTION, "schema": {"items": {"not": {}}}}]),
        "#/structures/0/schema/items/not",
        "'not'",
    ),
    "a tag without an end": (
        Kind.STRUCTURAL_TAG,
        tags(structures=[{"begin": "<function="}]),
        "#/structures/0",
        "'end'",
    ),
}


@pytest.mark.parametrize(("kind", "source", "path", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_enforced_is_refused(kind: Kind, source: str, path: str, reason: str) -> None:
    with pytest.raises(ConstraintRefused) as refused:
        COMPILER.compile(Constraint(kind, source))
    assert (refused.value.path, reason in refused.value.reason) == (path, True), str(refused.value)


def test_any_json_object() -> None:
    tight = COMPILER.compile(Constraint(Kind.JSON_OBJECT))
    loose = COMPILER.compile(Constraint(Kind.JSON_OBJECT, any_whitespace=True))
    assert accepts(tight, '{"a": [1, {"b": null}]}')
    assert not any(accepts(tight, text) for text in ("[]", '{"a":1}', "{ }", " {}", "{} "))
    assert accepts(loose, '{\n  "a" : [1,2]\n}')
    assert not accepts(loose, "{" + 41 * " " + "}"), "white space has an end"
