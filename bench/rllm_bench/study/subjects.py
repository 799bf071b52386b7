"""From the names of a piece to targets that can be started."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from rllm_bench.load.client import Endpoint
from rllm_bench.records.runs import Settings
from rllm_bench.study.pieces import FLAVOURS, split
from rllm_bench.study.vllm import Running
from rllm_bench.targets.base import Launch, Target, ignore_eos
from rllm_bench.targets.llama_server import LlamaServer
from rllm_bench.targets.rllm import Rllm

_READY_S = 60.0
"""From a warm page cache it takes ten; a server that hangs must not use up the time."""


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where things are on this machine."""

    models: Path
    llama_server: str | None = None
    rllm_env: dict[str, str] = {}
    vllm: dict[str, Running] = {}
    """By the label of their flavours."""


@dataclass(frozen=True)
class Configured:
    """A target with further options of its own; named by them where they are what is compared."""

    inner: Target
    label: str = ""
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def engine(self) -> str:
        return self.inner.engine

    @property
    def variant(self) -> str:
        return self.inner.variant + self.label

    @property
    def model(self) -> Path | None:
        return self.inner.model

    def missing(self) -> str | None:
        return self.inner.missing()

    def version(self) -> str:
        return _version(self.inner)  # type: ignore[arg-type]  # targets are frozen dataclasses

    def launch(self, settings: Settings, port: int, end_tokens: tuple[int, ...]) -> Launch:
        made = self.inner.launch(settings, port, end_tokens)
        body = {
            name: value for name, value in {**made.endpoint.body, **self.body}.items() if value is not None
        }
        return replace(
            made,
            command=None if made.command is None else [*made.command, *self.options],
            env={**made.env, **self.env},
            endpoint=msgspec.structs.replace(made.endpoint, body=body),
            ready_timeout_s=_READY_S,
        )


@functools.cache
def _version(target: Target) -> str:
    """Asking llama-server takes a second, and every cell wants to know."""
    return target.version()


@dataclass(frozen=True)
class RunningVllm:
    """vLLM as `rllm_bench.study.vllm` started it, or somebody else did."""

    running: Running
    variant: str = "f16"
    engine: str = "vllm"
    model: Path | None = None

    def missing(self) -> str | None:
        return self.running.failed()

    def version(self) -> str:
        return self.running.version()

    def launch(self, settings: Settings, port: int, end_tokens: tuple[int, ...]) -> Launch:
        endpoint = Endpoint(base_url=self.running.url, model="", body=ignore_eos())
        notes = (f"runs through the whole study, as: {' '.join(self.running.command)}",)
        return Launch(endpoint=endpoint, ready_path="/health", notes=notes)


def target(name: str, places: Places, peer: tuple[str, ...]) -> Configured | None:
    """``peer``: flavours of a llama-server that has none of its own. None: no such vLLM runs."""
    engine, variant, flavours = split(name)
    label = "".join(f"+{flavour}" for flavour in flavours)
    if engine == "llama-server":
        flavours = (*(f for f in peer if f not in flavours), *flavours) if _is_peer(flavours) else flavours
    options = [word for f in flavours for word in FLAVOURS[f].options.get(engine, ())]
    body = {key: value for f in flavours for key, value in FLAVOURS[f].body.items()}
    path = places.models / f"{variant}.gguf"
    match engine:
        case "rllm":
            inner: Target = Rllm(variant, path)
            options = ["--stall-timeout-s", "20", *options]
            return Configured(inner, label, tuple(options), places.rllm_env, body)
        case "llama-server":
            inner = LlamaServer(variant, path, places.llama_server)
            return Configured(inner, label, ("-ngl", "99", "-fa", "on", *options), {}, body)
        case "vllm":
            running = places.vllm.get(vllm_label(flavours))
            return None if running is None else Configured(RunningVllm(running, variant), label, (), {}, body)
    raise ValueError(f"no engine {engine!r}")


def vllm_label(flavours: Iterable[str]) -> str:
    """Of the process that serves them: flavours of the requests alone are served by the plain one."""
    return "".join(f"+{flavour}" for flavour in flavours if "vllm" in FLAVOURS[flavour].options)


def _is_peer(flavours: tuple[str, ...]) -> bool:
    """Whether it stands for llama-server as such, and not for one of the layouts that are compared."""
    return not {"nocache", "unified"} & set(flavours)
