"""Tasks that nobody waits for, none of which may end in silence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def start(coroutine: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
    """A task whose failure reaches the loop's exception handler (see `hear_faults`) the moment it happens.

    asyncio itself says so only when the task is collected, which a reference to it puts off for ever.
    """
    task = asyncio.create_task(coroutine, name=name)
    task.add_done_callback(_ended)
    return task


def _ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        context = {"message": f"task {task.get_name()} failed", "exception": error, "task": task}
        task.get_loop().call_exception_handler(context)


def hear_faults(loop: asyncio.AbstractEventLoop, count: Callable[[], None]) -> None:
    """``count`` every fault of a background task or a callback of the loop; each is logged, too."""

    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        count()
        loop.default_exception_handler(context)

    loop.set_exception_handler(handler)
