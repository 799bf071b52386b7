"""What a server to be measured is: a command to start, an address to ask, settings it was given."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rllm_bench.load.client import Endpoint
from rllm_bench.records.cells import Settings


@dataclass(frozen=True, slots=True)
class Launch:
    """How one server is started and asked. Without a command it is running already."""

    endpoint: Endpoint
    command: list[str] | None = None
    env: dict[str, str] = field(default_factory=dict)
    ready_path: str = "/v1/models"
    ready_timeout_s: float = 120.0
    notes: tuple[str, ...] = ()
    """Where this server cannot be given the common settings; printed beside them."""


class Target(Protocol):
    @property
    def engine(self) -> str: ...

    @property
    def variant(self) -> str: ...

    @property
    def model(self) -> Path | None:
        """The file or folder that is served, where we know it."""
        ...

    def missing(self) -> str | None:
        """Why this target cannot run here, in one line for the report; None when it can."""
        ...

    def version(self) -> str: ...

    def launch(self, settings: Settings, port: int, end_tokens: tuple[int, ...]) -> Launch: ...


def subject(target: Target) -> str:
    return f"{target.engine}/{target.variant}"


GREEDY: dict[str, Any] = {"temperature": 0, "seed": 0}


def ignore_eos() -> dict[str, Any]:
    return {**GREEDY, "ignore_eos": True}
