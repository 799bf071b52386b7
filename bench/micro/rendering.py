"""What a chat of 20 messages costs from messages to tokens, by chat template; with ``--before``, against
another checkout, in turns.

    python -m micro.rendering models/q4.gguf template.jinja … --before ../older-checkout

Templates come from GGUF files or stand alone. Tokens are those of ``--vocabulary``: only templates differ.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[2]
SENTENCE = "The quick brown fox jumps over the lazy dog, and nobody asks why it does. "


@dataclass
class _Vocabulary:
    """A model's vocabulary with another template."""

    inner: Any
    chat_template: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def _template(path: Path) -> str:
    from rllm.gguf_info import read_gguf

    return (read_gguf(path).chat_template or "") if path.suffix == ".gguf" else path.read_text("utf-8")


def _messages(count: int) -> list[dict[str, str]]:
    roles = ["system", *(["user", "assistant"] * count)][:count]
    return [{"role": role, "content": f"{number}. {SENTENCE * 6}"} for number, role in enumerate(roles)]


def _tokenizer() -> tuple[Any, dict[str, str]]:
    """Of this version, or of another in which callers did not take turns; and what `chat` is told as well."""
    from rllm.api import tokenizing

    kind: Any = tokenizing.Tokenizer
    try:
        from rllm.api.fair_threads import FairThreads
    except ImportError:
        return kind(threads=2, render_timeout_s=2.0), {}
    return kind(FairThreads(2), render_timeout_s=2.0), {"caller": "bench"}


async def _time(vocabulary: Any, source: str, count: int, repeats: int) -> list[float]:
    """Seconds of each, one after the other, as the HTTP layer does it."""
    from rllm.api.protocol import ChatMessage
    from rllm.engine.types import ModelInfo
    from rllm.serving.service import ServedModel

    sizes: dict[str, Any] = dict.fromkeys(ModelInfo.__struct_fields__, 1)
    info = ModelInfo(**{**sizes, "ctx_per_slot": 32_768})
    model = ServedModel("model", (), 0, info, _Vocabulary(vocabulary, source))
    messages = [ChatMessage.model_validate(message) for message in _messages(count)]
    tokenizer, terms = _tokenizer()
    times = []
    try:
        for _ in range(repeats + repeats // 10):
            began = time.perf_counter()
            await tokenizer.chat(model, messages, **terms)
            times.append(time.perf_counter() - began)
            await asyncio.sleep(0.001)
    finally:
        if asyncio.iscoroutine(closing := tokenizer.close()):
            await closing
    return times[-repeats:]


def _child(vocabulary: Path, templates: tuple[Path, ...], count: int, repeats: int) -> None:
    import uvloop

    import rllm.backends.llama  # noqa: F401  before numpy
    from rllm.backends.llama.vocabulary import load_vocabulary

    known = load_vocabulary(vocabulary)
    print(
        json.dumps([uvloop.run(_time(known, _template(path), count, repeats)) for path in templates]),
        flush=True,
    )


def _run(checkout: Path, arguments: list[str]) -> list[list[float]]:
    paths = os.pathsep.join([str(checkout / "app"), str(checkout / "bench")])
    command = [sys.executable, __file__, *arguments, "--child"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, check=True, text=True
    )
    found: list[list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


@click.command()
@click.argument("templates", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--before", type=click.Path(path_type=Path, exists=True), help="An older checkout.")
@click.option("--vocabulary", type=click.Path(path_type=Path), default=ROOT / "models" / "q4.gguf")
@click.option("--messages", default=20, show_default=True)
@click.option("--repeats", default=200, show_default=True, help="In each round.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--child", is_flag=True, hidden=True)
def main(
    templates: tuple[Path, ...],
    before: Path | None,
    vocabulary: Path,
    messages: int,
    repeats: int,
    rounds: int,
    child: bool,
) -> None:
    if child:
        _child(vocabulary, templates, messages, repeats)
        return
    arguments = [str(path.resolve()) for path in templates]
    arguments += ["--vocabulary", str(vocabulary.resolve())]
    arguments += ["--messages", str(messages), "--repeats", str(repeats)]
    checkouts = {"before": before.resolve(), "after": ROOT} if before else {"now": ROOT}
    medians: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for name, checkout in checkouts.items():
            for path, times in zip(templates, _run(checkout, arguments), strict=True):
                medians.setdefault((path.name, name), []).append(statistics.median(times) * 1e3)
    for path in templates:
        shown = {name: medians[path.name, name] for name in checkouts}
        words = [f"{name} {_interval(values)}" for name, values in shown.items()]
        if before:
            pairs = zip(shown["after"], shown["before"], strict=True)
            words.append(f"added {_interval([after - earlier for after, earlier in pairs])}")
        print(f"{path.name}: {'; '.join(words)} ms (median of {rounds} medians, lowest to highest)")


def _interval(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
