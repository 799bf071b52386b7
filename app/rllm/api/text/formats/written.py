"""One call as a template wrote it, taken apart: texts in, texts with slots out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from rllm.api.text.formats.probe import NAMES, OTHER, OTHER_VALUE, PARAMETER, VALUE
from rllm.api.text.formats.shapes import KEY, KIND, ArgumentTags, Style
from rllm.api.text.formats.units import common_prefix, common_suffix, units, with_slots, without_suffix

_UNQUOTED = re.compile(rf"(.*?)\{{{PARAMETER}:(.*?){VALUE}(.*?)\}}", re.DOTALL)


class Written(NamedTuple):
    style: Style
    before: str
    """Up to the name."""
    between: str
    """From there to the arguments."""
    after: str
    """From their end to the end of the turn."""
    quote: str = '"'


class Sections(NamedTuple):
    section_begin: str
    before_name: str
    before_arguments: str
    after_arguments: str
    separator: str
    section_end: str


def take_apart(turn: str, number: int) -> Written | None:
    """The call ``number`` of a turn, which has the one argument `PARAMETER` = `VALUE`."""
    name = NAMES[number]
    key = turn.find(PARAMETER)
    start = turn.rfind(name, 0, key) if key >= 0 else -1
    if start < 0:
        return None
    before, rest = turn[:start], turn[start + len(name) :]
    if (region := _json_region(rest)) is not None:
        has_name = _is_inside(turn, start, name)
        style = Style.JSON if has_name else Style.NAMED_JSON
        return Written(style, before, rest[: region[0]], rest[region[1] :])
    if rest.startswith(f"({PARAMETER}="):
        end = rest.index(")", rest.index(VALUE))
        return Written(Style.PYTHON, before, "(", rest[end:])
    if found := _UNQUOTED.match(rest):
        between, quote, closing = found.groups()
        if quote == closing:
            return Written(Style.UNQUOTED, before, between, rest[found.end() :], quote)
    key, value = rest.index(PARAMETER), rest.find(VALUE)
    if value < 0:
        return None
    return Written(Style.TAGGED, before, rest[:key], rest[value + len(VALUE) :])


def _json_region(rest: str) -> tuple[int, int] | None:
    start = rest.rfind("{", 0, rest.index(PARAMETER))
    if start < 0:
        return None
    try:
        value, end = json.JSONDecoder().raw_decode(rest, start)
    except ValueError:
        return None
    return (start, end) if value == {PARAMETER: VALUE} else None


def _is_inside(turn: str, start: int, name: str) -> bool:
    """Whether the name is the value of a field of an object, which also has the arguments."""
    while (start := turn.rfind("{", 0, start)) >= 0:
        try:
            value, _ = json.JSONDecoder().raw_decode(turn, start)
        except ValueError:
            continue
        if name in value.values():
            return True
    return False


def sections(one: Written, both: Written, after: str) -> Sections | None:
    """Where calls begin and end, by a turn with one call and one with two.

    Args:
        both: the first call of the turn with two.
        after: of ``one``, without the end of the turn.

    None: a second call is not written, or not like the first.
    """
    middle, found, _ = both.after.partition(NAMES[1])
    second = take_apart(both.after, 1) if found else None
    between = with_slots(one.between, second.between) if second else None
    if between is None:
        return None
    before_name = common_suffix(one.before, middle)
    rest = without_suffix(middle, before_name)
    after_arguments = common_prefix(after, rest)
    return Sections(
        section_begin=without_suffix(one.before, before_name),
        before_name=before_name,
        before_arguments=between,
        after_arguments=after_arguments,
        separator=rest[len(after_arguments) :],
        section_end=after[len(after_arguments) :],
    )


def tags_of(call: Written, two: str) -> ArgumentTags | None:
    """By a turn whose call has two arguments."""
    places = [two.find(PARAMETER), two.find(VALUE), two.find(OTHER), two.find(OTHER_VALUE)]
    if -1 in places or places != sorted(places):
        return None
    key, value, other, last = places
    middle = two[value + len(VALUE) : other].replace(PARAMETER, KEY)
    post = two[last + len(OTHER_VALUE) :].replace(OTHER, KEY)
    before_key = common_suffix(call.between, middle)
    rest = without_suffix(middle, before_key)
    after_value = common_prefix(rest, post)
    return ArgumentTags(
        before_key=before_key,
        before_value=two[key + len(PARAMETER) : value],
        after_value=after_value,
        separator=rest[len(after_value) :],
    )


def without_tags(parts: Sections, tags: ArgumentTags) -> Sections:
    """The argument's tags stand beside it: they are no part of the call around it."""
    after = parts.after_arguments.replace(PARAMETER, KEY)
    return parts._replace(
        before_arguments=without_suffix(parts.before_arguments, tags.before_key),
        after_arguments=after.removeprefix(tags.after_value),
    )


def kinds_of(gap: str, others: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """``before_value`` with a slot for the word that names the value's type, and these words.

    Args:
        gap: between key and value where the value is a string.
        others: the same for other types.
    """
    found = units(gap)
    different = {
        place
        for each in others.values()
        if len(mine := units(each)) == len(found)
        for place, (one, other) in enumerate(zip(found, mine, strict=True))
        if one != other
    }
    if len(different) != 1:
        return gap, {}
    (place,) = different
    words = {kind: units(each)[place] for kind, each in others.items() if len(units(each)) == len(found)}
    return "".join([*found[:place], KIND, *found[place + 1 :]]), {"string": found[place], **words}


def gap_before(turn: str, value: str) -> str | None:
    """Between the key and a value that begins like this."""
    start = turn.find(PARAMETER) + len(PARAMETER)
    end = turn.find(value, start)
    return turn[start:end] if end >= 0 else None


def json_values(tags: ArgumentTags) -> ArgumentTags:
    """Strings in quotes are JSON, like the rest."""
    if not (tags.before_value.endswith('"') and tags.after_value.startswith('"')):
        return tags
    return ArgumentTags(
        before_key=tags.before_key,
        before_value=tags.before_value[:-1],
        after_value=tags.after_value[1:],
        separator=tags.separator,
        raw_strings=False,
    )


def example(arguments: Mapping[str, Any], *, as_text: bool) -> object:
    return json.dumps(arguments) if as_text else dict(arguments)
