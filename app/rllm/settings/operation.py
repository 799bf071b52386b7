"""How the server starts, and what it tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from rllm.settings.option import Option


@dataclass(frozen=True, slots=True)
class Start:
    """What is checked and measured before anything is served."""

    tune: Annotated[
        Literal["off", "quick", "full"],
        Option(
            "Measure which options are fastest here before a model is first served on this machine. "
            "quick takes up to 5 s, full up to 5 minutes. off still uses what was measured before.",
            common=True,
        ),
    ] = "quick"
    tune_for: Annotated[
        Literal["chat", "long", "throughput", "latency"],
        Option(
            "What tuning aims at. chat: 600 tokens, 1 to 8 users; long: 2,000 tokens; throughput: 16 users; "
            "latency: 1 user."
        ),
    ] = "chat"
    profile_dir: Annotated[
        Path | None,
        Option(
            "Folder for what was found out about models on this machine.",
            unit="FOLDER",
            default="rllm/profiles in the user's cache",
        ),
    ] = None
    allow_overcommit: Annotated[
        bool, Option("Start although the models seem to need more memory than is free.")
    ] = False
    require_all: Annotated[
        bool, Option("Stop if one of several models cannot be started. Without it the others are served.")
    ] = False


@dataclass(frozen=True, slots=True)
class Logging:
    """The log, on standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Option("Log only what is at least this important.", name="log_level", common=True),
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "console"],
        Option("Form of the lines. auto: console on a terminal, else json.", name="log_format"),
    ] = "auto"
    prompts: Annotated[bool, Option("Log what clients send, not only its length.", name="log_prompts")] = (
        False
    )


@dataclass(frozen=True, slots=True)
class Observe:
    """Metrics, traces and the live page."""

    metrics: Annotated[bool, Option("Count and time requests, and serve the figures at /metrics.")] = True
    metrics_compat: Annotated[
        Literal["none", "vllm"], Option("vllm: show the figures that vLLM has under vLLM's names, too.")
    ] = "none"
    ui: Annotated[bool, Option("Serve the live page /ui and its data, /v1/rllm/state.")] = True
    otlp_endpoint: Annotated[
        str,
        Option(
            "Send traces to this OpenTelemetry collector, like http://HOST:4318. Needs the packages of "
            "rllm[tracing].",
            unit="URL",
            default="OTEL_EXPORTER_OTLP_ENDPOINT, else no traces",
        ),
    ] = ""
