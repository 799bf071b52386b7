"""The reference run: its distributions are computed once and kept in the cache."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from rllm_bench.quality import rows
from rllm_bench.quality.cache import ReferenceCache
from rllm_bench.quality.kldbase import BaseReader, BaseWriter, Layout, Tokens
from rllm_bench.quality.model import LogitsModel
from rllm_bench.quality.rows import SCORE, Scores
from rllm_bench.quality.scorefile import ScoreFile
from rllm_bench.quality.windows import window_logits

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Reference:
    """A finished reference run.

    ``storage`` compares the exact distributions with their stored 16-bit form: its ``nll`` is
    exact, and its divergences are the part of any variant's divergence that storage causes.
    """

    base: Path
    storage: Scores


def computed_reference(
    open_model: Callable[[], AbstractContextManager[LogitsModel]],
    tokens: Tokens,
    num_vocab: int,
    cache: ReferenceCache,
    key: str,
    pool: Executor,
    progress: Progress,
) -> Reference:
    """From the cache, or computed; an interrupted computation is continued.

    ``open_model`` is called only if there is something left to compute.
    """
    layout = Layout(tokens.shape[1], num_vocab, tokens.shape[0])
    per_chunk = layout.rows_per_chunk * SCORE.itemsize
    folder = cache.entry(key, layout.total_bytes + layout.num_chunks * per_chunk)
    base, storage = folder / "base.kld", ScoreFile(folder / "storage.scores", layout.rows_per_chunk)
    with BaseWriter(base, layout, tokens) as writer:
        writer.rewind(min(writer.done, storage.done))
        storage.keep(writer.done)
        progress(writer.done, layout.num_chunks)
        if writer.done < layout.num_chunks:
            with open_model() as model:
                _complete(model, tokens, writer, storage, pool, progress)
    return Reference(base, storage.read())


def _complete(
    model: LogitsModel,
    tokens: Tokens,
    writer: BaseWriter,
    storage: ScoreFile,
    pool: Executor,
    progress: Progress,
) -> None:
    for window in tokens[writer.done :]:
        logits, targets = window_logits(model, window), writer.layout.targets(window)
        encoded = rows.encode(logits, targets, pool)
        storage.append(rows.score(logits, encoded.codes, targets, pool))
        writer.append(encoded.codes)
        progress(writer.done, writer.layout.num_chunks)


def score_variant(
    model: LogitsModel,
    base: Path,
    out: ScoreFile,
    pool: Executor,
    progress: Progress,
    chunks: int | None = None,
) -> None:
    """Score a variant against a base file, going on after the chunks that ``out`` already has."""
    with BaseReader(base) as reader:
        total = reader.complete_chunks if chunks is None else chunks
        out.keep(total)
        for index in range(out.done, total):
            window = reader.tokens[index]
            logits = window_logits(model, window)
            out.append(rows.score(logits, reader.chunk(index), reader.layout.targets(window), pool))
            progress(index + 1, total)
