"""How much the server takes on, how long things may take, and what happens when that is passed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from rllm.settings.option import Option


@dataclass(frozen=True, slots=True)
class Limits:
    """What may wait, before further requests are refused."""

    max_queue_requests: Annotated[
        int,
        Field(ge=0),
        Option("Most requests that wait for a slot. Further ones are refused (503).", unit="N", common=True),
    ] = 256
    max_queue_tokens: Annotated[
        int,
        Field(ge=0),
        Option(
            "Most prompt tokens that wait to be computed. Further ones are refused (503).",
            unit="TOKENS",
            default="8 x ctx-size for each slot",
        ),
    ] = 0
    """Uncached prompt tokens. 0: eight full contexts per slot."""
    target_ttft_s: Annotated[
        float,
        Field(ge=0),
        Option(
            "Refuse a request (503) if its first token would probably take longer than this. 0: never.",
            unit="SECONDS",
            common=True,
        ),
    ] = 0.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a request may take. 0 switches a limit off. A caller's own deadline comes on top."""

    queue_s: Annotated[
        float,
        Field(ge=0),
        Option("Longest wait of a request for a slot. 0: no limit.", name="queue_timeout_s", unit="SECONDS"),
    ] = 120.0
    first_token_s: Annotated[
        float,
        Field(ge=0),
        Option(
            "Longest time from accepting a request to its first token. 0: no limit.",
            name="first_token_timeout_s",
            unit="SECONDS",
        ),
    ] = 300.0
    total_s: Annotated[
        float,
        Field(ge=0),
        Option("Longest time of a whole request. 0: no limit.", name="request_timeout_s", unit="SECONDS"),
    ] = 600.0
    idle_s: Annotated[
        float,
        Field(ge=0),
        Option(
            "Longest time between two tokens of an answer. 0: no limit.",
            name="stream_idle_timeout_s",
            unit="SECONDS",
        ),
    ] = 60.0
    retry_s: Annotated[
        float,
        Field(ge=0),
        Option(
            "Longest time that a request whose worker was lost waits for another worker. 0: no limit.",
            name="retry_timeout_s",
            unit="SECONDS",
        ),
    ] = 30.0


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """When an instance that fails gets no more requests. No options."""

    faults: int = 5
    window_s: float = 60.0
    open_s: float = 10.0
    probes: int = 1
    """Requests that a half-open instance has at most at a time."""
    successes: int = 2


@dataclass(frozen=True, slots=True)
class InstanceSettings:
    """When a worker process is given up."""

    start_timeout_s: Annotated[
        float, Field(gt=0), Option("Longest time that loading a model may take.", unit="SECONDS")
    ] = 600.0
    stall_timeout_s: Annotated[
        float,
        Field(ge=0),
        Option(
            "Replace a worker that has requests and has computed nothing for this long. 0: never.",
            unit="SECONDS",
        ),
    ] = 30.0
    breaker: BreakerSettings = BreakerSettings()


@dataclass(frozen=True, slots=True)
class Shutdown:
    """What happens after SIGTERM."""

    delay_s: Annotated[
        float,
        Field(ge=0),
        Option(
            "After SIGTERM, accept requests for this long while /health/ready already says no.",
            name="drain_delay_s",
            unit="SECONDS",
        ),
    ] = 0.0
    timeout_s: Annotated[
        float,
        Field(ge=0),
        Option(
            "After SIGTERM, let running requests go on for this long. After Ctrl-C it is at most 1 s.",
            name="drain_timeout_s",
            unit="SECONDS",
        ),
    ] = 30.0
