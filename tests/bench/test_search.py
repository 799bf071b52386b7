"""Knee and sweep decide from figures alone; here the figures are made up."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllm_bench.commands.sweep import parse_grid
from rllm_bench.run.plan import PlanError
from rllm_bench.search import tuning
from rllm_bench.search.knee import Probe, Search, find
from rllm_bench.search.sweep import Trial, best_of


@given(truth=st.floats(0.05, 500), start=st.floats(0.1, 10))
def test_the_knee_is_bracketed(truth: float, start: float) -> None:
    """Whatever the server can do and wherever the search starts, the last good and the first bad rate
    enclose it, closely when there were enough probes."""

    def probe(rate: float) -> Probe:
        return Probe(rate=rate, attained=1.0 if rate <= truth else 0.5)

    good, bad, tried = find(Search(start=start, most_probes=40), probe)
    assert good <= truth
    if bad is not None:
        assert truth < bad
    if good > 0:
        assert bad is not None
        assert bad - good <= 0.1 * good * 1.0001
    else:
        assert truth < start / 4
    assert len({one.rate for one in tried}) == len(tried)


def test_the_search_ends_when_everything_fails() -> None:
    good, bad, tried = find(Search(start=1.0), lambda rate: Probe(rate=rate, attained=0.0))
    assert good == 0.0
    assert bad == min(one.rate for one in tried)


def trial(score: float | None, **chosen: tuning.Value) -> Trial:
    return Trial(chosen=chosen, score=score)


def test_the_default_wins_ties_and_failures_never_win() -> None:
    assert best_of([trial(10.0), trial(10.0, kv="split"), trial(None, kv="unified")]).chosen == {}
    assert best_of([trial(10.0), trial(9.0, kv="split")], lower_is_better=True).chosen == {"kv": "split"}
    with pytest.raises(PlanError):
        best_of([trial(None)])


def test_a_parameter_says_itself_to_each_engine() -> None:
    chosen = {"slots": 4, "max_step_tokens": 256}
    assert tuning.arguments("rllm", chosen) == ["--max-step-tokens=256"]
    assert tuning.arguments("vllm", chosen) == ["--max-num-batched-tokens=256"]
    with pytest.raises(tuning.UnknownParameter, match="llama-cpp-python has no kv"):
        tuning.arguments("llama-cpp-python", {"kv": "split"})
    with pytest.raises(tuning.UnknownParameter, match="no parameter 'kw'"):
        tuning.check("rllm", "kw")


def test_a_grid_reads_numbers_as_numbers() -> None:
    grid = parse_grid(("slots=4,8", "kv=split,unified", "itl-target-s=0.05"))
    assert grid == {"slots": [4, 8], "kv": ["split", "unified"], "itl_target_s": [0.05]}
    assert len(list(tuning.combinations(grid))) == 4


def test_the_toml_says_what_was_chosen() -> None:
    text = tuning.toml("models/q4.gguf", 512, {"slots": 8, "kv": "split"}, "why\nand how")
    assert tomllib.loads(text) == {"gguf": ["models/q4.gguf"], "ctx_size": 512, "slots": 8, "kv": "split"}
