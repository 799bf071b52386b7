"""Knowing at once that the client has gone.

`Request.is_disconnected` polls and is fooled by middlewares; the ASGI message ``http.disconnect`` is the
event itself. After the body has been read, ``receive`` returns nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from starlette.types import Receive

from rllm import background

T = TypeVar("T")


class ClientGone(Exception):
    """The client closed the connection: there is nobody to answer."""


class Client:
    """Watches one connection while its request is worked on: ``async with Client(receive) as client``."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._callbacks: list[Callable[[], object]] = []
        self._gone = False
        self._watcher: asyncio.Task[None] | None = None

    def on_gone(self, callback: Callable[[], object]) -> None:
        """Call back when the client goes; at once if it has gone."""
        if self._gone:
            callback()
        else:
            self._callbacks.append(callback)

    async def unless_gone(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` returns. It is cancelled when the client goes.

        Raises:
            ClientGone
        """
        task = asyncio.ensure_future(work)
        self.on_gone(task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            if self._gone:
                raise ClientGone from None
            task.cancel()
            raise

    def raise_if_gone(self) -> None:
        if self._gone:
            raise ClientGone

    async def wait_gone(self) -> None:
        if self._watcher is not None:
            await asyncio.wait({self._watcher})

    async def __aenter__(self) -> Client:
        self._watcher = background.start(self._watch(), name="client-watcher")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
        self._callbacks.clear()

    async def _watch(self) -> None:
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass
        except Exception:
            self._leave()  # nobody would learn of it any more
            raise
        self._leave()

    def _leave(self) -> None:
        self._gone = True
        for callback in self._callbacks:
            callback()
