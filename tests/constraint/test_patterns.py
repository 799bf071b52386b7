"""A pattern means what ECMA-262 says, and what Python's `re` says; where that cannot be, it is refused."""

from __future__ import annotations

import json
import re
import warnings
from random import Random

import pytest

from rllm.backends.constraint.compiler import Compiled
from rllm.engine.constraint import Constraint, Kind
from rllm.errors import ConstraintRefused
from tests.constraint.answers import COMPILER, accepts, drawn, of_schema

PATTERNS = (
    "^a|b$", "(^a)", "^(?:a|b)*$", "(?i)abc", "^[^[\\]]+$", "^[[a]$", "^[a&&b]+$", "^[a~~b]$",
    "^[\\w.-]+@x$", "^[-a]$", "^[a\\-z]$", "^[^a]$", "^\\W$", "^[^\\w]$", "^\\D\\d$", "^[^\\d]$",
    "^\\S+$", "^[\\s\\S]$", "^.$", "^\\/a\\/$", "^\\<a\\>$", "^[\\u0041-\\u0043]$", "^\\x41$",
    "^a{2}b?c+?$", "^a{2,}?$", "^ #$", "^[#x ]$", "^\\.$", "^\\$$", "^\\\\$", '^"$', '^["\\\\]$', "^é$",
    "^\\t$", "^a\\nb$", "^$", "", "a.b", "^[ -~]+$", "^[\\x00-\\x7f]+$", "^[^\\x00-\\x1f]+$",
    "^[a-z0-9]+(?:-[a-z0-9]+)*$", "^\\d{1,3}(,\\d{3})*(\\.\\d+)?$",
)  # fmt: skip
REFUSED = {
    "(?=a)b": "lookahead", "(?!a)b": "lookahead", "(?<=a)b": "lookbehind", "(?<!a)b": "lookbehind",
    "\\bfoo": "boundaries", "foo\\B": "boundaries", "(a)\\1": "references", "(?<n>a)\\k<n>": "references",
    "a++": "possessive", "a*+": "possessive", "a{2}+": "possessive", "a**": "possessive", "(?>a)": "group",
    "(?x)a b": "group", "(?P=n)": "group", "[]": "empty class", "[^]": "empty class", "[a--b]": "doubled",
    "[a": "not closed", "\\cA": "not supported", "\\Z": "not supported", "\\A": "not supported",
    "\\u12": "surrogate", "\\uzzzz": "hexadecimal", "\\ud83d": "surrogate", "^\\x01$": "control",
    "^a\\vb$": "control", "^[\\x01-\\x07]$": "control", "\x7f": "control", "a" * 5000: "at most",
    "\\": "not supported",
}  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_a_pattern_allows_python_matches(pattern: str) -> None:
    compiled = of_schema({"type": "string", "pattern": pattern, "maxLength": 12})
    random = Random(pattern)
    answers = [drawn(compiled, random) for _ in range(20)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Python may once read [a&&b] otherwise too
        expression = re.compile(pattern)
    assert [answer for answer in answers if answer and not expression.search(json.loads(answer))] == []
    assert any(answers)


@pytest.mark.parametrize(("pattern", "reason"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_means_something_else_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ConstraintRefused, match=reason):
        of_schema({"type": "string", "pattern": pattern})


def of_regex(source: str) -> Compiled:
    return COMPILER.compile(Constraint(Kind.REGEX, source))


@pytest.mark.parametrize(
    ("source", "good", "bad"),
    [
        ("[a-z]+x", ["abcx", "xx"], ["abc", "x1"]),
        ("^a|b$", ["a", "b"], ["ab", "ax"]),
        ("^a\\$", ["a$"], ["a"]),
        ("a\\\\$", ["a\\"], ["a\\\\"]),
        ("a/b|c\\/d", ["a/b", "c/d"], ["a"]),
        ("(a|b)*\\d{3}", ["aab123"], ["12"]),
        ('x\n#"y"', ['x\n#"y"'], ["x"]),
        ("\\x01", ["\x01"], [""]),
        ("é+", ["éé"], ["e"]),
    ],
)
def test_a_regex_matches_the_whole_answer(source: str, good: list[str], bad: list[str]) -> None:
    compiled = of_regex(source)
    assert [text for text in good if not accepts(compiled, text)] == []
    assert [text for text in bad if accepts(compiled, text)] == []


@pytest.mark.parametrize("source", ["(a", "a)", "[z-a]", "a{3,2}", "*", "(?=a)"])
def test_a_regex_that_is_none_is_refused(source: str) -> None:
    with pytest.raises(ConstraintRefused):
        of_regex(source)
