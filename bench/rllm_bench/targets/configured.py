"""A target with words of its own, as in a shell: `[NAME=VALUE...] ENGINE[:VARIANT] [OPTION...]`."""

from __future__ import annotations

import functools
import os
import re
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path

from rllm_bench.records.cells import Settings
from rllm_bench.targets.base import Launch, Target

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


@dataclass(frozen=True)
class Token:
    """What was written for a target. ``variant`` is empty where any was meant."""

    engine: str
    variant: str = ""
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Token:
        """Variables of the environment are filled in, so that a plan need not know a machine's paths.

        Raises:
            ValueError: no engine in it, or a quote that is not closed.
        """
        words = shlex.split(os.path.expandvars(text))
        env: dict[str, str] = {}
        while words and _ASSIGNMENT.match(words[0]):
            name, _, value = words.pop(0).partition("=")
            env[name] = value
        if not words:
            raise ValueError(f"{text!r} names no engine")
        engine, _, variant = words[0].partition(":")
        return cls(engine, variant, tuple(words[1:]), env)

    @property
    def label(self) -> str:
        """The options as a part of the subject's name: `+kv=split+slots=8`."""
        text = ""
        for word in self.options:
            joined = "+" if word.startswith("-") or not text else "="
            text += joined + word.lstrip("-").replace("/", "_")
        return text


@dataclass(frozen=True)
class Configured:
    """Started with further options and variables, and named by the options."""

    inner: Target
    token: Token

    @property
    def engine(self) -> str:
        return self.inner.engine

    @property
    def variant(self) -> str:
        return self.inner.variant + self.token.label

    @property
    def model(self) -> Path | None:
        return self.inner.model

    def missing(self) -> str | None:
        return self.inner.missing()

    def version(self) -> str:
        return _version(self.inner)  # type: ignore[arg-type]  # targets are frozen dataclasses

    def launch(self, settings: Settings, port: int, end_tokens: tuple[int, ...]) -> Launch:
        made = self.inner.launch(settings, port, end_tokens)
        command = None if made.command is None else [*made.command, *self.token.options]
        return replace(made, command=command, env={**made.env, **self.token.env})


@functools.cache
def _version(target: Target) -> str:
    """Asking llama-server takes a second, and every cell wants to know."""
    return target.version()
