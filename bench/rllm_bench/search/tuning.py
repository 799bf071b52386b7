"""What can be tuned on which server, and how its command line and rllm's TOML say it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

Value = str | int | float

# Our name -> engine -> its option. An engine without an entry cannot be given that parameter.
OPTIONS: dict[str, dict[str, str]] = {
    "slots": {"rllm": "--slots", "vllm": "--max-num-seqs", "llama-server": "--parallel"},
    "max_step_tokens": {"rllm": "--max-step-tokens", "vllm": "--max-num-batched-tokens"},
    "gpu_memory_utilization": {
        "rllm": "--gpu-memory-utilization",
        "vllm": "--gpu-memory-utilization",
    },
    "ubatch_size": {"rllm": "--ubatch-size", "llama-server": "--ubatch-size"},
    "batch_size": {"rllm": "--batch-size", "llama-server": "--batch-size"},
    "kv": {"rllm": "--kv"},
    "cache_type_k": {"rllm": "--cache-type-k"},
    "cache_type_v": {"rllm": "--cache-type-v"},
    "threads": {"rllm": "--threads", "llama-server": "--threads", "llama-cpp-python": "--n_threads"},
    "flash_attn": {"rllm": "--flash-attn", "llama-server": "--flash-attn"},
    "speculative_tokens": {"rllm": "--speculative-tokens"},
    "itl_target_s": {"rllm": "--itl-target-s"},
}
"""`slots` and `threads` are settings that every target already says in its own way."""
SETTINGS = ("slots", "threads")


class UnknownParameter(Exception):
    """No such parameter, or not one of this engine."""


def combinations(grid: Mapping[str, Sequence[Value]]) -> Iterator[dict[str, Value]]:
    """Every combination of the grid, in its order."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def arguments(engine: str, chosen: Mapping[str, Value]) -> list[str]:
    """Further words of the engine's command line for ``chosen``, settings left out."""
    words = []
    for name, value in chosen.items():
        check(engine, name)
        if name not in SETTINGS:
            words.append(f"{OPTIONS[name][engine]}={value}")
    return words


def check(engine: str, name: str) -> None:
    if name not in OPTIONS:
        raise UnknownParameter(f"no parameter {name!r}; there are {', '.join(OPTIONS)}")
    if engine not in OPTIONS[name]:
        raise UnknownParameter(f"{engine} has no {name}; those that have it: {', '.join(OPTIONS[name])}")


def toml(model: str, ctx_per_slot: int, chosen: Mapping[str, Value], comment: str) -> str:
    """A file for `rllm-serve --config`."""
    lines = [
        *(f"# {line}" for line in comment.splitlines()),
        f'gguf = ["{model}"]',
        f"ctx_size = {ctx_per_slot}",
    ]
    for name, value in chosen.items():
        lines.append(f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}")
    return "\n".join(lines) + "\n"


def label(chosen: Mapping[str, Value]) -> str:
    return ",".join(f"{name}={value}" for name, value in chosen.items()) or "default"
