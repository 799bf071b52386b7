"""`rllm-serve top` computes what Prometheus would, and shows what is there."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rllm.engine.types import EngineRequest, StepRecord
from rllm.observe.gpu import Gpus
from rllm.observe.metrics import Metrics
from rllm.serving.breaker import BreakerState
from rllm.serving.observer import InstanceState
from rllm.top.frame import frame
from rllm.top.history import WINDOW_S, History
from rllm.top.run import watch
from rllm.top.scrape import Reading, ScrapeError, Scraper, difference, parse, quantile
from rllm.top.words import duration, memory, number, share
from tests.http.fake_service import model_info
from tests.unit.test_metrics import FakeNvml, NoNvml

INF = math.inf


def test_a_quantile_is_interpolated_within_its_bucket() -> None:
    buckets = {0.1: 10.0, 0.2: 30.0, INF: 40.0}
    assert quantile(buckets, 0.25) == pytest.approx(0.1)
    assert quantile(buckets, 0.5) == pytest.approx(0.15)
    assert quantile(buckets, 0.99) == 0.2  # the last bound: beyond it nothing is known
    assert quantile({0.1: 0.0, INF: 0.0}, 0.5) is None
    assert quantile({}, 0.5) is None


@given(st.lists(st.floats(0.0, 9.9), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], q: float) -> None:
    bounds = [1.0, 2.0, 4.0, 10.0]
    buckets = {bound: float(sum(value <= bound for value in values)) for bound in [*bounds, INF]}
    true = sorted(values)[max(0, math.ceil(q * len(values) - 1e-9) - 1)]
    found = quantile(buckets, q)
    assert found is not None
    above = next(bound for bound in bounds if true <= bound)
    below = max((bound for bound in [0.0, *bounds] if bound < true), default=0.0)
    assert below - 1e-9 <= found <= above + 1e-9


def test_a_restarted_server_counts_from_the_beginning() -> None:
    assert difference({1.0: 5.0, INF: 7.0}, {1.0: 2.0, INF: 3.0}) == {1.0: 3.0, INF: 4.0}
    assert difference({1.0: 1.0, INF: 1.0}, {1.0: 2.0, INF: 3.0}) == {1.0: 1.0, INF: 1.0}


def reading(at: float, started: float = 1.0, **samples: float) -> Reading:
    start = ({"process": "api"}, started)
    named: dict[str, list[tuple[Mapping[str, str], float]]] = {
        name: [({}, value)] for name, value in samples.items()
    }
    return Reading(at, {"rllm_process_start_time_seconds": [start], **named})


def test_rates_are_those_of_the_window() -> None:
    history = History()
    history.add(reading(0.0, tokens=0.0))
    assert history.rate("tokens") is None
    history.add(reading(2.0, tokens=10.0))
    assert history.rate("tokens") == 5.0
    history.add(reading(WINDOW_S + 2.0, tokens=10.0))
    assert history.rate("tokens") == 0.0
    history.add(reading(WINDOW_S + 4.0, started=2.0, tokens=3.0))  # another process
    assert history.rate("tokens") is None


def busy_server(metrics: Metrics) -> None:
    metrics.on_ready("q4", "q4-0", model_info(), os.getpid())
    metrics.on_instance("q4", "q4-0", InstanceState.READY, "")
    for number_ in range(6):
        metrics.on_accepted("q4", "q4-0", EngineRequest(id=f"a.b.{number_}", prompt=(1,), max_tokens=1))
    metrics.on_step("q4", "q4-0", StepRecord(running=3, kv_used=1024, decode_tokens=3, execute_s=0.05))
    metrics.on_first_token("q4", "q4-0", 0.05)
    metrics.on_breaker("q4", "q4-0", BreakerState.HALF_OPEN)
    metrics.on_degraded("q4", 2, "cap")


def shown(metrics: Metrics, width: int = 80) -> str:
    history = History()
    history.add(parse(metrics.render().decode(), 0.0))
    output = io.StringIO()
    Console(file=output, width=width).print(frame(history, "http://there:8000", "gone"))
    return output.getvalue()


def test_a_frame_shows_the_state_of_everything_in_80_columns() -> None:
    metrics = Metrics(Gpus(FakeNvml()))
    busy_server(metrics)
    text = shown(metrics)
    for words in ("ready", "half_open", "3/4", "50%", "stale: gone", "H100", "40 °C", "since start", "q4-0"):
        assert words in text
    assert "…" not in text  # nothing was cut off
    (row,) = [line.split() for line in text.splitlines() if line.startswith("q4-0") and "half_open" in line]
    assert "6" in row  # wait for a slot


def test_without_a_gpu_there_is_no_gpu_table() -> None:
    metrics = Metrics(Gpus(NoNvml()))
    busy_server(metrics)
    assert "GPU" not in shown(metrics)


def test_an_old_server_is_shown_with_dashes() -> None:
    history = History()
    state = (
        'rllm_build_info{version="0"} 1\nrllm_instance_state{instance="q4-0",model="q4",state="ready"} 1\n'
    )
    history.add(parse(state, 0.0))
    output = io.StringIO()
    Console(file=output, width=80).print(frame(history, "http://there:8000"))
    assert "ready" in output.getvalue()
    assert "–" in output.getvalue()


class Flaky(Scraper):
    """There at first, then gone, then the operator has seen enough."""

    def __init__(self) -> None:
        super().__init__("there:8000")
        self._metrics = Metrics(Gpus(NoNvml()))
        busy_server(self._metrics)
        self._looks = 0

    def read(self) -> Reading:
        self._looks += 1
        if self._looks == 2:
            raise ScrapeError("connection refused")
        if self._looks == 3:
            raise KeyboardInterrupt
        return parse(self._metrics.render().decode(), float(self._looks))


def test_a_server_that_goes_away_leaves_its_last_numbers() -> None:
    output = io.StringIO()
    watch(Flaky(), Console(file=output, width=80, height=30, force_terminal=True), 0.0)
    assert "stale: connection refused" in output.getvalue()
    assert output.getvalue().count("half_open") == 2


def test_numbers_are_short() -> None:
    assert [duration(value) for value in (None, 0.0042, 0.25, 12.34, 7500)] == [
        "–",
        "4.2 ms",
        "250 ms",
        "12.3 s",
        "2 h 5 min",
    ]
    assert [number(value) for value in (None, 1.25, 12345)] == ["–", "1.2", "12,345"]
    assert [memory(2**20), memory(3 * 2**30), share(1, 4), share(1, 0)] == ["1 MiB", "3.0 GiB", "25%", "–"]


def test_an_address_may_be_short_and_must_be_http() -> None:
    assert Scraper("localhost:8000/v1/").url == "http://localhost:8000"
    with pytest.raises(ScrapeError, match="no http"):
        Scraper("file:///etc/passwd")
