"""What the API needs from the rest of the server, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from rllm.backends.options import Fallback
from rllm.engine.port import Vocabulary
from rllm.engine.types import OPENAI_SAMPLING, EngineRequest, ModelInfo, SamplingDefaults
from rllm.serving.stream import Stream
from rllm.serving.terms import ANYBODY, Headers, Terms


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model a client can name. ``id`` is its alias, or the file's name without ".gguf"."""

    id: str
    aliases: tuple[str, ...]
    created: int
    """Unix time when it became ready."""
    info: ModelInfo
    vocabulary: Vocabulary
    sampling: SamplingDefaults = OPENAI_SAMPLING
    """Values that hold where a request says nothing."""


@dataclass(frozen=True, slots=True)
class Health:
    """``ready``: new requests are accepted and would make progress."""

    ready: bool
    reason: str
    """"ok", "loading", "draining", "stalled" or "no healthy instance"."""
    instances: tuple[tuple[str, str], ...] = ()
    """(instance name, state)"""
    fallbacks: tuple[tuple[str, Fallback], ...] = ()
    """(instance name, what it computes only with)"""
    tuned: tuple[tuple[str, dict[str, str | int]], ...] = ()
    """(instance name, options that were measured to be fastest here)"""
    not_served: tuple[tuple[str, str], ...] = ()
    """(model, why it could not be started): the others are."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request under way, with one stream per sequence. The caller reads each to its end or cancels it."""

    streams: list[Stream]
    model: ServedModel
    """The model that answers: a smaller variant where the server is degraded, or a fallback."""
    headers: Headers = ()
    """Headers of the answer: x-ratelimit-*, x-rllm-degraded."""


class Service(Protocol):
    def models(self) -> list[ServedModel]: ...

    def model(self, name: str | None) -> ServedModel:
        """The model of that name; the first one for ``None``.

        Raises:
            NotFound: no model of that name; the message lists those there are.
        """
        ...

    def check_open(
        self, model: ServedModel, num_requests: int, priority: int, terms: Terms = ANYBODY
    ) -> None:
        """Say no before the prompt is looked at, where `submit` would say it whatever the prompt is.

        Raises:
            Refused: see `submit`.
        """
        ...

    def submit(self, model: ServedModel, requests: list[EngineRequest], terms: Terms = ANYBODY) -> Accepted:
        """Start all of them or none.

        Raises:
            PromptTooLong: prompt + max_tokens can never fit one slot.
            Refused: a limit of the key, queue full, draining, or nothing healthy.
        """
        ...

    def health(self) -> Health: ...

    def num_in_flight(self) -> int:
        """Sequences that were accepted and are not over."""
        ...
