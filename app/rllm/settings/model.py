"""The settings that apply to one model, checked against each other, and what they mean for its workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rllm.backends.options import LlamaOptions
from rllm.files.gguf_info import model_name
from rllm.settings.engine import (
    DEFAULT_CTX,
    DEFAULT_SLOTS,
    MAX_SLOTS,
    Cache,
    Engine,
    PrefixStore,
    Sampling,
    Tuning,
)
from rllm.settings.option import Setting, settings_of
from rllm.workers.frames import SchedulerOptions


class Subject(NamedTuple):
    """One struct of settings: a heading of --help, a table of the TOML file, a field of `Settings`."""

    heading: str
    field: str
    table: str
    """Empty: its keys stand above all tables."""
    struct: type
    settings: tuple[Setting, ...]


def subject(heading: str, field: str, struct: type, *, table: bool = True) -> Subject:
    name = field if table else ""
    return Subject(heading, field, name, struct, settings_of(struct, name))


MODEL_SUBJECTS = (
    subject("Engine", "engine", Engine, table=False),
    subject("KV cache", "cache", Cache),
    subject("Prefix store", "prefix_store", PrefixStore),
    subject("Sampling", "sampling", Sampling),
    subject("Tuning", "tuning", Tuning),
)
"""What a ``[[models]]`` table may hold, too."""

MAX_ALIAS = 200
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


@dataclass(frozen=True)
class PerModel:
    """The settings that each model may have of its own."""

    engine: Engine = Engine()
    cache: Cache = Cache()
    prefix_store: PrefixStore = PrefixStore()
    sampling: Sampling = Sampling()
    tuning: Tuning = Tuning()

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: two settings exclude each other.
        """
        engine, cache, tuning = self.engine, self.cache, self.tuning
        if tuning.batch_size:
            _at_most(slots=engine.slots, batch_size=tuning.batch_size)
            _at_most(ubatch_size=tuning.ubatch_size, batch_size=tuning.batch_size)
            _at_most(max_step_tokens=tuning.max_step_tokens, batch_size=tuning.batch_size)
        if tuning.max_step_tokens:
            _at_most(slots=engine.slots, max_step_tokens=tuning.max_step_tokens)
        if cache.kv_cells and cache.kv == "split":
            raise ValueError("kv_cells is for a unified cache; with kv split every slot has its own")
        if engine.flash_attn == "off" and cache.cache_type_v not in {"f32", "f16", "bf16"}:
            raise ValueError(
                f"cache_type_v {cache.cache_type_v} needs flash attention, and flash_attn is off"
            )
        self._check_store()
        if engine.exact:
            self._check_exact()

    def _check_store(self) -> None:
        store = self.prefix_store
        if store.dir and not store.mb:
            raise ValueError("prefix_store_dir needs memory to go through: prefix_store_mb must not be 0")
        if store.dir and store.disk_mb < store.mb:
            raise ValueError(
                f"prefix_store_disk_mb ({store.disk_mb}) must not be less than prefix_store_mb "
                f"({store.mb}): what is in memory is on disk, too"
            )
        if not self.cache.prefix_cache and (store.dir or store.mb > 0):
            raise ValueError("without prefix_cache nothing is reused: leave the prefix_store options out")

    def _check_exact(self) -> None:
        """What the kernels that always give the same bits need."""
        values = self.values()
        for name, allowed in _EXACT.items():
            if values[name] not in allowed:
                raise ValueError(f"exact needs {name} {allowed[-1]}, not {values[name]}")
        if (self.engine.ctx_size or DEFAULT_CTX) >= EXACT_CTX and self.engine.threads != 1:
            raise ValueError(
                f"exact needs threads 1 where a slot holds {EXACT_CTX} tokens or more: several threads add "
                "up a lone row in parts (threads_batch, for prompts and company, may be more)"
            )

    def values(self) -> dict[str, Any]:
        """By the names of the options."""
        return values_of(self, MODEL_SUBJECTS)

    @property
    def most_slots(self) -> int:
        """What the other options leave room for."""
        return min(self.tuning.batch_size or MAX_SLOTS, self.tuning.max_step_tokens or MAX_SLOTS, MAX_SLOTS)

    def llama_options(self, num_ctx_train: int) -> LlamaOptions:
        chosen = self.values()
        values = {name: chosen[name] for name in LlamaOptions.__struct_fields__ if name in chosen}
        values["slots"] = self.engine.slots or min(DEFAULT_SLOTS, self.most_slots)
        values["prefix_store_mb"] = max(0, self.prefix_store.mb)  # what -1 means depends on the machine
        values["prefix_store_dir"] = str(self.prefix_store.dir or "")
        values["ctx_per_slot"] = self.engine.ctx_size or min(num_ctx_train or DEFAULT_CTX, DEFAULT_CTX)
        if self.engine.exact:
            values |= {name: allowed[-1] for name, allowed in _EXACT.items()}
        return LlamaOptions(**values)

    def scheduler_options(self) -> SchedulerOptions:
        chosen = self.values()
        return SchedulerOptions(**{name: chosen[name] for name in SchedulerOptions.__struct_fields__})


@dataclass(frozen=True, kw_only=True)
class ModelSettings(PerModel):
    """One model of the server, with everything that applies to it."""

    gguf: Path
    alias: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if wrong := [name for name in self.alias if not 1 <= len(name) <= MAX_ALIAS]:
            raise ValueError(f"alias {wrong[0]!r} must have 1 to {MAX_ALIAS} characters")

    @property
    def id(self) -> str:
        """The name that answers have."""
        return self.alias[0] if self.alias else model_name(self.gguf)

    @property
    def aliases(self) -> tuple[str, ...]:
        """Further names clients may use."""
        return self.alias[1:]


def values_of(structs: object, subjects: tuple[Subject, ...]) -> dict[str, Any]:
    """The value of every setting of these subjects, by the name of its option."""
    return {
        setting.name: getattr(getattr(structs, part.field), setting.field)
        for part in subjects
        for setting in part.settings
    }


def _at_most(**pair: int) -> None:
    (small, value), (large, limit) = pair.items()
    if value > limit:
        raise ValueError(f"{small} ({value}) must not exceed {large} ({limit})")
