"""The servers that are up. One that is needed again as it is stays; what nobody needs is stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType

import msgspec

from rllm_bench.records.cells import Settings
from rllm_bench.records.store import Store, safe_name
from rllm_bench.run.gpu_memory import GpuMemory
from rllm_bench.targets.base import Target, subject
from rllm_bench.targets.server import Server, running


class Fleet:
    """Owns what it starts until the block ends. Servers start one after the other, so that the growth of
    the card's memory is that of the one that starts."""

    def __init__(self, store: Store, say: Callable[[str], None]) -> None:
        self._logs = store.folder / "logs"
        self._end_tokens = store.vocabulary().end_tokens
        self._say = say
        self._gpu = GpuMemory()
        self._up: dict[bytes, tuple[Server, contextlib.ExitStack]] = {}

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()

    def missing(self, targets: Sequence[Target], settings: Settings) -> list[Target]:
        """Those to be started. Servers that none of ``targets`` is are stopped."""
        wanted = {self._key(target, settings): target for target in targets}
        for key in [key for key in self._up if key not in wanted]:
            self._up.pop(key)[1].close()
        return [target for key, target in wanted.items() if key not in self._up]

    def start(self, target: Target, settings: Settings) -> Server:
        """The target's server, started where it is not up.

        Raises:
            ServerFailed, OSError: it did not start.
        """
        key = self._key(target, settings)
        if key in self._up:
            return replace(self._up[key][0], target=target)
        self._say(f"starting {subject(target)}")
        before, stack = self._gpu.card_bytes(), contextlib.ExitStack()
        log = self._logs / f"{safe_name(subject(target))}.log"
        server = stack.enter_context(running(target, settings, log, self._end_tokens))
        after = self._gpu.card_bytes()
        if before is not None and after is not None and server.launch.command is not None:
            server = replace(server, gpu_bytes=after - before)
        self._up[key] = (server, stack)
        return server

    def stop_all(self) -> None:
        for key in list(self._up):
            self._up.pop(key)[1].close()

    def _key(self, target: Target, settings: Settings) -> bytes:
        """Two targets with the same key can be the same process."""
        launch = target.launch(settings, 0, self._end_tokens)
        return msgspec.json.encode([launch.command, launch.env, launch.endpoint.base_url])
