"""Schedules, workloads, event parsing, statistics: no process, no clock."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllm_bench import scenarios
from rllm_bench.figures import metrics, stats
from rllm_bench.figures.compare import compare
from rllm_bench.figures.metrics import CellData
from rllm_bench.figures.summary import Result, result
from rllm_bench.load import arrivals, prompts
from rllm_bench.load.sse import Chunk, EventReader
from rllm_bench.records.cells import CellRecord, CellSpec, GeneratorRecord, Load, RequestRecord, WorkloadSpec
from rllm_bench.records.vocabulary import Vocabulary, plain_words
from rllm_bench.run import prometheus

WORDS = Vocabulary(tuple(range(100, 200)), tuple(f"w{n}" for n in range(100)))


@given(rate=st.floats(0.1, 1000), count=st.integers(1, 300), seed=st.integers(0, 9), shape=st.floats(0.2, 5))
def test_a_schedule_takes_as_long_as_its_rate_says(rate: float, count: int, seed: int, shape: float) -> None:
    for arrival in ("poisson", "constant", "gamma"):
        load = msgspec.convert({"mode": "open", "rate": rate, "arrival": arrival, "burstiness": shape}, Load)
        times = arrivals.schedule(load, count, seed)
        assert times[-1] == pytest.approx(count / rate)
        assert (np.diff(times) >= 0).all()


def test_a_ramp_gets_faster() -> None:
    times = arrivals.schedule(Load(mode="open", rate=1.0, ramp_to=9.0, arrival="ramp"), 100, 0)
    gaps = np.diff(times)
    assert (np.diff(gaps) < 0).all()
    assert gaps[-1] == pytest.approx(1 / 9, rel=0.05)


def test_bursts_are_bursts() -> None:
    def variation(shape: float) -> float:
        load = Load(mode="open", rate=10.0, arrival="gamma", burstiness=shape)
        gaps = np.diff(arrivals.schedule(load, 2000, 1))
        return float(gaps.std() / gaps.mean())

    assert variation(0.25) > 1.5 > variation(1.0) > 0.8 > variation(16.0)


SYNTHETIC = ("unique", "shared-prefix", "multi-turn", "mix", "interference", "oversubscribed", "long-context")


@pytest.mark.parametrize("kind", SYNTHETIC)
def test_a_workload_is_its_spec(kind: Any) -> None:
    """The same spec gives the same prompts, another seed gives others, and lengths are exact."""
    spec = WorkloadSpec(kind=kind, prompt_tokens=20, output_tokens=5, prefix_tokens=12, turns=3, seed=4)
    one, two = scenarios.workload(spec, WORDS), scenarios.workload(spec, WORDS)
    assert one.digest(20) == two.digest(20)
    assert scenarios.workload(msgspec.structs.replace(spec, seed=5), WORDS).digest(20) != one.digest(20)
    for prompt in itertools.chain.from_iterable(one.units(20)):
        assert prompt.token_ids is not None
        assert len(prompt.token_ids) == len(prompt.text.split())
        assert len(prompt.token_ids) + prompt.max_tokens <= scenarios.find(kind).longest(spec)


@pytest.mark.parametrize(
    "kind", [name for name in scenarios.known() if name not in SYNTHETIC and name != "file"]
)
def test_what_means_something_is_its_spec_too(kind: str) -> None:
    spec = WorkloadSpec(kind=kind, prompt_tokens=320, output_tokens=5, prefix_tokens=200, seed=4)
    one, two = scenarios.workload(spec, WORDS), scenarios.workload(spec, WORDS)
    assert one.digest(8) == two.digest(8)
    assert len({unit[0].text for unit in one.units(8)}) == 8


def test_cases_of_a_risk_review_share_their_policy() -> None:
    spec = WorkloadSpec(kind="risk-review", prompt_tokens=700, prefix_tokens=600, output_tokens=32)
    texts = [unit[0].text for unit in scenarios.workload(spec, WORDS).units(4)]
    policies = {text.partition("\n\nCase ")[0] for text in texts}
    assert len(policies) == 1
    assert 300 < len(policies.pop().split()) < 600
    assert len(set(texts)) == 4


def test_gaps_beside_a_newcomer_are_those_that_overlap_with_its_wait() -> None:
    """A stream of 10 ms steps that stands still for 200 ms while a prompt is computed."""
    stream = msgspec.structs.replace(request(0, 0, 10, 10, 31), role="stream")
    gaps = [10_000] * 30
    gaps[19] = 200_000  # from 200 to 400 ms after the start
    stream = msgspec.structs.replace(stream, gaps_us=gaps)
    newcomer = msgspec.structs.replace(request(1, 205, 190, 10, 2), role="newcomer")
    found = scenarios.find("interference").figures([stream, newcomer])
    assert found["newcomer_ttft_p50_ms"] == 190
    assert found["beside_itl_p99_ms"] == pytest.approx(200)


def test_prefixes_are_shared_by_group_only() -> None:
    spec = WorkloadSpec(kind="shared-prefix", prompt_tokens=20, prefix_tokens=12, prefix_groups=2)
    heads = [tuple((unit[0].token_ids or [])[:12]) for unit in scenarios.workload(spec, WORDS).units(8)]
    assert len(set(heads)) == 2
    assert heads[0] == heads[2] != heads[1]


def test_each_turn_continues_the_one_before() -> None:
    spec = WorkloadSpec(kind="multi-turn", prompt_tokens=4, output_tokens=3, turns=3)
    turns = [prompt.token_ids or [] for prompt in scenarios.workload(spec, WORDS).unit(0)]
    assert [len(turn) for turn in turns] == [4, 11, 18]
    assert turns[1][:4] == turns[0]
    assert turns[2][:11] == turns[1]


def test_a_written_workload_reads_back(tmp_path: Path) -> None:
    units = scenarios.workload(WorkloadSpec(kind="mix", prompt_tokens=50, output_tokens=50), WORDS).units(5)
    path = tmp_path / "prompts.jsonl"
    prompts.save(path, units)
    read = scenarios.workload(WorkloadSpec(kind="file", path=str(path)), WORDS)
    assert read.digest(5) == prompts.digest(units)


def test_plain_words_have_no_ids() -> None:
    (prompt,) = scenarios.workload(WorkloadSpec(prompt_tokens=6), plain_words()).unit(0)
    assert prompt.token_ids is None
    assert len(prompt.text.split()) == 6


EVENTS = (
    b': comment\n\ndata: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'
    b'data: {"choices":[{"delta":{"content":"Gr\xc3\xbc\xc3\x9fe"}}]}\r\n\r\n'
    b'data: {"choices":[{"text":"b","finish_reason":"length"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
)


@given(cuts=st.lists(st.integers(0, len(EVENTS)), max_size=12))
def test_events_may_be_cut_anywhere(cuts: list[int]) -> None:
    reader, chunks = EventReader(), []
    edges = [0, *sorted(cuts), len(EVENTS)]
    for begin, end in itertools.pairwise(edges):
        chunks += list(reader.feed(EVENTS[begin:end]))
    assert [choice.content for chunk in chunks for choice in chunk.choices or ()] == ["", "Grüße", "b"]
    assert reader.done
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens == 2


def read_events(body: bytes) -> list[Chunk]:
    reader = EventReader()
    return [*reader.feed(body), *reader.close()]


def test_an_event_may_have_several_data_lines() -> None:
    (chunk,) = read_events(b'event: x\ndata: {"choices":\ndata:  [{"text":\ndata: "a"}]}\n\n')
    assert [choice.content for choice in chunk.choices or ()] == ["a"]


@pytest.mark.parametrize("field", ["choices", "usage", "error"])
def test_what_is_null_in_a_chunk_is_absent(field: str) -> None:
    (chunk,) = read_events(b'data: {"%s": null}\n\n' % field.encode())
    assert not getattr(chunk, field)


def test_the_last_event_may_lack_its_empty_line() -> None:
    reader = EventReader()
    assert [*reader.feed(b"data: [DONE]"), *reader.close()] == []
    assert reader.done


def test_metrics_text_is_summed_by_name() -> None:
    text = 'a_total{x="1"} 2\na_total{x="2"} 3\n# HELP b\nb 7 1700\nc_bucket{le="1"} 9\nd NaN\n'
    assert prometheus.parse(text) == {"a_total": 5.0, "b": 7.0}


def request(index: int, begin_ms: float, ttft_ms: float, tpot_ms: float, tokens: int = 5) -> RequestRecord:
    first = begin_ms + ttft_ms
    last = first + tpot_ms * (tokens - 1)
    return RequestRecord(
        index=index,
        scheduled_us=round(begin_ms * 1e3),
        sent_us=round(begin_ms * 1e3),
        first_us=round(first * 1e3),
        gaps_us=[round(tpot_ms * 1e3)] * (tokens - 1),
        last_us=round(last * 1e3),
        closed_us=round(last * 1e3),
        max_tokens=tokens,
        prompt_tokens=10,
        completion_tokens=tokens,
        usage_source="server",
    )


def cell(subject: str, speed: float, repeat: int, *, seed: int = 0, count: int = 40) -> CellData:
    """One user, answers one after the other, with some noise."""
    rng, now, rows = np.random.default_rng([seed, repeat]), 0.0, []
    for index in range(count):
        factor = speed * (1 + 0.1 * rng.random())
        rows.append(request(index, now, 100 * factor, 10 * factor))
        now = rows[-1].closed_us / 1e3
    load = Load(concurrency=1)
    spec = CellSpec(
        subject=subject, workload=WorkloadSpec(), load=load, num_requests=count, repeat=repeat, intervals=True
    )
    generator = GeneratorRecord(
        process=0, wall_s=1, cpu_s=0.01, loop_lag_p50_ms=0, loop_lag_p99_ms=0.1, loop_lag_max_ms=1, chunks=9,
        priority_raised=True,
    )  # fmt: skip
    record = CellRecord(
        spec=spec, workload_hash="h", prompt_format="ids", target={}, started_at="", generators=[generator]
    )
    return CellData(record=record, requests=rows)


SLOS = {"goal": {"ttft": 105.0, "tpot": 30.0}}


def over_repeats(subject: str, speed: float, seed: int = 0, count: int = 3) -> Result:
    cells = [cell(subject, speed, repeat, seed=seed) for repeat in range(count)]
    return result([(one, metrics.summarize(one, SLOS)) for one in cells], subject, SLOS)


def test_figures_of_a_known_cell() -> None:
    data = CellData(cell("x", 1.0, 0).record, [request(0, 0, 100, 10), request(1, 140, 200, 20)])
    values = metrics.summarize(data, SLOS)
    assert values["ttft_p50_ms"] == 150
    assert values["tpot_mean_ms"] == 15
    assert values["e2e_mean_ms"] == 210
    assert values["duration_s"] == pytest.approx(0.42)
    assert values["output_tps_whole"] == pytest.approx(10 / 0.42)
    assert values["attained_goal"] == 0.5


def test_a_clear_difference_is_called_one() -> None:
    found = compare(over_repeats("new", 1.0), over_repeats("old", 1.3, seed=1), "ttft_p50_ms", SLOS)
    assert found is not None
    assert found.verdict == "better"
    assert found.interval is not None
    assert found.interval.holds(1.3)
    assert "faster" in str(found)


def test_noise_is_not_called_a_difference() -> None:
    for seed in range(1, 6):
        found = compare(over_repeats("new", 1.0), over_repeats("old", 1.0, seed=seed), "output_tps", SLOS)
        assert found is not None
        assert found.verdict == "no significant difference"


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(3), 0
    for trial in range(100):
        values = rng.exponential(size=60)
        draws = stats.resample(values, stats.mean, np.random.default_rng(trial), 400)
        hits += stats.interval(draws).holds(1.0)
    assert 85 <= hits <= 99


def test_clusters_count_once() -> None:
    """A thousand equal gaps of one slow request are one observation, not a thousand."""
    clusters = [np.full(1000, 50.0), *[np.full(5, 10.0) for _ in range(9)]]
    found = stats.interval(stats.resample_clusters(clusters, 50, np.random.default_rng(0)))
    assert (found.low, found.high) == (10.0, 50.0)
