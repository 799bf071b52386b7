"""The reference run: interrupted and continued; the begin token; the cache's limit."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rllm_bench.quality import rows, windows
from rllm_bench.quality.cache import CacheTooSmall, ReferenceCache
from rllm_bench.quality.kldbase import BaseReader
from rllm_bench.quality.reference import Reference, computed_reference, score_variant
from rllm_bench.quality.scorefile import ScoreFile
from tests.bench.quality.fakes import BEGIN, VOCAB, FakeModel

TOKENS = np.random.default_rng(0).integers(0, 256, (6, 32)).astype(np.int32)


class Interrupted(Exception):
    pass


def compute(cache: ReferenceCache, pool: ThreadPoolExecutor, stop_after: int | None = None) -> Reference:
    def progress(done: int, _total: int) -> None:
        if done == stop_after:
            raise Interrupted

    return computed_reference(FakeModel, TOKENS, VOCAB, cache, "key", pool, progress)


def test_an_interrupted_reference_is_continued_to_the_same_result(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    whole = compute(ReferenceCache(tmp_path / "a", 10**8), pool)
    with pytest.raises(Interrupted):
        compute(ReferenceCache(tmp_path / "b", 10**8), pool, stop_after=3)
    resumed = compute(ReferenceCache(tmp_path / "b", 10**8), pool)
    assert resumed.base.read_bytes() == whole.base.read_bytes()
    assert (resumed.storage == whole.storage).all()


def test_an_interrupted_variant_is_continued_to_the_same_result(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    base = compute(ReferenceCache(tmp_path / "a", 10**8), pool).base
    out = ScoreFile(tmp_path / "scores", 15)
    score_variant(FakeModel(0.2), base, out, pool, lambda *_: None, chunks=2)
    with (tmp_path / "scores").open("ab") as file:
        file.write(b"half a chunk")
    score_variant(FakeModel(0.2), base, out, pool, lambda *_: None)
    again = ScoreFile(tmp_path / "again", 15)
    score_variant(FakeModel(0.2), base, again, pool, lambda *_: None)
    assert (out.read() == again.read()).all()


def test_each_window_begins_with_the_begin_token_if_the_vocabulary_asks(pool: ThreadPoolExecutor) -> None:
    """As llama-perplexity does: the token gives way, the targets stay."""
    window = TOKENS[0].copy()
    asked = windows.window_logits(FakeModel(adds_begin=True), window)
    window[0] = BEGIN
    assert (asked == windows.window_logits(FakeModel(), window)).all()


def test_only_the_second_half_is_scored() -> None:
    logits, model = windows.window_logits(FakeModel(), TOKENS[0]), FakeModel()
    assert logits.shape == (15, VOCAB)
    assert (logits[0] == model.row(TOKENS[0][:17].tolist())).all()


def test_the_stored_rows_are_the_models(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    with BaseReader(compute(ReferenceCache(tmp_path, 10**8), pool).base) as base:
        targets = base.layout.targets(TOKENS[4])
        wanted = rows.encode(windows.window_logits(FakeModel(), TOKENS[4]), targets).codes
        assert (base.chunk(4) == wanted).all()


def test_the_least_recently_used_entry_goes_first(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path, 250)
    for key in "ab":
        (cache.entry(key, 100) / "file").write_bytes(b"x" * 100)
    cache.entry("a", 100)
    cache.entry("c", 100)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "c"]


def test_a_reference_larger_than_the_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheTooSmall, match="--cache-limit-gb"):
        ReferenceCache(tmp_path, 10).entry("a", 11)


def test_a_text_too_short_is_refused() -> None:
    with pytest.raises(windows.TooShort, match="two windows"):
        windows.cut([1] * 31, 16, None)
