"""What a chat of 20 messages costs from messages to tokens, by chat template; with ``--before``, against
another checkout, one chat by each in turns: medians of pairs, so that a busy machine disturbs both alike.

    python -m micro.rendering models/q4.gguf template.jinja … --before ../older-checkout

Templates come from GGUF files or stand alone. Tokens are those of ``--vocabulary``: only templates differ.
"""

from __future__ import annotations

import asyncio
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
    from rllm.files.gguf_info import read_gguf

    return (read_gguf(path).chat_template or "") if path.suffix == ".gguf" else path.read_text("utf-8")


def _messages(count: int) -> list[dict[str, str]]:
    roles = ["system", *(["user", "assistant"] * count)][:count]
    return [{"role": role, "text": f"{number}. {SENTENCE * 6}"} for number, role in enumerate(roles)]


def _tokenizer() -> tuple[Any, dict[str, str]]:
    """Of this version, or of another in which callers did not take turns; and what `chat` is told as well."""
    from rllm.api.text import tokenizing

    kind: Any = tokenizing.Tokenizer
    try:
        from rllm.api.http.fair_threads import FairThreads
    except ImportError:
        return kind(threads=2, render_timeout_s=2.0), {}
    return kind(FairThreads(2), render_timeout_s=2.0), {"caller": "bench"}


async def _answer(vocabulary: Any, sources: list[str], count: int) -> None:
    """For every line of standard input, the number of a template: one chat, as the HTTP layer does it, and
    the seconds that it took."""
    from rllm.api.text.messages import Chat, Message
    from rllm.engine.types import ModelInfo
    from rllm.serving.service import ServedModel

    sizes: dict[str, Any] = dict.fromkeys(ModelInfo.__struct_fields__, 1)
    info = ModelInfo(**{**sizes, "ctx_per_slot": 32_768})
    models = [
        ServedModel(str(number), (), 0, info, _Vocabulary(vocabulary, source))
        for number, source in enumerate(sources)
    ]
    chat = Chat(
        messages=[Message(role=message["role"], text=message["text"]) for message in _messages(count)]
    )
    tokenizer, terms = _tokenizer()
    for model in models:
        await tokenizer.chat(model, chat, **terms)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        began = time.perf_counter()
        await tokenizer.chat(models[int(line)], chat, **terms)
        print(time.perf_counter() - began, flush=True)
    if asyncio.iscoroutine(closing := tokenizer.close()):
        await closing


def _child(vocabulary: Path, templates: tuple[Path, ...], count: int) -> None:
    import uvloop

    import rllm.backends.llama  # noqa: F401  before numpy
    from rllm.backends.llama.vocabulary import load_vocabulary

    uvloop.run(_answer(load_vocabulary(vocabulary), [_template(path) for path in templates], count))


class _Version:
    """A checkout's code in a process that renders when it is told to."""

    def __init__(self, checkout: Path, arguments: list[str]) -> None:
        paths = os.pathsep.join([str(checkout / "app"), str(checkout / "bench")])
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments, "--child"],
            env={**os.environ, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        while self._line() != "ready":
            pass

    def time_ms(self, template: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{template}\n")
        self._process.stdin.flush()
        return float(self._line()) * 1e3

    def close(self) -> None:
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError("a version ended by itself")
        return line.strip()


@click.command()
@click.argument("templates", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--before", type=click.Path(path_type=Path, exists=True), help="An older checkout.")
@click.option("--vocabulary", type=click.Path(path_type=Path), default=ROOT / "models" / "q4.gguf")
@click.option("--messages", default=20, show_default=True)
@click.option("--pairs", default=500, show_default=True, help="Of one chat by each version.")
@click.option("--child", is_flag=True, hidden=True)
def main(
    templates: tuple[Path, ...],
    before: Path | None,
    vocabulary: Path,
    messages: int,
    pairs: int,
    child: bool,
) -> None:
    if child:
        _child(vocabulary, templates, messages)
        return
    arguments = [str(path.resolve()) for path in templates]
    arguments += ["--vocabulary", str(vocabulary.resolve()), "--messages", str(messages)]
    checkouts = {"before": before.resolve(), "after": ROOT} if before else {"now": ROOT}
    versions = {name: _Version(checkout, arguments) for name, checkout in checkouts.items()}
    for number, path in enumerate(templates):
        times: dict[str, list[float]] = {name: [] for name in versions}
        for pair in range(pairs):
            order = list(versions) if pair % 2 else list(versions)[::-1]
            for name in order:
                times[name].append(versions[name].time_ms(number))
        words = [f"{name} {_median(values)}" for name, values in times.items()]
        if before:
            pairwise = zip(times["after"], times["before"], strict=True)
            words.append(f"added {_median([after - earlier for after, earlier in pairwise])}")
        print(f"{path.name}: {'; '.join(words)} ms")
    for version in versions.values():
        version.close()


def _median(values: list[float]) -> str:
    """With its 95 % interval, from the order of the values (binomial, so no shape is assumed)."""
    ordered, half = sorted(values), 0.98 * len(values) ** 0.5
    low = ordered[max(int(len(ordered) / 2 - half), 0)]
    high = ordered[min(int(len(ordered) / 2 + half), len(ordered) - 1)]
    return f"{statistics.median(ordered):.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
