"""A model's ladder on the event loop: it follows the load, tells of changes, and refuses or caps requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from rllm.engine.types import EngineRequest
from rllm.errors import Overloaded
from rllm.serving.degrade import Ladder, Measures
from rllm.settings.degrade import DegradeSettings


class Degrader:
    """Does nothing without rungs. While degraded, one timer brings the level back though nobody asks."""

    def __init__(
        self, settings: DegradeSettings, load: Callable[[], float], on_level: Callable[[int, str], None]
    ) -> None:
        self._ladder = Ladder(settings.rungs, hold_s=settings.hold_s)
        self._hold_s = settings.hold_s
        self._load = load
        self._on_level = on_level
        self._timer: asyncio.TimerHandle | None = None

    @property
    def level(self) -> int:
        return self._ladder.level

    @property
    def names(self) -> str:
        """What holds at this level, in the ladder's own words."""
        return ", ".join(rung.name for rung in self._ladder.rungs[: self.level])

    def look(self) -> Measures:
        """The measures that hold now."""
        if not self._ladder.rungs:
            return Measures()
        loop = asyncio.get_running_loop()
        before = self._ladder.level
        level = self._ladder.hear(self._load(), loop.time())
        if level != before:
            self._on_level(level, self.names)
        if level and self._timer is None:
            self._timer = loop.call_later(self._hold_s / 2 + 0.01, self._again)
        return self._ladder.measures()

    def _again(self) -> None:
        self._timer = None
        self.look()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def check_level(measures: Measures, priority: int, retry_after_s: Callable[[], float]) -> None:
    """
    Raises:
        Overloaded: this level has no room for requests of this priority.
    """
    if measures.refuse:
        raise Overloaded(
            "the server is overloaded and takes nothing new", retry_after_s=retry_after_s(), bound="ladder"
        )
    if measures.max_priority is not None and priority > measures.max_priority:
        raise Overloaded(
            f"the server is overloaded and takes requests of priority {measures.max_priority} or better "
            f"(lower); this one has {priority}",
            code="low_priority_shed",
            retry_after_s=retry_after_s(),
            bound="ladder",
        )


def cap_tokens(cap: int, requests: list[EngineRequest]) -> list[EngineRequest]:
    """The requests as they are to be run; the same list where nothing changes."""
    if all(request.max_tokens <= cap for request in requests):
        return requests
    return [
        msgspec.structs.replace(
            request, max_tokens=min(cap, request.max_tokens), min_tokens=min(cap, request.min_tokens)
        )
        for request in requests
    ]
