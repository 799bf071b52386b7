"""The small form: what a request is told among many others is what it is told alone."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rllm.backends.options import LlamaOptions
from tests.property.drafters import Eager
from tests.stress.run import Outcome, run
from tests.stress.workload import Shape

TINY = Shape(count=60, max_prompt=90, max_tokens=24)
REAL = Shape(count=12, max_prompt=90, max_tokens=16, arrivals_per_step=1.0)
REUSING = Shape(count=24, max_prompt=110, max_tokens=16, arrivals_per_step=0.5)
"""So many that even a split cache, where short prefixes are computed again, mostly reuses some."""
BYTES = [3 + byte for byte in Path(__file__).read_bytes()]  # tokens of the tiny vocabulary


def options(kv: str) -> LlamaOptions:
    cells = 256 if kv == "unified" else 0
    return LlamaOptions(slots=6, ctx_per_slot=128, batch_size=64, threads=1, kv=kv, kv_cells=cells)


def must_be_good(outcome: Outcome) -> None:
    print(f"floor {outcome.floor.gap:.2g}; {outcome.differences}")
    assert not outcome.cut_short
    assert not outcome.unexcused
    assert outcome.together.cached_tokens > 0
    assert outcome.together.most_running > 3


@pytest.mark.parametrize("kv", ["split", "unified"])
def test_a_tiny_model(kv: str, tiny_model: Path) -> None:
    outcome = run(tiny_model, kv, options(kv), TINY, BYTES)
    must_be_good(outcome)
    assert len(outcome.differences) * 10 <= TINY.count, "random weights make near ties, but not that many"
    assert outcome.together.evicted_tokens > 0
    assert (outcome.together.preemptions > 0) == (kv == "unified")


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(500)
def test_the_real_model(q8_model: Path) -> None:
    must_be_good(run(q8_model, "unified", options("unified"), REAL))


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(500)
def test_a_split_cache_of_q8_0_is_exact_where_attention_has_one_path(q8_model: Path) -> None:
    """Its kernels give a row the same bits beside any others; fewer than 64 rows keep flash attention so."""
    exact = msgspec.structs.replace(options("split"), ubatch_size=48)
    outcome = run(q8_model, "split", exact, REUSING)
    assert not outcome.differences
    assert not outcome.cut_short
    assert outcome.floor.gap == 0
    assert outcome.together.most_running > 3


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.timeout(500)
def test_drafts_change_nothing_there(q8_model: Path) -> None:
    exact = msgspec.structs.replace(options("split"), ubatch_size=48, speculative_tokens=4)
    outcome = run(q8_model, "split", exact, REUSING, drafter=Eager(4))
    assert not outcome.differences
    assert not outcome.cut_short
    assert 0 < outcome.together.accepted_tokens < outcome.together.drafted_tokens
