"""A model's answer, as it comes, taken apart into text, thoughts and calls."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from rllm.api.answer.parts import CallArguments, CallBegin, CallEnd, Part, Reasoning, Text
from rllm.api.text.formats.calls import CallReader, first_word
from rllm.api.text.formats.marks import Marks
from rllm.api.text.formats.reader import Malformed, Paused, Reader
from rllm.api.text.formats.shapes import AnswerFormat, IdForm, Style

_ALPHABET = string.ascii_letters + string.digits
_RECIPIENT = re.compile(r"\bto=(?:functions\.)?([\w.-]+)")
_CHANNEL = re.compile(r"<\|channel\|>(\w+)")

NewId = Callable[[str, int], str]
"""(function's name, index of the call) → id."""


def new_id(form: IdForm) -> NewId:
    """Ids that the model's template can show again."""
    if form is IdForm.FUNCTIONS:
        return lambda name, index: f"functions.{name}:{index}"
    length, prefix = (9, "") if form is IdForm.NINE else (24, "call_")
    return lambda name, index: prefix + "".join(secrets.choice(_ALPHABET) for _ in range(length))


class AnswerParser:
    """
    Text that only looks like a call is text: nothing is lost. That is decided when a call has been read to
    its end, unless ``streams``: then arguments are passed on as they come, and what is wrong later stays in.
    """

    def __init__(
        self,
        form: AnswerFormat,
        functions: Mapping[str, Any] | None = None,
        *,
        in_thought: bool = False,
        streams: bool = False,
        parallel: bool = True,
        hidden: Sequence[str] = (),
        ids: NewId | None = None,
        trace: Callable[[Part, str], None] = lambda part, source: None,
    ) -> None:
        """
        Args:
            functions: name → schema of its parameters; None: calls are not looked for.
            in_thought: the prompt ended inside a thought.
            parallel: without it, what comes after the first call is text.
            hidden: control texts that are neither text nor marks.
            trace: is told of each part what the model wrote for it; these texts make up the whole answer, but
                for what `unclaimed` has at the end.
        """
        self._form = form
        self._functions = functions
        self._streams = streams
        self._parallel = parallel
        self._hidden = tuple(hidden)
        self.is_thinking = in_thought
        """What comes next is a thought, as far as is known."""
        self._ids = ids or new_id(form.tools.id_form)
        self._trace = trace
        self._reader = Reader()
        self._told = 0
        """How much of the reader's text is in parts."""
        self._out: list[Part] = []
        self._begun: CallBegin | None = None
        """A call whose arguments have not begun."""
        self._held: list[Part] | None = None
        """The call that is being read; None: none is, or its parts go out at once."""
        self._num_calls = 0
        self._is_fresh = False
        """Whitespace is not text yet: a thought or a call was before it."""
        self._calls = CallReader(form.tools, self._reader, self, functions or {})
        run = self._channels() if form.tools.style is Style.HARMONY else self._answer(in_thought)
        self._run: Generator[None, None, None] | None = run

    def parts(self, delta: str) -> Sequence[Part]:
        """What ``delta`` completes; empty while it is held back."""
        self._reader.text += delta
        return self._go()

    def rest(self) -> Sequence[Part]:
        """What was held back. Called once, after the last `parts`."""
        self._reader.ended = True
        return self._go()

    @property
    def unclaimed(self) -> str:
        """What belongs to no part: an answer's last markers."""
        return self._reader.text[self._told :]

    def _go(self) -> Sequence[Part]:
        if self._run is not None and next(self._run, self) is self:
            self._run = None
        out, self._out = self._out, []
        return out

    # --- the answer -----------------------------------------------------------------------------

    def _answer(self, in_thought: bool) -> Generator[None, None, None]:
        reasoning, marks = self._form.reasoning, self._form.tools.marks
        looks_for_calls = self._functions is not None
        looked_for = [*(marks if looks_for_calls else ()), *self._form.wrappers, *self._hidden]
        if reasoning is not None:
            looked_for.append(reasoning.begin.strip())
            if in_thought:
                yield from self._thought(reasoning.end.strip())
        while True:
            if looks_for_calls and not marks:
                yield from self._some_calls("")
            mark = yield from self._flow(Text, looked_for)
            if mark is None:
                return
            if looks_for_calls and mark in marks:
                self._reader.pos -= len(mark)
                yield from self._some_calls(mark)
                continue
            self._is_fresh = True
            if reasoning is not None and mark == reasoning.begin.strip():
                yield from self._thought(reasoning.end.strip())

    def _thought(self, end: str) -> Paused[None]:
        self._is_fresh = self.is_thinking = True
        while (yield from self._flow(Reasoning, [end, *self._hidden])) not in (end, None):
            pass
        self._is_fresh, self.is_thinking = True, False

    def _flow(self, kind: type[Text] | type[Reasoning], marks: Sequence[str]) -> Paused[str | None]:
        """Passes on what comes, up to one of the marks, which is consumed. None: the text has ended."""
        reader = self._reader
        looked_for = Marks.of(tuple(marks))
        while True:
            end, found = looked_for.find(reader.text, reader.pos, ended=reader.ended)
            self._pass_on(kind, end, is_last=reader.ended and not found)
            if found:
                reader.pos = end + len(found)
                return found
            if reader.ended:
                return None
            self._forget()
            yield

    def _pass_on(self, kind: type[Text] | type[Reasoning], end: int, *, is_last: bool) -> None:
        """The text up to ``end``, without whitespace that may turn out to stand before a mark."""
        reader = self._reader
        text = reader.text[reader.pos : end]
        if not is_last:
            text = text.rstrip()
        shown = text.lstrip() if self._is_fresh else text
        if shown:
            reader.pos += len(text)
            self._is_fresh = False
            self._emit(kind(shown))

    def _forget(self) -> None:
        """What is in parts. Only where nobody remembers a place in the text."""
        reader = self._reader
        reader.text, reader.pos, self._told = reader.text[self._told :], reader.pos - self._told, 0

    def _emit(self, part: Part) -> None:
        if self._held is not None:
            self._held.append(part)
            return
        self._trace(part, self._reader.text[self._told : self._reader.pos])
        self._told = self._reader.pos
        self._out.append(part)

    # --- calls ----------------------------------------------------------------------------------

    def _some_calls(self, mark: str) -> Paused[None]:
        """One turn's calls, from their mark on; where they are none, the mark is text."""
        tools, reader = self._form.tools, self._reader
        start = reader.pos
        try:
            yield from reader.skip_blank()
            if (yield from reader.begins(first_word(tools.section_begin))):
                yield from reader.expect(tools.section_begin)
            while True:
                yield from self._one_call(self._calls.read())
                start = reader.pos
                if not (yield from self._is_followed()):
                    return
        except Malformed:
            reader.pos = start
            self._give_up(len(reader.text) if reader.ended else start + len(mark))

    def _give_up(self, end: int) -> None:
        """It was text after all."""
        reader = self._reader
        text, reader.pos = reader.text[reader.pos : end], max(reader.pos, end)
        if text:
            self._is_fresh = False
            self._emit(Text(text))

    def _one_call(self, call: Paused[None]) -> Paused[None]:
        self._begun, self._held = None, None if self._streams else []
        num_before = self._num_calls
        try:
            yield from call
        except Malformed:
            self._held = None
            if self._streams and self._num_calls > num_before:
                self._emit(CallEnd(num_before))
            else:
                self._num_calls = num_before
            raise
        held, self._held = self._held or [], None
        for part in (*_joined(held), CallEnd(num_before)):
            self._emit(part)
        self._is_fresh = True

    def _is_followed(self) -> Paused[bool]:
        """Whether another call comes; the end of the section is consumed."""
        tools, reader = self._form.tools, self._reader
        yield from reader.skip_blank()
        if (yield from reader.begins(first_word(tools.section_end))):
            yield from reader.close(tools.section_end)
            return False
        if (yield from reader.begins(first_word(tools.separator))):
            yield from reader.expect(tools.separator)
            return True
        first = first_word(tools.before_name)
        return (yield from reader.begins(first[:1] if first[:1] in ("{", "[") else first))

    def begin(self, name: str, call_id: str) -> None:
        """For `CallReader`, which may begin a call anew as long as it has no arguments."""
        if self._functions is None or name not in self._functions:
            raise Malformed
        if self._num_calls and not self._parallel:
            raise Malformed
        self._begun = CallBegin(self._num_calls, call_id or self._ids(name, self._num_calls), name)

    def arguments(self, piece: str) -> None:
        """For `CallReader`."""
        if self._begun is not None:
            self._emit(self._begun)
            self._begun = None
            self._num_calls += 1
        self._emit(CallArguments(self._num_calls - 1, piece))

    def identify(self, call_id: str) -> None:
        """For `CallReader`. Too late where the call has gone out."""
        if self._held and isinstance(first := self._held[0], CallBegin):
            self._held[0] = replace(first, id=call_id)

    # --- channels -------------------------------------------------------------------------------

    def _channels(self) -> Generator[None, None, None]:
        """gpt-oss: messages with headers, which say whom they are for."""
        reader = self._reader
        while True:
            self._is_fresh = True
            start = reader.pos
            header = yield from self._header()
            if header is None:
                return
            recipient, channel = _RECIPIENT.search(header), _CHANNEL.search(header)
            if recipient and recipient.group(1) in (self._functions or {}):
                try:
                    yield from self._one_call(self._calls.body(recipient.group(1), "<|call|>"))
                    continue
                except Malformed:
                    end, reader.pos = reader.pos, max(start, self._told)
                    self._give_up(len(reader.text) if reader.ended else end)
            kind = Reasoning if channel and channel.group(1) == "analysis" else Text
            self.is_thinking = kind is Reasoning
            mark = yield from self._flow(kind, (*_CHANNEL_ENDS, *_HEADERS))
            self.is_thinking = False
            if mark in _HEADERS:
                reader.pos -= len(mark)

    def _header(self) -> Paused[str | None]:
        """Empty: there is none; None: the text has ended."""
        reader = self._reader
        start = reader.pos
        yield from reader.skip_blank()
        for word in (*_HEADERS, "to="):
            if (yield from reader.begins(word)):
                try:
                    return (yield from reader.until("<|message|>"))
                except Malformed:
                    reader.pos = start
                    self._give_up(len(reader.text))
                    return None
        reader.pos = start
        if reader.ended and not reader.text[start:].strip():
            return None
        return ""


_HEADERS = ("<|start|>", "<|channel|>")
_CHANNEL_ENDS = ("<|end|>", "<|return|>", "<|call|>")


def _joined(call: list[Part]) -> list[Part]:
    """A whole call with its arguments in one piece."""
    pieces = [part for part in call if isinstance(part, CallArguments)]
    whole = [CallArguments(pieces[0].index, "".join(part.text for part in pieces))] if pieces else []
    return [*call[:1], *whole]
