"""What the operator reads when the server is ready."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import dedent

from rllm import __version__
from rllm.engine.types import ModelInfo, SamplingDefaults
from rllm.printable import printable
from rllm.serving.fallbacks import in_words
from rllm.serving.service import Health, ServedModel
from rllm.startup.listening import Address
from rllm.startup.preflight import gib

_ON_HOST = re.compile("CPU|Host|AMX")

_QUESTION = "What is the capital of South Korea?"
"""No near tie decides the default model's answer."""


def _sampling(defaults: SamplingDefaults) -> str:
    shown = [f"temperature {defaults.temperature:g}", f"top_p {defaults.top_p:g}"]
    shown += [f"top_k {defaults.top_k}"] if defaults.top_k else []
    shown += [f"min_p {defaults.min_p:g}"] if defaults.min_p else []
    return ", ".join(shown)


def _places(buffers: Mapping[str, int]) -> list[str]:
    """What each instance has allocated on each card."""
    cards: dict[str, list[str]] = {}
    for name, size in buffers.items():
        place, _, purpose = name.partition(" ")
        if not _ON_HOST.search(place):
            cards.setdefault(place, []).append(f"{purpose} {gib(size)}")
    return [f"each instance on {card}: {', '.join(parts)}" for card, parts in cards.items()]


def _store(info: ModelInfo) -> str:
    if not info.store_bytes:
        return ""
    disk = f" and {gib(info.store_disk_bytes)} on disk" if info.store_disk_bytes else ""
    return f" + prefix store {gib(info.store_bytes)}{disk}"


def _exceptions(health: Health) -> Iterator[str]:
    """What is not as it was asked for."""
    for instance, fallback in health.fallbacks:
        yield f"  {instance} runs with {in_words(fallback.options)}; without: {fallback.reason}"
    for instance, options in health.tuned:
        yield f"  {instance} runs with {in_words(options)}: measured to be fastest here"
    for model, reason in health.not_served:
        yield f"  NOT SERVED: {model}: {reason}"


def banner(
    models: Iterable[ServedModel],
    health: Health,
    addresses: Sequence[Address],
    threads: int,
    memory: int,
    with_key: bool,
    with_page: bool,
) -> str:
    """Plain text, the same on a terminal and in a file."""
    served = list(models)
    width = max(len(model.id) for model in served)
    address = addresses[0].url
    page = f"Look inside: {address}/ui    " if with_page else ""
    header = '-H "authorization: Bearer $RLLM_API_KEY" ' if with_key else ""
    lines = [f"rllm {__version__} is ready at {' and '.join(map(str, addresses))}", ""]
    for model in served:
        info = model.info
        layout = "unified" if info.kv_unified else "split"
        lines += [
            f"  {model.id:<{width}}  {info.description}, {gib(info.size_bytes)} on {info.device}",
            f"  {'':<{width}}  {info.slots} slots x {info.ctx_per_slot:,} tokens, "
            f"KV cache {layout} {gib(info.kv_bytes)}{_store(info)}, loaded in {info.load_s:.1f} s",
            *(f"  {'':<{width}}  {line}" for line in _places(info.buffers)),
            f"  {'':<{width}}  sampling where a request says nothing: {_sampling(model.sampling)}",
        ]
    lines += _exceptions(health)
    lines += [f"  {threads} threads, {gib(memory)} resident in all processes", ""]
    return "\n".join(map(printable, lines)) + dedent(f"""
        Try it:
          curl -N {addresses[0].for_curl}/v1/chat/completions -H 'content-type: application/json' {header}\\
            -d '{{"messages":[{{"role":"user","content":"{_QUESTION}"}}],"stream":true}}'
        {page}Metrics: {address}/metrics    API: {address}/docs    Stop: Ctrl-C
        """)
