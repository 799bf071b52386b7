"""What the operator chose: a struct for each subject, checked together. `rllm.settings.load` makes one."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rllm.files.utf8 import fault_of
from rllm.settings.degrade import DegradeSettings
from rllm.settings.limits import InstanceSettings, Limits, Shutdown, Timeouts
from rllm.settings.model import MODEL_SUBJECTS, ModelSettings, PerModel, subject, values_of
from rllm.settings.operation import Logging, Observe, Start
from rllm.settings.option import Setting
from rllm.settings.server import Access, Http, Models, Server, Tls
from rllm.settings.values import pairs

SUBJECTS = (
    subject("Model", "models", Models, table=False),
    *MODEL_SUBJECTS,
    subject("Start", "start", Start),
    subject("Server", "server", Server, table=False),
    subject("Access", "access", Access, table=False),
    subject("HTTPS", "tls", Tls),
    subject("HTTP", "http", Http),
    subject("Limits", "limits", Limits),
    subject("Time limits", "timeouts", Timeouts),
    subject("Degradation", "degrade", DegradeSettings),
    subject("Workers", "workers", InstanceSettings),
    subject("Shutdown", "shutdown", Shutdown),
    subject("Logging", "logging", Logging),
    subject("Metrics and traces", "observe", Observe),
)
SETTINGS: dict[str, Setting] = {setting.name: setting for part in SUBJECTS for setting in part.settings}
"""Every setting by the name of its option."""
OF_MODEL = frozenset(setting.name for part in MODEL_SUBJECTS for setting in part.settings)
"""Those that a ``[[models]]`` table may hold, beside gguf and alias."""


@dataclass(frozen=True)
class Settings(PerModel):
    """All of it. What it inherits holds for the models that have nothing else of their own."""

    models: Models = Models()
    start: Start = Start()
    server: Server = Server()
    access: Access = Access()
    tls: Tls = Tls()
    http: Http = Http()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    degrade: DegradeSettings = DegradeSettings()
    workers: InstanceSettings = InstanceSettings()
    shutdown: Shutdown = Shutdown()
    logging: Logging = Logging()
    observe: Observe = Observe()
    tables: tuple[ModelSettings, ...] = ()
    """The ``[[models]]`` of the TOML file. There are either these or ``models.gguf``."""
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Where each value comes from, by the name of its option; what is not here is a default."""
    own: tuple[Mapping[str, Any], ...] = field(default=(), compare=False)
    """What each of ``tables`` says itself."""

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: two settings exclude each other, or one is not safe.
        """
        super().__post_init__()
        if faults := [fault for fault in map(fault_of, self._paths()) if fault]:
            raise ValueError(faults[0])
        gguf, alias = self.models.gguf, self.models.alias
        if self.tables and gguf:
            raise ValueError("gguf and [[models]] exclude each other")
        if alias and len(gguf) > 1 and len(alias) != len(gguf):
            raise ValueError(f"{len(gguf)} gguf but {len(alias)} alias: give one for each, in order")
        names = [name for model in self.served() for name in (model.id, *model.aliases)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two models are called {twice[0]!r}: give each an alias of its own")
        if not self.observe.metrics and (self.http.open_metrics or self.observe.metrics_compat != "none"):
            raise ValueError("open_metrics and metrics_compat are about /metrics, and metrics is off")
        self._check_stand_ins(names)
        self._check_access()

    def _paths(self) -> Iterator[Path]:
        yield from (value for value in self.values().values() if isinstance(value, Path))
        yield from (*self.models.gguf, *(model.gguf for model in self.tables))

    def _check_stand_ins(self, names: list[str]) -> None:
        for option, texts in (("smaller", self.degrade.smaller), ("fallback", self.degrade.fallback)):
            for model, other in pairs(texts).items():
                if model not in names or other not in names or model == other:
                    raise ValueError(
                        f"{option} {model}={other}: must name two models; there is {', '.join(names)}"
                    )

    def _check_access(self) -> None:
        if (self.tls.keyfile or self.tls.keyfile_password) and not self.tls.certfile:
            raise ValueError("ssl_keyfile needs ssl_certfile")
        access = self.access
        if not (self.is_loopback or access.api_key or access.keys_file or access.allow_insecure):
            raise ValueError(
                f"host {' '.join(self.server.host)} is open to other machines: set an API key (RLLM_API_KEY) "
                "or allow_insecure"
            )

    def values(self) -> dict[str, Any]:
        return values_of(self, SUBJECTS)

    @property
    def listening_hosts(self) -> tuple[str, ...]:
        return self.server.host or (() if self.server.uds else ("127.0.0.1",))

    @property
    def is_loopback(self) -> bool:
        """Nobody from another machine can connect."""
        return all(map(_is_loopback, self.listening_hosts))

    def served(self) -> tuple[ModelSettings, ...]:
        """Every model with the settings that apply to it."""
        if self.tables:
            return self.tables
        common = {part.field: getattr(self, part.field) for part in MODEL_SUBJECTS}
        files, names = self.models.gguf, self.models.alias
        aliases = [names] if len(files) == 1 else [_split(name) for name in names] or [()] * len(files)
        return tuple(
            ModelSettings(gguf=file, alias=alias, **common)
            for file, alias in zip(files, aliases, strict=False)
        )


def _split(alias: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in alias.split(",") if part.strip())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
