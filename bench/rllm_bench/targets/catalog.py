"""From names on a command line to targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from rllm_bench.records.cells import PromptFormat
from rllm_bench.targets.base import Target, subject
from rllm_bench.targets.configured import Configured, Token
from rllm_bench.targets.llama_cpp_python import LlamaCppPython
from rllm_bench.targets.llama_server import LlamaServer
from rllm_bench.targets.rllm import Rllm
from rllm_bench.targets.url import Url
from rllm_bench.targets.vllm import Vllm

ENGINES = ("rllm", "llama-server", "llama-cpp-python", "vllm")
USUAL_VARIANTS = ("q4", "q8", "f16")
VLLM_VARIANT = "f16"


class UnknownTarget(Exception):
    """No such engine, or no such model file."""


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """Where things are on this machine; not part of what is measured."""

    models: Path = Path("models")
    hf_model: Path | None = None
    """Hugging Face folder for vLLM; None: models/hf."""
    vllm_python: str = "python3"
    llama_server: str | None = None
    url: str | None = None
    url_model: str = ""
    url_format: PromptFormat = "ids"
    url_api_key: str | None = None
    at: dict[str, str] = {}
    """Address by subject, of servers that are running already."""


def variants(places: Places, wanted: Sequence[str]) -> list[str]:
    """The wanted ones, or the usual three as far as their files are there."""
    if wanted:
        return list(wanted)
    found = [name for name in USUAL_VARIANTS if (places.models / f"{name}.gguf").exists()]
    if not found:
        names = ", ".join(f"{name}.gguf" for name in USUAL_VARIANTS)
        raise UnknownTarget(
            f"{places.models}: none of {names} is there (scripts/serve fetches them; --models)"
        )
    return found


def resolve(tokens: Sequence[str], wanted: Sequence[str], places: Places) -> list[Target]:
    """``engine`` is that engine with every variant, ``engine:variant`` one of them; both may have options
    of their own behind them, and variables before them (`Token`).

    Raises:
        UnknownTarget: no such engine, no address for it, no word of it, or two of one name.
    """
    found: dict[str, Target] = {}
    for text in tokens:
        try:
            token = Token.parse(text)
        except ValueError as error:
            raise UnknownTarget(str(error)) from error
        for variant in _chosen(token, wanted, places):
            inner = _target(token, variant, places)
            target = Configured(inner, token) if token.options or token.env else inner
            if found.setdefault(subject(target), target) != target:
                raise UnknownTarget(
                    f"two targets are named {subject(target)}: options name them, and variables do not"
                )
    return list(found.values())


def _chosen(token: Token, wanted: Sequence[str], places: Places) -> list[str]:
    if token.variant:
        return [token.variant]
    fixed = {"url": "served", "vllm": VLLM_VARIANT}
    return [fixed[token.engine]] if token.engine in fixed else variants(places, wanted)


def _target(token: Token, variant: str, places: Places) -> Target:
    engine, model = token.engine, places.models / f"{variant}.gguf"
    running = places.at.get(f"{engine}/{variant}{token.label}") or (places.url if engine == "url" else None)
    if running:
        return Url(running, variant, places.url_model, places.url_format, places.url_api_key, engine)
    match engine:
        case "rllm":
            return Rllm(variant, model)
        case "llama-server":
            return LlamaServer(variant, model, places.llama_server)
        case "llama-cpp-python":
            return LlamaCppPython(variant, model)
        case "vllm":
            return Vllm(variant, places.hf_model or places.models / "hf", places.vllm_python)
        case "url":
            raise UnknownTarget("target url needs --url")
    raise UnknownTarget(f"no engine {engine!r}; there are {', '.join(ENGINES)} and url")


def vocabulary_model(targets: Sequence[Target]) -> Path | None:
    """A GGUF whose words prompts can be made of."""
    for target in targets:
        if target.model is not None and target.model.suffix == ".gguf" and target.model.exists():
            return target.model
    return None
