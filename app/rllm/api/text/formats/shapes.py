"""What is known about the way a model writes its thoughts and its calls.

Texts are as the template writes them; the parser is lenient about whitespace, a grammar is not. A text may
have slots, which stand for what differs from call to call.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import StrEnum

import msgspec

ID = "⟨id⟩"
INDEX = "⟨index⟩"
"""Of the call within the answer, from 0."""
NUMBER = "⟨number⟩"
"""The same, from 1."""
KEY = "⟨key⟩"
KIND = "⟨kind⟩"
"""A word for the JSON type of a value; see `ArgumentTags.kinds`."""


class Style(StrEnum):
    """How one call's arguments are written."""

    JSON = "JSON"
    """One object with the name and the arguments as fields."""
    NAMED_JSON = "name and JSON"
    """The arguments are an object; the name stands outside of it."""
    TAGGED = "a tag per argument"
    PYTHON = "Python"
    """f(a=1, b='x')."""
    UNQUOTED = "unquoted keys"
    """{a:1,b:"x"}, with a quote of the model's own."""
    HARMONY = "channels"
    """gpt-oss: messages with a header each."""


class IdForm(StrEnum):
    FREE = "free"
    NINE = "9 letters or digits"
    FUNCTIONS = "functions.NAME:INDEX"


class ArgumentTags(msgspec.Struct, frozen=True, kw_only=True):
    before_key: str
    before_value: str
    after_value: str
    separator: str = ""
    kinds: dict[str, str] = {}
    """JSON type → the word in `KIND`'s place; empty: values do not say their type."""
    raw_strings: bool = True
    """Strings stand as they are; otherwise every value is JSON."""


class ToolFormat(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    """Where this was found, in words for the operator: "the template", a family's name, "generic"."""
    style: Style
    section_begin: str = ""
    """Before the first call of a turn."""
    section_end: str = ""
    separator: str = ""
    before_name: str = ""
    before_arguments: str = ""
    after_arguments: str = ""
    tags: ArgumentTags | None = None
    quote: str = '"'
    """Around strings, where the style is `UNQUOTED`."""
    parallel: bool = True
    id_form: IdForm = IdForm.FREE
    arguments_as_text: bool = False
    """In history the template wants the arguments as JSON text and not as an object."""
    no_content: str | None = ""
    """The content of a message that only has calls."""
    tells_tools: bool = True
    """The template shows the model its tools; otherwise the system message has to."""
    writes_calls: bool = True
    """The template writes the calls of history; otherwise they stand in the content of their message."""
    shows_results: bool = True
    """The template has a role for results; otherwise they come from the user."""
    result_begin: str = ""
    """Before a result, which goes back as a turn of its own."""
    result_end: str = ""

    @property
    def marks(self) -> tuple[str, ...]:
        """What begins a turn's calls amid text; empty: calls can only be all of an answer."""
        marks = (mark_of(self.section_begin), mark_of(self.before_name))
        return tuple(mark for mark in dict.fromkeys(marks) if mark)

    def __str__(self) -> str:
        how = "parallel" if self.parallel else "one at a time"
        mark = f"{self.marks[0]} " if self.marks else ""
        origin = {GENERIC: "generic: the template has none", TEMPLATE: "from the template"}
        told = "" if self.tells_tools or self.source == GENERIC else ", told of in the system message"
        return f"{mark}{self.style}, {how}, {origin.get(self.source, f'known family {self.source}')}{told}"


class ReasoningFormat(msgspec.Struct, frozen=True, kw_only=True):
    begin: str
    end: str
    opened: bool = False
    """The prompt ends inside a thought unless the request says otherwise."""
    switch: str = ""
    """The template's variable that turns thinking on and off; empty: none was found."""
    takes_effort: bool = False
    """The template looks at ``reasoning_effort``."""
    field: str = ""
    """Of a message in history: where the template looks for its thought; empty: it shows none."""

    def is_open(self, prompt: str) -> bool:
        """Whether a prompt ends inside a thought, so that an answer begins there."""
        return prompt.rstrip().endswith(self.begin.strip())

    def __str__(self) -> str:
        extras = [
            "the prompt opens it" if self.opened else "",
            f"switch {self.switch}" if self.switch else "",
            "reasoning_effort" if self.takes_effort else "",
        ]
        return ", ".join(
            [f"{_shown(self.begin.strip())} … {_shown(self.end.strip())}", *filter(None, extras)]
        )


class AnswerFormat(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the parser and the grammar must know of one model."""

    tools: ToolFormat
    reasoning: ReasoningFormat | None = None
    wrappers: tuple[str, ...] = ()
    """Around plain text; they are no part of the answer."""
    takes_system: bool = True
    """The template shows messages of role system."""

    def has_marks_among(self, texts: Collection[str]) -> bool:
        """Whether some of these, the vocabulary's control texts, tell calls, thoughts or text apart."""
        tools, reasoning = self.tools, self.reasoning
        written = [
            tools.section_begin,
            tools.before_name,
            tools.before_arguments,
            tools.quote,
            *self.wrappers,
        ]
        if reasoning is not None:
            written += [reasoning.begin, reasoning.end]
        return any(text in each for each in written for text in texts)


_BLANK_OR_SLOT = re.compile(r"\s|⟨")
_TAG = re.compile(r"<[^<>]{2,}>|\[/?[A-Z][A-Z_]+\]")
_LEAST = 3
"""Characters of a mark."""
TEMPLATE = "template"
GENERIC = "generic"


def mark_of(text: str) -> str:
    """The first word of ``text`` by which it is known amid other text; empty: it could be ordinary text."""
    word = _BLANK_OR_SLOT.split(text.strip(), maxsplit=1)[0]
    if found := _TAG.match(word):
        return found.group()
    return "" if len(word) < _LEAST or word[0] in "[({" else word


def _shown(text: str) -> str:
    return " ".join(text.split())
