"""From bytes to a checked request, or one sentence about what is wrong with them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect, Request

from rllm.api.counts import Counts
from rllm.api.http.client import ClientGone
from rllm.api.http.fair_threads import FairThreads
from rllm.errors import BadRequest, BodyTooLarge, BodyTooSlow, WrongMediaType

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class _Crowd:
    """Parts of JSON that are counted by the marks that each of them has."""

    name: str
    marks: tuple[bytes, ...]
    most: int


_CROWDS = (
    _Crowd("arrays and objects", (b"[", b"{"), 50_000),  # 10,000 messages of a few parts each
    _Crowd("members of objects", (b":",), 100_000),
    _Crowd("values", (b",",), 1_000_000),  # 64 prompts of 16,000 token ids
)
"""What may be in one body: together forty milliseconds, in which nothing else runs."""
_LITTLE = 32 * 1024
"""Bytes of a body that are read where they are: a millisecond at most."""
_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_STRING = re.compile(_TEXT, re.DOTALL)
_PIECE = re.compile(rb"(?:[^\"]{1,4096}+|" + _TEXT + rb"){1,500}+", re.DOTALL)
"""So much that counting in it takes a millisecond; it ends outside of a text."""
_SHOWN = 80
"""Characters of a client's value that a message repeats."""


class BodyReader:
    """Reads and checks requests' bodies, large ones off the event loop.

    One at a time: a parser does not let go of the interpreter, and two would take turns with each other.
    """

    def __init__(self, *, timeout_s: float, counts: Callable[[], Counts]) -> None:
        """``timeout_s``: for a body to arrive. ``counts`` is asked by the fields that it limits."""
        self._threads = FairThreads(1)
        self._timeout_s = timeout_s
        self._counts = counts

    async def read(self, request: Request, model: type[Model], *, caller: str) -> Model:
        """The body as a ``model``.

        The content type must be JSON: that is also what keeps other people's web pages from posting here
        without a CORS preflight.

        Raises:
            BadRequest: what is wrong with it.
            ClientGone: nobody waits for an answer.
        """
        _check_media_type(request.headers.get("content-type"))
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await request.body()
        except TimeoutError:
            raise BodyTooSlow(f"the body did not arrive within {self._timeout_s:g} s") from None
        except ClientDisconnect:
            raise ClientGone from None
        if len(body) <= _LITTLE:
            return check(model, parse_object(body), self._counts)
        counts = self._counts()  # here: the service lives on the event loop
        return await self._threads.run(
            lambda: check(model, parse_object(body), lambda: counts), caller=caller
        )

    def close(self) -> None:
        self._threads.close()


def _check_media_type(header: str | None) -> None:
    kind, _, parameters = (header or "").partition(";")
    kind = kind.strip().lower()
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if charset and "=" not in charset and charset not in ("utf-8", "utf8", "us-ascii"):
        raise WrongMediaType(f"the body must be UTF-8, not {shorten(charset)}")
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return
    got = f"got {shorten(kind)}" if kind else "there was none"
    raise WrongMediaType(
        f"the content type must be application/json; {got} (with curl: -H 'content-type: application/json')"
    )


def parse_object(body: bytes) -> dict[str, Any]:
    """
    Raises:
        BadRequest: it is no JSON object, or would take too long to build.
    """
    _refuse_crowds(body)
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not body:
            raise BadRequest("the body is empty; a JSON object is needed", code="invalid_json") from None
        raise BadRequest(f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(data, dict):
        raise BadRequest(f"the body must be a JSON object; got {json_type(data)}", code="invalid_type")
    return data


def _refuse_crowds(body: bytes) -> None:
    """A text of 2 MB is read in a millisecond; two million brackets keep the interpreter for a second."""
    if not any(_excess(body)):
        return
    found = [0] * len(_CROWDS)  # in texts, too: count again without them
    for piece in _PIECE.finditer(body):
        outside = _STRING.sub(b"", piece.group())
        for index, crowd in enumerate(_CROWDS):
            found[index] += _num(outside, crowd)
            if found[index] > crowd.most:
                raise BodyTooLarge(f"the body may have at most {crowd.most} {crowd.name}; it has more")


def _excess(body: bytes) -> Iterator[bool]:
    return (_num(body, crowd) > crowd.most for crowd in _CROWDS)


def _num(body: bytes, crowd: _Crowd) -> int:
    return sum(map(body.count, crowd.marks))


def check(model: type[Model], data: Mapping[str, Any], counts: Callable[[], Counts]) -> Model:
    """``data`` as a ``model``. ``counts`` limits what would take long to look at.

    Raises:
        BadRequest: names the first field at fault, its value and the limit.
    """
    try:
        return model.model_validate(data, context=counts)
    except ValidationError as error:
        raise _describe(error.errors(include_url=False)[0], model) from None


def _describe(error: ErrorDetails, model: type[BaseModel]) -> BadRequest:
    kind = error["type"]
    limits = error.get("ctx", {})
    param = path_of((*error["loc"], *([limits["field"]] if "field" in limits else [])))
    if kind == "extra_forbidden":
        return BadRequest(
            f"Unknown parameter: '{shorten(param)}'.", param=shorten(param), code="unknown_parameter"
        )
    if kind == "missing":
        return BadRequest(
            f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
        )
    if kind == "refused":
        message = str(limits["message"]).replace("{path}", param)
        return BadRequest(message, param=str(limits.get("param") or param), code=limits.get("code"))
    sentence = _SENTENCES.get(kind)
    if sentence is None:
        return BadRequest(f"{param}: {error['msg']}", param=param)
    value = error["input"]
    if kind.endswith("_type"):
        got = json_type(value)
        return BadRequest(f"{param} must be {sentence}; got {got}", param=param, code="invalid_type")
    wanted = sentence.format(**limits)
    got = f"{len(value)}" if kind in _LENGTHS and hasattr(value, "__len__") else shorten(value)
    return BadRequest(f"{param} must {wanted}; got {got}", param=param)


_LENGTHS = frozenset({"too_long", "too_short", "string_too_long", "string_too_short"})
_SENTENCES = {
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a string",
    "bool_type": "true or false",
    "list_type": "an array",
    "tuple_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "finite_number": "be a finite number",
    "greater_than": "be greater than {gt}",
    "greater_than_equal": "be at least {ge}",
    "less_than": "be less than {lt}",
    "less_than_equal": "be at most {le}",
    "literal_error": "be {expected}",
    "string_pattern_mismatch": "match {pattern}",
    "string_too_long": "have at most {max_length} characters",
    "string_too_short": "have at least {min_length} characters",
    "too_long": "have at most {max_length} items",
    "too_short": "have at least {min_length} items",
}


def path_of(loc: tuple[int | str, ...]) -> str:
    """('messages', 0, 'content') -> "messages[0].content"."""
    text = ""
    for part in loc:
        text += (
            f"[{part}]"
            if isinstance(part, int)
            else f".{part}"
            if text and not part.startswith("[")
            else part
        )
    return text or "body"


def json_type(value: object) -> str:
    """What JSON calls it, with a short value."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {shorten(value)}"
        case str():
            return f"the string {shorten(repr(value))}"
        case list() | tuple():
            return f"an array of {len(value)}"
        case _:
            return "an object"


def shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
