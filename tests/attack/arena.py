"""Where attacks are played: servers to attack, and somebody ordinary beside them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson

from tests.chaos.circumstances import ROOT
from tests.chaos.servers import ServerProcess, rllm

_PROGRAM = "import sys; from rllm.{module} import main; sys.argv[0] = '{name}'; main()"
_MODULES = {"rllm-serve": "cli", "rllm-models": "modelhub.cli"}


@dataclass
class Beside:
    """What one ordinary stream and somebody who asks for /health/live saw meanwhile; filled at the end."""

    worst_gap_s: float = float("nan")
    """Between two tokens of the stream, or from its last token to the end."""
    worst_health_s: float = float("nan")
    num_tokens: int = 0
    num_probes: int = 0
    slack: float = 1.0

    @property
    def kept(self) -> bool:
        in_time = self.worst_gap_s <= 0.5 * self.slack and self.worst_health_s <= 0.2 * self.slack
        return self.num_tokens > 1 and in_time

    def __str__(self) -> str:
        return f"worst gap {self.worst_gap_s:.2f} s, /health/live at most {self.worst_health_s:.2f} s"

    @property
    def figures(self) -> dict[str, float]:
        return {"worst_gap_s": self.worst_gap_s, "worst_health_s": self.worst_health_s}


@dataclass(frozen=True)
class Arena:
    http: aiohttp.ClientSession
    model: Path
    """The tiny model, or the real one for cases that ask for it."""
    folder: Path
    """For the case's own files; gone afterwards."""
    app: Path = field(default=ROOT / "app")
    """The source to attack: this one's, or another version's."""
    slack: float = 1.0
    """Promises about time are this much longer: the everyday tests look for a freeze, on machines that are busy."""

    def server(
        self,
        *options: object,
        env: Mapping[str, str] | None = None,
        wrap: Sequence[str] = (),
        stderr: int | None = None,
    ) -> AbstractAsyncContextManager[ServerProcess]:
        """A ready rllm-serve on ``model``, unless ``options`` name another with --gguf.

        ``env`` is added to the environment, ``wrap`` is a command in front of the server's own, and ``stderr``
        a descriptor for its log.
        """
        if "--gguf" not in options:
            options = ("--gguf", self.model, *options)
        return rllm(self.http, *options, env=self._environment(env), wrap=wrap, stderr=stderr)

    def command(self, name: str, *words: object) -> list[str]:
        """How to start ``rllm-serve`` or ``rllm-models`` of the version under attack; run it with `environment`."""
        program = _PROGRAM.format(module=_MODULES[name], name=name)
        return [sys.executable, "-c", program, *map(str, words)]

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        return {**os.environ, **self._environment(env)}

    def _environment(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return {"PYTHONPATH": str(self.app), **(env or {})}

    @asynccontextmanager
    async def beside(self, server: ServerProcess) -> AsyncIterator[Beside]:
        """An ordinary stream and health probes, in a process of their own, from before the block until after it."""
        seen = Beside(slack=self.slack)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.attack.bystander",
            server.url,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with asyncio.timeout(60):
                assert await process.stdout.readline() == b"streaming\n"
            yield seen
            process.stdin.close()
            async with asyncio.timeout(60):
                vars(seen).update(orjson.loads(await process.stdout.read()))
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
