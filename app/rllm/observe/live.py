"""Puts together what the live page shows. Nothing is asked or read while nobody looks."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import asdict
from typing import Protocol

from rllm import __version__
from rllm.api.doors.live.live_state import Card, LiveState
from rllm.observe.gpu import Gpus
from rllm.observe.history import History
from rllm.observe.verdict import LATELY_S, Evidence, judge
from rllm.serving.service import Health
from rllm.serving.view import ModelView

SPANS_S = 120
"""How far back a first look sees requests that are over."""


class Pool(Protocol):
    """The part of the pool that this module needs."""

    def look(self, since: float) -> Awaitable[tuple[ModelView, ...]]: ...

    def health(self) -> Health: ...


class Live:
    def __init__(self, pool: Pool, history: History, gpus: Gpus) -> None:
        self._pool = pool
        self._history = history
        self._gpus = gpus
        self._started_at = time.monotonic()

    async def __call__(self, since: float) -> LiveState:
        models = await self._pool.look(max(since, time.monotonic() - SPANS_S))
        now = time.monotonic()
        health = self._pool.health()
        lately = self._history.points(now - LATELY_S)[""]
        evidence = Evidence(health, models, lately, self._history.refused_within(LATELY_S))
        return LiveState(
            version=__version__,
            time=now,
            uptime_s=now - self._started_at,
            ready=health.ready,
            verdict=judge(evidence),
            models=models,
            history=self._history.points(since - 1),
            minute=self._history.minute(),
            rejections=dict(self._history.rejections),
            gpus=tuple(Card(**asdict(reading)) for reading in self._gpus.read()),
        )
