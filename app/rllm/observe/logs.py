"""The log: one stream, JSON or for the eye. Events with fields, never sentences with values in them."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from typing import Literal, Protocol, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from rllm.printable import printable_json, printable_text

Format = Literal["auto", "json", "console"]

NATIVE_LEVELS = {"debug": "debug", "info": "debug", "warning": "warning", "error": "error"}
"""llama.cpp says hundreds of things at its level "info" while it loads: they are details here."""


class LineStream(Protocol):
    """What of a text stream is used here."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...

    def isatty(self) -> bool: ...


def make_logger(format: Format, level: str, stream: LineStream | None = None) -> FilteringBoundLogger:
    """A logger that writes to ``stream`` (standard error). Owns no global state."""
    stream = stream or sys.stderr
    console = format == "console" or (format == "auto" and stream.isatty())
    renderers: list[Processor] = [_json]
    if console:
        renderers = [_printable, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(cast("TextIO", stream)),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    return logger


def _json(_logger: object, _method: str, event: EventDict) -> str:
    return printable_json(orjson.dumps(event, default=str).decode())


def _printable(_logger: object, _method: str, event: EventDict) -> EventDict:
    """For the eye. What goes on in a new line is indented, so that no text looks like an event of its own."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = printable_text(value).replace("\n", "\n    ")
    return event


_EXTRA = ("request_id", "path", "exc_info")


def native_sink(logger: FilteringBoundLogger) -> Callable[[str, str], None]:
    """Takes llama.cpp's lines of this process, each with its level. May be called by any thread."""

    def sink(level: str, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the caller is C: nothing may come back
            getattr(logger, NATIVE_LEVELS[level])("llama.cpp", text=text)

    return sink


class _Forward(logging.Handler):
    """Sends what libraries log through `logging` into our stream."""

    def __init__(self, logger: FilteringBoundLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        fields = {name: value for name in _EXTRA if (value := record.__dict__.get(name))}
        self._logger.log(record.levelno, record.getMessage(), logger=record.name, **fields)


def capture_libraries(logger: FilteringBoundLogger, level: str) -> None:
    """uvicorn, asyncio and the rest: warnings and worse, everything from INFO on when debugging."""
    root = logging.getLogger()
    root.handlers = [_Forward(logger)]
    root.setLevel(logging.INFO if level == "debug" else logging.WARNING)
