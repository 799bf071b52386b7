"""The API's side of rendering: one chat template, in a process of its own that is killed if it is too slow.

A template comes in a file from a stranger, and nobody can list all the ways to keep an interpreter busy in
one call. So nothing of it runs in the API process. Whatever it does, it does to the process that renders for
its model, and all that it can spoil is the chat of that model.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rllm.api.text.control_text import Piece
from rllm.api.text.formats.generic import UNKNOWN
from rllm.api.text.formats.shapes import AnswerFormat
from rllm.api.text.rendering.frames import (
    MOST_SHOWN,
    Answer,
    Discover,
    Discovered,
    Load,
    Loaded,
    Problem,
    Render,
    Rendered,
    most_bytes,
    pack,
)
from rllm.api.text.rendering.process import LITTLE, Gone, RenderingProcess, TooLong
from rllm.errors import BadRequest, Overloaded, PromptTooLong

MAX_TEMPLATE_BYTES = 128 * 1024
"""Seven times the longest of llama.cpp's collection. The slowest of this size takes 1.5 s to compile."""
_COMPILE_TIMEOUT_S = 5.0
_DISCOVER_TIMEOUT_S = 5.0
"""For a program that renders nothing else; a usual template takes a hundredth of it."""
_PATIENCE_S = 5.0
"""How long a request waits for others of its model, beside its own time."""
_logger = logging.getLogger(__name__)


@dataclass(order=True, slots=True)
class _Job:
    size: int
    """The smallest goes first: a short chat does not wait for long ones."""
    number: int
    order: Render | Discover | None = field(compare=False)
    """None: only make sure that the template is loaded."""
    frame: bytes = field(compare=False)
    answer: asyncio.Future[Answer] = field(compare=False)


class Renderer:
    """Renders one template, one request at a time. Lives on the event loop."""

    def __init__(self, load: Load, *, timeout_s: float, name: str) -> None:
        """
        Args:
            timeout_s: what one rendering may take.
            name: the model's, for the log.
        """
        self._load = load
        self._timeout_s = timeout_s
        self._name = name
        self._broken = _fault(load.source)
        self._numbers = itertools.count()
        self._line: asyncio.PriorityQueue[_Job] = asyncio.PriorityQueue()
        self._process: RenderingProcess | None = None
        self._form: AnswerFormat | None = None
        self._finding = asyncio.Lock()
        self._work = asyncio.create_task(self._serve(), name=f"rendering-{name}")

    async def prepare(self) -> None:
        """Compile the template now rather than for the first request.

        Raises:
            BadRequest: it is broken.
            Overloaded: there is no process to be had.
        """
        await self._ask(None, b"")

    async def render(
        self, variables: Mapping[str, Any], *, without_bos: bool, max_chars: int, continues: bool = False
    ) -> list[Piece]:
        """The prompt, in pieces to be tokenized apart and joined: see `rllm.api.text.templates.ChatTemplate`.

        Raises:
            PromptTooLong: the prompt has more than ``max_chars``.
            BadRequest: the template is broken, refuses the messages, fails on them or takes too much.
            Overloaded: others of this model were not done in time.
        """
        order = Render(dict(variables), without_bos, continues, max_chars, self._timeout_s)
        try:
            frame = pack(order)
        except (RecursionError, ValueError, OverflowError) as error:
            raise _messages_error(f"they cannot be handed to the chat template: {error}") from None
        try:
            async with asyncio.timeout(self._timeout_s + _PATIENCE_S):
                return _pieces(await self._ask(order, frame))
        except TimeoutError:
            raise Overloaded(
                "the model's chat template is busy with other requests", retry_after_s=self._timeout_s
            ) from None

    async def form(self) -> AnswerFormat:
        """How the model writes calls and thoughts, as far as its template shows. Found out once.

        Raises:
            BadRequest: the template is broken.
            Overloaded: there is no process to be had, or it had no time.
        """
        async with self._finding:
            if self._form is None:
                self._form = await self._discover()
            return self._form

    async def _discover(self) -> AnswerFormat:
        order = Discover(self._timeout_s)
        try:
            answer = await self._ask(order, pack(order))
        except BadRequest as error:
            if self._broken:
                raise
            answer = Problem(str(error))
        if isinstance(answer, Discovered):
            return answer.form
        reason = answer.reason if isinstance(answer, Problem) else ""
        _logger.warning("model %s: its calls and thoughts are not known: %s", self._name, reason)
        return UNKNOWN

    async def close(self) -> None:
        self._work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._work
        await self._end_process()
        while not self._line.empty():
            self._line.get_nowait().answer.cancel()

    async def _ask(self, order: Render | Discover | None, frame: bytes) -> Answer:
        if self._broken:
            raise _template_error(self._broken)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._line.put_nowait(_Job(len(frame), next(self._numbers), order, frame, answer))
        return await answer

    # --- the task -------------------------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            job = await self._line.get()
            if job.answer.done():  # its client has left, or was told that it takes too long
                continue
            try:
                answer = await self._do(job)
            except asyncio.CancelledError:
                job.answer.cancel()
                raise
            except Exception as error:  # an answer of ours, or a bug: whoever waits hears of it
                if not job.answer.done():
                    job.answer.set_exception(error)
            else:
                if not job.answer.done():
                    job.answer.set_result(answer)

    async def _do(self, job: _Job) -> Answer:
        if self._broken:
            raise _template_error(self._broken)
        if (
            self._process is not None and self._process.is_over
        ):  # ended while nobody asked: no request's doing
            await self._end_process()
        process = self._process or await self._start()
        if job.order is None:
            return Loaded()
        renders = isinstance(job.order, Render)
        most = job.order.max_chars if isinstance(job.order, Render) else MOST_SHOWN
        try:
            answer = await process.ask(job.frame, most_bytes(most), job.order.timeout_s)
            if not isinstance(answer, (Rendered if renders else Discovered) | Problem):
                raise Gone("it says what it cannot mean")
            return answer
        except TooLong:
            reason = "the model's chat template takes too long for these messages"
        except TimeoutError:
            await self._end_process()
            raise _busy() from None
        except (Gone, OSError):
            reason = "the model's chat template ends its process on these messages"
        await self._end_process()
        _logger.warning("model %s: %s", self._name, reason)
        raise _messages_error(reason)

    async def _start(self) -> RenderingProcess:
        """
        Raises:
            Overloaded: no process could be started.
            BadRequest: the template is broken, now and for ever.
        """
        try:
            self._process = process = RenderingProcess()
            await process.started()
        except (OSError, Gone, TimeoutError) as error:
            await self._end_process()
            _logger.error("model %s: no process for its chat template: %s", self._name, error)
            raise Overloaded("no process can be started for the chat template", retry_after_s=5.0) from None
        try:
            answer = await process.ask(pack(self._load), LITTLE, _COMPILE_TIMEOUT_S)
        except TooLong:
            self._broken = f"it does not compile within {_COMPILE_TIMEOUT_S:g} s"
        except TimeoutError:
            await self._end_process()
            raise _busy() from None
        except (Gone, OSError):
            self._broken = "the process that was to compile it ended"
        else:
            if isinstance(answer, Loaded):
                return process
            self._broken = answer.reason if isinstance(answer, Problem) else "it does not load"
        await self._end_process()
        raise _template_error(self._broken)

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await asyncio.to_thread(process.reap)


async def form_of(source: str) -> AnswerFormat | None:
    """What a template shows of calls and thoughts, for programs that render nothing. None: it is broken."""
    renderer = Renderer(Load(source, "", "", ()), timeout_s=_DISCOVER_TIMEOUT_S, name="template")
    try:
        return await renderer.form()
    except BadRequest:
        return None
    finally:
        await renderer.close()


def _fault(source: str) -> str:
    """Why it is not even looked at; empty: nothing is wrong so far."""
    try:
        size = len(source.encode())
    except UnicodeEncodeError:
        return "it is not text"
    if size <= MAX_TEMPLATE_BYTES:
        return ""
    return f"it has {size:,} bytes, and at most {MAX_TEMPLATE_BYTES:,} are compiled"


def _pieces(answer: Answer) -> list[Piece]:
    match answer:
        case Rendered(pieces=pieces):
            return pieces
        case Problem(reason=reason, is_length=True):
            raise PromptTooLong(reason, param="messages")
        case Problem(reason=reason, param=param):
            raise _messages_error(reason, param)
        case _:  # `_do` lets no other through
            raise _messages_error("the model's chat template makes no prompt of these messages")


def _busy() -> Overloaded:
    return Overloaded("the machine is too busy to render the chat template", retry_after_s=5.0)


def _template_error(reason: str) -> BadRequest:
    message = f"the model's chat template is broken: {reason}; /v1/completions works without it"
    return BadRequest(message, code="chat_template_error")


def _messages_error(message: str, param: str = "messages") -> BadRequest:
    return BadRequest(message, param=param, code="chat_template_error")
