"""From the operator's settings to those of the serving layer, and the keys file that may change meanwhile."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rllm.config import Settings
from rllm.serving.admission import Limits
from rllm.serving.degrade import parse_rung
from rllm.serving.degrading import DegradeSettings
from rllm.serving.instance import InstanceSettings
from rllm.serving.keys import KeyEntry, read_keys
from rllm.serving.limits import KeyLimits
from rllm.serving.pool import PoolSettings
from rllm.serving.timeouts import Timeouts
from rllm.workers.frames import WorkerSpec


class KeyFile:
    """The keys of one file, or none without a file."""

    def __init__(self, path: Path | None) -> None:
        """
        Raises:
            StartError: the file is wrong.
        """
        self._path = path
        self.entries: tuple[KeyEntry, ...] = ()
        self.reload()

    @property
    def limits(self) -> dict[str, KeyLimits]:
        return {entry.name: entry.limits for entry in self.entries}

    def reload(self) -> None:
        """
        Raises:
            StartError: the file is wrong; the keys stay as they were.
        """
        if self._path is not None:
            self.entries = read_keys(self._path)


def pool_settings(settings: Settings, keys: dict[str, KeyLimits]) -> PoolSettings:
    return PoolSettings(
        limits=Limits(settings.max_queue_requests, settings.max_queue_tokens, settings.target_ttft_s),
        timeouts=Timeouts(
            queue_s=settings.queue_timeout_s,
            first_token_s=settings.first_token_timeout_s,
            total_s=settings.request_timeout_s,
            idle_s=settings.stream_idle_timeout_s,
            retry_s=settings.retry_timeout_s,
        ),
        instance=InstanceSettings(settings.start_timeout_s, settings.stall_timeout_s),
        degrade=DegradeSettings(tuple(map(parse_rung, settings.degrade)), settings.degrade_hold_s),
        keys=keys,
        share_prefixes=settings.share_prefixes,
        require_all=settings.require_all,
    )


def replicate(worker: WorkerSpec, model: str, count: int, devices: str) -> tuple[WorkerSpec, ...]:
    """``count`` of one kind; each sees the next of ``devices`` where any are named."""
    names = [name.strip() for name in devices.split(",") if name.strip()]
    return tuple(
        msgspec.structs.replace(
            worker,
            name=f"{model}-{index}",
            env={"CUDA_VISIBLE_DEVICES": names[index % len(names)]} if names else {},
        )
        for index in range(count)
    )
