"""What the HTTP layer can be told. Checked once at start."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from rllm.api.counts import DEFAULT_COUNTS, Counts
from rllm.settings.server import Http


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A caller's key. Only its digest is kept, so neither a log nor a dump can show the key."""

    name: str
    """Appears in records and logs; never secret."""
    digest: bytes = field(repr=False)
    """SHA-256 of the key as UTF-8."""
    operator: bool = True
    """May see what all callers do: metrics and the live state."""

    @classmethod
    def from_secret(cls, name: str, secret: str) -> ApiKey:
        return cls(name=name, digest=hashlib.sha256(secret.encode()).digest())


class NamedKey(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> bytes: ...

    @property
    def operator(self) -> bool: ...


def find_key(keys: Iterable[NamedKey], secret: bytes) -> NamedKey | None:
    """The key whose secret this is. Looks at every key, so the time taken says nothing about them.

    Args:
        secret: as it was in the header. What is beyond ASCII some clients send as UTF-8, others as Latin-1.
    """
    digests = [hashlib.sha256(text).digest() for text in (secret, secret.decode("latin-1").encode())]
    found: NamedKey | None = None
    for key in keys:
        if any(hmac.compare_digest(key.digest, digest) for digest in digests):
            found = key
    return found


@dataclass(frozen=True, slots=True)
class ApiSettings(Http):
    """What the operator chose for HTTP, and what no option changes."""

    api_keys: tuple[ApiKey, ...] = ()
    """Without any, everybody is let in. /health* is always open."""
    allowed_hosts: tuple[str, ...] | None = None
    """Names that the Host header may have, without port; "*.example.com" is any name below it. None: all."""

    counts: Counts = DEFAULT_COUNTS
    max_n: int = 16
    max_choices: int = 128
    """n times the number of prompts."""
    max_stop_chars: int = 256
    """Length of one stop string."""
    max_top_logprobs: int = 20
    max_prompt_logprobs: int = 1_000_000
    """Figures in one answer: tokens of all prompts, times choices, times rivals of each and itself."""
    max_tokenize_bytes: int = 1024 * 1024
    """Text given to /tokenize."""

    text_threads: int = 2
    """Threads that tokenize."""
    render_timeout_s: float = 1.0
    """Longest time one chat template may take."""
