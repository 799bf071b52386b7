"""What a worker says: its own lines and llama.cpp's, each with the requests that it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from rllm.engine.types import EngineRequest, Event, FinishReason
from rllm.workers.frames import LEVELS, LogLine, Message

_MAX_NAMED = 8


class WorkerLog:
    """Lines below ``level`` are not sent, and not even put together."""

    def __init__(self, send: Callable[[Message], None], level: str) -> None:
        self._send = send
        self._least = LEVELS.index(level)
        self.is_debug = level == "debug"
        self._running: dict[str, None] = {}

    def native(self, level: str, text: str) -> None:
        """A line of llama.cpp. It does not say whom it means: the requests that hold a slot are named."""
        if LEVELS.index(level) >= self._least:
            self._send(LogLine(level, text, tuple(islice(self._running, _MAX_NAMED))))

    def accepted(self, request: EngineRequest) -> None:
        if self.is_debug:
            self._say(
                request.id, f"accepted: {len(request.prompt)} prompt tokens, {request.max_tokens} at most"
            )

    def stepped(self, started: Iterable[str], events: Iterable[Event]) -> None:
        """What a step brought. Called for every step, so whatever is not a beginning or an end is skipped."""
        for request_id in started:
            self._running[request_id] = None
            if self.is_debug:
                self._say(request_id, "has a slot")
        for event in events:
            if event.finish is not None:
                self._running.pop(event.request_id, None)
                self._ended(event)

    def _ended(self, event: Event) -> None:
        if event.finish is FinishReason.ERROR:
            self._send(LogLine("warning", f"failed: {event.error}", (event.request_id,)))
        elif self.is_debug and event.usage is not None and event.timings is not None:
            usage, timings = event.usage, event.timings
            self._say(
                event.request_id,
                f"{event.finish}: {usage.completion_tokens} tokens, {usage.cached_tokens} of "
                f"{usage.prompt_tokens} prompt tokens were resident; queue {timings.queue_s:.4f} s, "
                f"prefill {timings.prefill_s:.4f} s, decode {timings.decode_s:.4f} s",
            )

    def _say(self, request_id: str, text: str) -> None:
        self._send(LogLine("debug", text, (request_id,)))
