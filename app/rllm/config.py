"""What the operator chose, checked once and frozen: command line > RLLM_* environment > TOML file > defaults.

The fields are the single list of options: `rllm.cli` makes its flags from them, the environment variable of
``slots`` is RLLM_SLOTS, and the TOML key is ``slots``. Engine settings may be repeated in a ``[[models]]``
table, where they override the top level for that model.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from rllm import config_file
from rllm.backends.options import LlamaOptions
from rllm.config_access import as_keys, empty_variables
from rllm.errors import StartError
from rllm.files.gguf_info import model_name
from rllm.files.utf8 import fault_of
from rllm.serving.degrade import parse_rung
from rllm.workers.frames import SchedulerOptions

ENV_PREFIX = "RLLM_"
DEFAULT_CTX = 4096
DEFAULT_SLOTS = 8
MAX_SLOTS = 256
"""LLAMA_MAX_SEQ of the llama.cpp this package is built on."""

GROUPS = ("Model", "Engine", "Server", "Limits", "Logging")
CacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]


def _option(group: str, default: Any, text: str, **checks: Any) -> Any:
    return Field(default, description=text, json_schema_extra={"group": group}, **checks)


_model, _engine, _server, _limit, _log = (partial(_option, group) for group in GROUPS)


def _as_list(value: object) -> object:
    """One string is a list of one, or several with commas: what an environment variable can hold."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _as_words(value: object) -> object:
    """The same for what holds no commas of its own: an option given once may list several, too."""
    if isinstance(value, str):
        return _as_list(value)
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return [part.strip() for item in value for part in item.split(",") if part.strip()]
    return value


def _as_hosts(value: object) -> object:
    """[::1] as in an address is ::1."""
    hosts = _as_list(value)
    if not isinstance(hosts, list | tuple):
        return value
    return [host.removeprefix("[").removesuffix("]") if isinstance(host, str) else host for host in hosts]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


Name = Annotated[str, Field(min_length=1, max_length=200)]
_Listed = (NoDecode, BeforeValidator(_as_list))
_Words = (NoDecode, BeforeValidator(_as_words))
_Keys = (NoDecode, BeforeValidator(as_keys))


class ConfigError(StartError):
    """A setting is wrong. The message names it the way the operator wrote it."""

    code = "config_error"


EXACT_CTX = 512
_EXACT: dict[str, tuple[object, ...]] = {
    "kv": ("auto", "split"),
    "flash_attn": ("auto", "on"),
    "ubatch_size": (0, 48),
    "kv_cells": (0,),
    "cache_type_k": ("f16",),
    "cache_type_v": ("f16",),
    "speculative_tokens": (0,),
}
"""With ``exact``: what may be asked for, and what it is."""


class EngineSettings(BaseModel):
    """What each model may have of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slots: int = _engine(
        0,
        f"Requests decoded at the same time. 0: {DEFAULT_SLOTS} on the CPU; on a GPU as many as "
        "--gpu-memory-utilization leaves room for, up to 64.",
        ge=0,
        le=MAX_SLOTS,
    )
    ctx_size: int = _engine(
        0, f"Tokens per slot, prompt and output. 0: what the model was trained on, up to {DEFAULT_CTX}.", ge=0
    )
    threads: int = _engine(0, "CPU threads of a decode step. 0: the worker chooses.", ge=0, le=512)
    threads_batch: int = _engine(0, "CPU threads of a prefill. 0: like --threads.", ge=0, le=512)
    gpu_layers: int = _engine(-1, "Layers on the GPU. -1: all, where there is one.", ge=-1)
    gpu_memory_utilization: float = _engine(
        0.9,
        "Share of a card's memory that the model's instances on it may take, all replicas together.",
        gt=0,
        le=1,
    )
    kv: Literal["auto", "split", "unified"] = _engine(
        "auto", "Layout of the KV cache: a stream per slot, or one shared by all."
    )
    kv_cells: int = _engine(
        0,
        "Cells of a unified KV cache, shared by all slots; fewer than slots x ctx-size let more requests "
        "run than would fit at full length. 0: slots x ctx-size.",
        ge=0,
    )
    cache_type_k: CacheType = _engine("f16", "Type of the keys in the KV cache.")
    cache_type_v: CacheType = _engine("f16", "Type of the values. Quantized: needs flash attention.")
    flash_attn: Literal["auto", "on", "off"] = _engine("auto", "Flash attention.")
    batch_size: int = _engine(
        0, "Most tokens of one llama_decode call. 0: 256 on the CPU, 2048 on a GPU.", ge=0, le=65536
    )
    ubatch_size: int = _engine(
        0, "Most tokens computed at once. 0: the batch, on the CPU up to 512.", ge=0, le=65536
    )
    max_step_tokens: int = _engine(
        0, "Most tokens of one step, prefill and decode together. 0: the batch.", ge=0, le=65536
    )
    itl_target_s: float = _engine(
        0.1, "While somebody decodes, prefill is cut for steps of about this length.", gt=0, le=60
    )
    max_pause_s: float | None = _engine(
        None,
        "So long a crowd's prompts may keep waiting those who decode. Default: 0.5 on a GPU, else 0.",
        ge=0,
        le=60,
    )
    speculative_tokens: int = _engine(
        0,
        "Most tokens guessed ahead for a sequence from what its text repeats, where computing them beside "
        "the others was measured to pay (prompt lookup decoding). 0: none.",
        ge=0,
        le=16,
    )
    temperature: float | None = _engine(
        None,
        "Where a request says nothing. Default: what NAME.gguf.json recommends, else 1.",
        ge=0,
        le=2,
    )
    top_p: float | None = _engine(None, "The same for top_p.", ge=0, le=1)
    top_k: int | None = _engine(None, "The same for top_k; 0: off.", ge=0, le=1_000_000)
    min_p: float | None = _engine(None, "The same for min_p.", ge=0, le=1)
    cuda_graphs: Literal["auto", "on", "off"] = _engine(
        "auto",
        "CUDA graphs. auto: off where cuBLAS would be in them and could hang; a worker that stands still is "
        "replaced by one without.",
    )
    prefix_cache: bool = _engine(True, "Reuse the KV cells of prompts seen before.")
    prefix_store_mb: int = _engine(
        -1,
        "Memory (MiB) of each instance for prefixes that no longer fit its KV cache. 0: none. -1: up to 512 "
        "of what is free on the CPU or with --prefix-store-dir, else none.",
        ge=-1,
    )
    prefix_store_dir: Path | None = _engine(
        None, "Folder where they are written, too, to be used again after a restart. Holds what users wrote."
    )
    prefix_store_disk_mb: int = _engine(4096, "Most MiB of each instance in that folder.", ge=1)
    exact: bool = _engine(
        False,
        "Greedy answers depend on the request only, not on what is cached or who is served beside it "
        "(docs/exactness.md). For Q8_0 files on the CPU; prompts take longer.",
    )
    repack: Literal["auto", "on", "off"] = _engine(
        "auto",
        "Keep weights in another order for faster kernels (llama.cpp's extra buffer types; AMX needs them).",
    )
    mmap: bool = _engine(True, "Map the model file; instances on the CPU then share its pages.")
    mlock: bool = _engine(False, "Lock the model's pages in memory.")
    replicas: int = _engine(1, "Worker processes, each with slots and a cache of its own.", ge=1, le=64)
    devices: str = _engine(
        "", "CUDA devices of the replicas in turn, with commas: 0,1. Default: all of them see every device."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch_size:
            _at_most(slots=self.slots, batch_size=self.batch_size)
            _at_most(ubatch_size=self.ubatch_size, batch_size=self.batch_size)
            _at_most(max_step_tokens=self.max_step_tokens, batch_size=self.batch_size)
        if self.max_step_tokens:
            _at_most(slots=self.slots, max_step_tokens=self.max_step_tokens)
        if self.kv_cells and self.kv == "split":
            raise ValueError("kv_cells is for a unified cache; with kv split every slot has its own")
        if self.prefix_store_dir and not self.prefix_store_mb:
            raise ValueError("prefix_store_dir needs memory to go through: prefix_store_mb must not be 0")
        if self.prefix_store_dir and self.prefix_store_disk_mb < self.prefix_store_mb:
            raise ValueError(
                f"prefix_store_disk_mb ({self.prefix_store_disk_mb}) must not be less than prefix_store_mb "
                f"({self.prefix_store_mb}): what is in memory is on disk, too"
            )
        if not self.prefix_cache and (self.prefix_store_dir or self.prefix_store_mb > 0):
            raise ValueError("without prefix_cache nothing is reused: leave the prefix_store options out")
        if self.exact:
            self._check_exact()
        if self.flash_attn == "off" and self.cache_type_v not in {"f32", "f16", "bf16"}:
            raise ValueError(f"cache_type_v {self.cache_type_v} needs flash attention, and flash_attn is off")
        return self

    def _check_exact(self) -> None:
        """What the kernels that always give the same bits need."""
        for name, allowed in _EXACT.items():
            if (value := getattr(self, name)) not in allowed:
                raise ValueError(f"exact needs {name} {allowed[-1]}, not {value}")
        if (self.ctx_size or DEFAULT_CTX) >= EXACT_CTX and self.threads != 1:
            raise ValueError(
                f"exact needs threads 1 where a slot holds {EXACT_CTX} tokens or more: several threads add "
                "up a lone row in parts (threads_batch, for prompts and company, may be more)"
            )

    def llama_options(self, num_ctx_train: int) -> LlamaOptions:
        shared = EngineSettings.model_fields.keys() & set(LlamaOptions.__struct_fields__)
        values = {name: getattr(self, name) for name in shared}
        values["slots"] = self.slots or min(DEFAULT_SLOTS, self.most_slots)
        values["prefix_store_mb"] = max(0, self.prefix_store_mb)  # what -1 means depends on the machine
        values["prefix_store_dir"] = str(self.prefix_store_dir or "")
        values["ctx_per_slot"] = self.ctx_size or min(num_ctx_train or DEFAULT_CTX, DEFAULT_CTX)
        if self.exact:
            values |= {name: allowed[-1] for name, allowed in _EXACT.items() if name in shared}
        return LlamaOptions(**values)

    @property
    def most_slots(self) -> int:
        """What the other options leave room for."""
        return min(self.batch_size or MAX_SLOTS, self.max_step_tokens or MAX_SLOTS, MAX_SLOTS)

    def scheduler_options(self) -> SchedulerOptions:
        return SchedulerOptions(**{name: getattr(self, name) for name in SchedulerOptions.__struct_fields__})


def pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """ "a=b" as a mapping."""
    split = [text.partition("=") for text in texts]
    if wrong := [text for text, (a, _, b) in zip(texts, split, strict=True) if not a or not b]:
        raise ValueError(f"{wrong[0]!r} must be MODEL=MODEL")
    return {a: b for a, _, b in split}


def _at_most(**pair: int) -> None:
    (small, value), (large, limit) = pair.items()
    if value > limit:
        raise ValueError(f"{small} ({value}) must not exceed {large} ({limit})")


class ModelSettings(EngineSettings):
    """One model of the server, with everything that applies to it."""

    gguf: Path
    alias: Annotated[tuple[Name, ...], BeforeValidator(_as_list)] = ()

    @property
    def id(self) -> str:
        """The name that answers have."""
        return self.alias[0] if self.alias else model_name(self.gguf)

    @property
    def aliases(self) -> tuple[str, ...]:
        """Further names clients may use."""
        return self.alias[1:]


class Settings(EngineSettings, BaseSettings):
    """All of it. `load` is the way to make one."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_ignore_empty=True
    )

    gguf: Annotated[tuple[Path, ...], *_Listed] = _model(
        (), "Model file (GGUF). Repeat it to serve several models."
    )
    alias: Annotated[tuple[str, ...], *_Listed] = _model(
        (),
        "Name of the model for clients; may be repeated: one model has them all, of several each has one, in "
        "order, or more with commas. Default: the file's name.",
    )
    any_model_name: bool = _model(
        False, "Where one model is served, it also answers requests that name one which is not."
    )
    models: tuple[ModelSettings, ...] = ()
    """``[[models]]`` of the TOML file. Give either these or ``gguf``."""

    host: Annotated[tuple[Name, ...], NoDecode, BeforeValidator(_as_hosts)] = _server(
        (),
        "Address to listen on, like 0.0.0.0 or [::1]; may be repeated. Default: 127.0.0.1, none with --uds.",
    )
    port: int = _server(8000, "Port to listen on. 0: any free one.", ge=0, le=65535)
    uds: Path | None = _server(
        None, "Unix socket to listen on. Whoever may write to it may connect: the umask decides."
    )
    api_key: Annotated[tuple[SecretStr, ...], *_Keys] = _server(
        (), "Key that clients must send; may be repeated. RLLM_API_KEY hides it from `ps`."
    )
    keys_file: Path | None = _server(
        None, "TOML file with named, hashed keys and their limits; read again on SIGHUP."
    )
    allow_insecure: bool = _server(False, "Listen beyond this machine without any API key.")
    allowed_hosts: Annotated[tuple[str, ...], *_Words] = _server(
        (),
        "Name that requests may call the server by (Host header), like example.org or *.example.org; may be "
        "repeated, * allows all. Addresses and localhost always may. Default: no other on a loopback "
        "address without a key, else all.",
    )
    share_prefixes: bool = _server(
        False,
        "Reuse computed prompts across API keys. Callers can then measure what others have asked.",
    )
    ssl_certfile: Path | None = _server(None, "Serve HTTPS with this certificate chain (PEM).")
    ssl_keyfile: Path | None = _server(None, "Its private key. Default: in the same file.")
    ssl_keyfile_password: SecretStr | None = _server(None, "What the private key is encrypted with.")
    allow_overcommit: bool = _server(False, "Start although the models seem to exceed the free memory.")
    require_all: bool = _server(
        False, "End when one of several models cannot be started. Default: serve the others."
    )
    profile_dir: Path | None = _server(
        None,
        "Folder for what was found out about a model on this machine. Default: rllm/profiles in the user's "
        "cache.",
    )
    tune: Literal["off", "quick", "full"] = _server(
        "off",
        "Measure which options are fastest for a model on this machine before it is served for the first "
        "time: quick takes up to 5 s, full up to 5 minutes (like rllm-models tune). What is known is used "
        "with off, too.",
    )
    tune_for: Literal["chat", "long", "throughput", "latency"] = _server(
        "chat", "What tuning weighs: 600 tokens and 1 to 8 users; 2,000 tokens; 16 users; 1 user."
    )
    metrics: bool = _server(True, "Count and time, and serve /metrics.")
    open_metrics: bool = _server(False, "Serve /metrics without an API key.")
    cors_origin: Annotated[tuple[str, ...], *_Words] = _server(
        (),
        "Web page origin that may call the server; may be repeated. localhost: any of this machine; *: all.",
    )
    trust_request_chat_template: bool = _server(
        False, "Requests may bring a chat template, which is a program; each costs a process."
    )
    docs: bool = _server(True, "Serve /docs and /openapi.json.")
    ui: bool = _server(True, "Serve the live page /ui and its data, /v1/rllm/state.")

    max_queue_requests: int = _limit(256, "Most requests that wait for a slot.", ge=0)
    max_queue_tokens: int = _limit(
        0, "Most prompt tokens that wait. 0: derived from the slots and their context.", ge=0
    )
    target_ttft_s: float = _limit(
        0.0, "Refuse requests whose first token would probably take longer. 0: no target.", ge=0
    )
    queue_timeout_s: float = _limit(120.0, "Longest wait for a slot. 0: no limit.", ge=0)
    first_token_timeout_s: float = _limit(300.0, "Longest wait for the first token. 0: no limit.", ge=0)
    request_timeout_s: float = _limit(600.0, "Longest time of a whole request. 0: no limit.", ge=0)
    stream_idle_timeout_s: float = _limit(60.0, "Longest time between two tokens. 0: no limit.", ge=0)
    retry_timeout_s: float = _limit(
        30.0, "How long a request that lost its worker waits for another. 0: no limit.", ge=0
    )
    stall_timeout_s: float = _limit(
        30.0, "A worker with work and without a step for so long is killed and replaced. 0: never.", ge=0
    )
    degrade: Annotated[tuple[str, ...], *_Words] = _limit(
        (),
        "What to give up at which load (requests per slot): 1.5:cap=128, 2:shed=0, 3:route, 4:refuse.",
    )
    degrade_hold_s: float = _limit(5.0, "How long it must be calm before one level is taken back.", ge=0)
    smaller: Annotated[tuple[str, ...], *_Words] = _limit(
        (), "MODEL=VARIANT: who answers for a model at a 'route' level. Both must be served here."
    )
    fallback: Annotated[tuple[str, ...], *_Words] = _limit(
        (), "MODEL=OTHER: who answers while no instance of the model takes requests."
    )
    max_body_bytes: int = _limit(
        2 * 2**20, "Largest request body, in bytes; 2 MiB are the text of some 400,000 tokens.", ge=1024
    )
    max_connections: int = _limit(
        0, "Most connections at a time; the one idle longest makes room. 0: what descriptors allow.", ge=0
    )
    body_timeout_s: float = _limit(30.0, "Longest time for a client to send a body.", gt=0)
    slow_client_timeout_s: float = _limit(
        30.0, "Longest time one write to a client may be stuck. 0: never ends it.", ge=0
    )
    keepalive_s: float = _limit(15.0, "A silent event stream gets a comment this often. 0: never.", ge=0)
    start_timeout_s: float = _limit(600.0, "Longest time for loading a model.", gt=0)
    drain_delay_s: float = _limit(
        0.0, "After SIGTERM, how long requests are still accepted while /health/ready says no.", ge=0
    )
    drain_timeout_s: float = _limit(
        30.0, "After SIGTERM, how long running requests may go on (Ctrl-C: at most 1 s).", ge=0
    )

    log_format: Literal["auto", "json", "console"] = _log("auto", "auto: console on a terminal, else JSON.")
    log_level: Literal["debug", "info", "warning", "error"] = _log("info", "Least level to log.")
    log_prompts: bool = _log(False, "Log what clients send. Off: only lengths.")
    metrics_compat: Literal["none", "vllm"] = _log(
        "none", "vllm: show the common metrics also under vLLM's names."
    )
    otlp_endpoint: str = _log(
        "",
        "Send traces to this OpenTelemetry collector, http://HOST:4318. Needs OpenTelemetry's packages. "
        "Default: what OTEL_EXPORTER_OTLP_ENDPOINT says; without either nothing is traced.",
    )

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _has_names(self) -> Self:
        values = [getattr(self, name) for name in type(self).model_fields]
        paths = [value for value in values if isinstance(value, Path)]
        paths += [*self.gguf, *(model.gguf for model in self.models)]
        if faults := [fault for fault in map(fault_of, paths) if fault]:
            raise ValueError(faults[0])
        return self

    @model_validator(mode="after")
    def _is_servable(self) -> Self:
        if self.models and self.gguf:
            raise ValueError("gguf and [[models]] exclude each other")
        if self.alias and len(self.gguf) > 1 and len(self.alias) != len(self.gguf):
            raise ValueError(
                f"{len(self.gguf)} gguf but {len(self.alias)} alias: give one for each, in order"
            )
        names = [name for model in self.served() for name in (model.id, *model.aliases)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two models are called {twice[0]!r}: give each an alias of its own")
        if not self.metrics and (self.open_metrics or self.metrics_compat != "none"):
            raise ValueError("open_metrics and metrics_compat are about /metrics, and metrics is off")
        self._check_reliability(names)
        if (self.ssl_keyfile or self.ssl_keyfile_password) and not self.ssl_certfile:
            raise ValueError("ssl_keyfile needs ssl_certfile")
        if not (self.is_loopback or self.api_key or self.keys_file or self.allow_insecure):
            raise ValueError(
                f"host {' '.join(self.host)} is open to other machines: set an API key (RLLM_API_KEY) or "
                "allow_insecure"
            )
        return self

    def _check_reliability(self, names: list[str]) -> None:
        for rung in self.degrade:
            parse_rung(rung)
        for option in ("smaller", "fallback"):
            for model, other in pairs(getattr(self, option)).items():
                if model not in names or other not in names or model == other:
                    raise ValueError(
                        f"{option} {model}={other}: must name two models; there is {', '.join(names)}"
                    )

    @property
    def listening_hosts(self) -> tuple[str, ...]:
        return self.host or (() if self.uds else ("127.0.0.1",))

    @property
    def is_loopback(self) -> bool:
        """Nobody from another machine can connect."""
        return all(map(_is_loopback, self.listening_hosts))

    def served(self) -> tuple[ModelSettings, ...]:
        """Every model with the settings that apply to it."""
        common = {name: getattr(self, name) for name in EngineSettings.model_fields}
        aliases = [self.alias] if len(self.gguf) == 1 else self.alias or [()] * len(self.gguf)
        own: list[dict[str, Any]] = [
            {"gguf": gguf, "alias": alias} for gguf, alias in zip(self.gguf, aliases, strict=False)
        ]
        own += [{name: getattr(model, name) for name in model.model_fields_set} for model in self.models]
        return tuple(ModelSettings(**{**common, **values}) for values in own)

    def printable(self, known: Mapping[str, tuple[object, str]] | None = None) -> str:
        """The result as a TOML file, secrets masked, each value with where it came from. ``known``: values
        for what nobody has chosen, with their origins."""
        hidden = {"models", "gguf", "alias"} if self.models else {"models"}
        values = self.model_dump(mode="json", exclude=hidden)
        tables = [model.model_dump(mode="json", exclude_unset=True) for model in self.models]
        values |= {name: value for name, (value, _) in (known or {}).items()}
        origins = self._origins | {name: origin for name, (_, origin) in (known or {}).items()}
        return config_file.dump(values, origins, tables)


def load(cli: Mapping[str, Any], path: Path | None = None, *, need_model: bool = True) -> Settings:
    """Merge and check. ``cli`` holds only what was given on the command line.

    Without ``need_model`` the settings may name none: they can be shown, and not served.

    Raises:
        ConfigError: one line that names every wrong setting.
    """
    file = _read(path) if path else {}
    environment = {name for name in Settings.model_fields if os.environ.get(_env_name(name))}
    if "gguf" in {*cli, *environment}:  # naming models replaces those of the file
        file = {key: value for key, value in file.items() if key not in {"models", "gguf", "alias"}}
    origins = {
        **dict.fromkeys(file, str(path)),
        **{name: _env_name(name) for name in environment},
        **dict.fromkeys(cli, "command line"),
    }
    try:
        settings = _layered(file)(**cli)
    except ValidationError as error:
        raise ConfigError(config_file.explain(error, origins, Settings.model_fields)) from None
    if need_model and not settings.served():
        raise ConfigError("no model to serve: give --gguf PATH, RLLM_GGUF, or [[models]] in a TOML file")
    empty = [name for name in empty_variables(os.environ) if not getattr(settings, _field_name(name))]
    if empty and not settings.is_loopback:
        raise ConfigError(
            f"{empty[0]} is empty, and host {' '.join(settings.host)} is open to other machines"
        )
    settings._origins.update(origins)
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        return config_file.read(path)
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"--config {path}: {error}") from None


def _layered(file: dict[str, Any]) -> type[Settings]:
    """Settings that read the file's values below those of the environment."""

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, file)

    return Layered


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """RLLM_* variables that no setting reads: probably misspelt."""
    known = {_env_name(name) for name in Settings.model_fields} | {ENV_PREFIX + "CONFIG"}
    return sorted(name for name in environ if name.startswith(ENV_PREFIX) and name not in known)


def _env_name(field: str) -> str:
    return ENV_PREFIX + field.upper()


def _field_name(variable: str) -> str:
    return variable.removeprefix(ENV_PREFIX).lower()
