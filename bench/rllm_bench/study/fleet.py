"""The servers of a piece: all up at once, idle but for the one that is measured, kept for the next piece
where that needs the same."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import msgspec

from rllm_bench.records.runs import Settings
from rllm_bench.run.gpu_memory import GpuMemory, family
from rllm_bench.study.subjects import Configured, RunningVllm
from rllm_bench.targets import processes
from rllm_bench.targets.base import subject
from rllm_bench.targets.server import Server, ServerFailed, running

_TELLING = re.compile(
    r"buffer size|KV cache|Model loading took|memory|CUDA graph|GiB|flash_attn|device|n_ctx|n_parallel", re.I
)
_MOST_LINES = 60


@dataclass
class _Member:
    server: Server
    stack: contextlib.ExitStack
    log: Path
    about: dict[str, Any]


class Fleet:
    """Owns what it starts until `close`. Servers start one after the other, so that the growth of the
    card's memory is that of the one that starts."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._gpu = GpuMemory()
        self._members: dict[str, _Member] = {}

    def bring_up(
        self, targets: Sequence[Configured], settings: Settings, end_tokens: tuple[int, ...]
    ) -> tuple[dict[str, Server], dict[str, str]]:
        """Servers by subject, and why others did not start. What the targets do not need is stopped first."""
        keys = {subject(target): _key(target, settings, end_tokens) for target in targets}
        for key in [key for key in self._members if key not in keys.values()]:
            self._stop(key)
        servers, failed = {}, {}
        for target in targets:
            name = subject(target)
            try:
                member = self._members.get(keys[name]) or self._start(
                    target, settings, end_tokens, keys[name]
                )
            except (ServerFailed, OSError) as error:
                failed[name] = str(error)
                click.echo(f"  {name} did not start: {error}")
                continue
            servers[name] = _as(member.server, target, settings, end_tokens)
        return servers, failed

    def to_start(
        self, targets: Sequence[Configured], settings: Settings, end_tokens: tuple[int, ...]
    ) -> list[Configured]:
        """One target for each server that is not up yet, vLLM apart."""
        new: dict[str, Configured] = {}
        for target in targets:
            key = _key(target, settings, end_tokens)
            if key not in self._members and target.engine != "vllm":
                new[key] = target
        return list(new.values())

    def _start(
        self, target: Configured, settings: Settings, end_tokens: tuple[int, ...], key: str
    ) -> _Member:
        name, began, before = subject(target), time.monotonic(), self._gpu.card_bytes()
        log = self._logs / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}-{len(self._members)}.log"
        stack = contextlib.ExitStack()
        server = stack.enter_context(running(target, settings, log, end_tokens))
        if isinstance(target.inner, RunningVllm):
            vllm = target.inner.running
            launch = replace(server.launch, command=list(vllm.command) or None)
            server, log = replace(server, pid=vllm.pid, launch=launch), Path(vllm.log or log)
        after = self._gpu.card_bytes()
        grown = None if before is None or after is None else after - before
        command = server.launch.command or []
        about = {
            "subject": name,
            "command": command,
            "env": server.launch.env,
            "start_s": round(time.monotonic() - began, 2),
            "card_bytes_grown": grown,
            "gpu_bytes_by_process": self._by_process(server.pid),
            "log": list(telling_lines(log)),
        }
        click.echo(f"  {name} up in {about['start_s']} s: {' '.join(command)}")
        self._members[key] = member = _Member(server, stack, log, about)
        return member

    def _by_process(self, pid: int | None) -> dict[str, int]:
        known = self._gpu.by_process()
        return {str(member): known[member] for member in family(pid or 0) if member in known}

    def about(self) -> list[dict[str, Any]]:
        """What is known of each server, with its memory as it is now."""
        return [
            {**member.about, "gpu_bytes_by_process_now": self._by_process(member.server.pid)}
            for member in self._members.values()
        ]

    def log_of(self, server: Server) -> Path | None:
        return next((m.log for m in self._members.values() if m.server.pid == server.pid), None)

    def _stop(self, key: str) -> None:
        self._members.pop(key).stack.close()

    def close(self) -> None:
        for key in list(self._members):
            self._stop(key)


def _key(target: Configured, settings: Settings, end_tokens: tuple[int, ...]) -> str:
    """Two targets with the same key can be the same process."""
    launch = target.launch(settings, 0, end_tokens)
    where = launch.endpoint.base_url if launch.command is None else ""
    return msgspec.json.encode([launch.command, launch.env, where]).decode()


def _as(server: Server, target: Configured, settings: Settings, end_tokens: tuple[int, ...]) -> Server:
    """The same process, asked as ``target`` asks."""
    body: Mapping[str, Any] = target.launch(settings, 0, end_tokens).endpoint.body
    endpoint = msgspec.structs.replace(server.launch.endpoint, body=dict(body))
    return replace(server, target=target, launch=replace(server.launch, endpoint=endpoint))


def telling_lines(log: Path) -> Iterator[str]:
    """What the log says about memory and devices."""
    if log.exists():
        lines = log.read_bytes()[:4_000_000].decode("utf-8", "replace").splitlines()
        yield from [line[:700] for line in lines if _TELLING.search(line)][:_MOST_LINES]


def log_tail(log: Path | None, lines: int = 12) -> str:
    return processes.tail(log, lines) if log is not None else ""
