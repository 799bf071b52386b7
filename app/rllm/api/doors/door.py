"""What a door is, and what it is given.

A door is a folder: the types of its wire, `to_request`, `from_parts` and its routes. `rllm.api.doors.every`
lists them; nothing else knows that one exists.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter
from starlette.requests import Request

from rllm.api.answer.run import Answers
from rllm.api.fields.wire import WireModel
from rllm.api.http.fair_threads import FairThreads
from rllm.api.http.json_body import BodyReader
from rllm.api.http.middleware import caller_of
from rllm.api.settings import ApiSettings
from rllm.api.text.tokenizing import Tokenizer
from rllm.serving.service import ServedModel, Service
from rllm.serving.view import ModelView

Wire = TypeVar("Wire", bound=WireModel)
Look = Callable[[float], Awaitable[Any]]
"""Makes the state that the live page shows; of histories only what is newer than the time given."""
Views = Callable[[], Awaitable[Sequence[ModelView]]]
"""What the instances do at this moment."""


@dataclass(frozen=True, slots=True)
class Context:
    """Made once by the factory."""

    service: Service
    settings: ApiSettings
    answers: Answers
    threads: FairThreads
    bodies: BodyReader
    tokenizer: Tokenizer
    render_metrics: Callable[[], bytes] | None
    look: Look | None
    """None: there is no live page."""
    views: Views | None
    """None: there is no /slots."""

    async def read(self, request: Request, kind: type[Wire]) -> Wire:
        """The body as a ``kind``; see `BodyReader.read`."""
        return await self.bodies.read(request, kind, caller=caller_of(request.scope))

    def model(self, name: str | None) -> ServedModel:
        """
        Raises:
            NotFound: there is none of that name.
        """
        return self.answers.preparer.model(name)


@dataclass(frozen=True, slots=True)
class Door:
    make_router: Callable[[Context], APIRouter]
    """A door that is not open makes one without routes."""
    wires: tuple[type[WireModel], ...] = ()
    """Bodies of requests and parts of them, for the OpenAPI document."""
    schemas: Callable[[], dict[str, Any]] = dict
    """Further ones for that document, by name."""
