"""What is observed can be read by Prometheus' own parser, and adds up."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rllm.api.http.records import RequestRecord
from rllm.engine.types import EngineRequest, Event, FinishReason, ModelInfo, StepRecord, Timings, Usage
from rllm.observe.exposition import Renderer
from rllm.observe.gpu import Gpus
from rllm.observe.meter import WINDOW_S, Meter
from rllm.observe.metrics import Metrics
from rllm.observe.queue_metrics import QueueMetrics
from rllm.observe.tally import Tally
from rllm.serving.breaker import BreakerState
from rllm.serving.observer import InstanceState

INFO = ModelInfo(
    path="q4.gguf",
    description="llama 135M",
    architecture="llama",
    num_params=1,
    size_bytes=1,
    vocab_size=1,
    num_ctx_train=2048,
    slots=8,
    num_sequences=8,
    ctx_per_slot=512,
    kv_cells=4096,
    kv_unified=True,
    kv_bytes=1 << 20,
    batch_size=512,
    device="CPU",
    can_reuse_prefix=True,
    load_s=1.5,
)
REQUEST = EngineRequest(id="a.b.0", prompt=(1, 2, 3), max_tokens=4)
AT = {"model": "q4", "instance": "q4-0"}


class NoNvml:
    """A machine without NVIDIA's driver."""

    class NVMLError(Exception):
        pass

    def nvmlInit(self) -> None:
        raise self.NVMLError("driver not loaded")


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics(Gpus(NoNvml()))
    metrics.on_ready("q4", "q4-0", INFO, os.getpid())
    metrics.on_instance("q4", "q4-0", InstanceState.READY, "")
    return metrics


def read(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    samples = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            samples[sample.name, frozenset(sample.labels.items())] = sample.value
    return samples


def value(metrics: Metrics, name: str, /, **labels: str) -> float:
    return read(metrics)[name, frozenset(labels.items())]


def test_the_mean_decode_batch_is_a_quotient_of_two_counters(metrics: Metrics) -> None:
    for rows in (8, 8, 6):
        metrics.on_step("q4", "q4-0", StepRecord(decode_tokens=rows, execute_s=0.01))
    metrics.on_step("q4", "q4-0", StepRecord(prefill_tokens=100))
    tokens = value(metrics, "rllm_decode_tokens_total", **AT)
    assert tokens / value(metrics, "rllm_decode_steps_total", **AT) == pytest.approx(22 / 3)
    assert value(metrics, "rllm_prefill_tokens_total", **AT) == 100


@pytest.mark.parametrize(
    ("decode", "prefill", "kind"), [(3, 0, "decode"), (0, 5, "prefill"), (3, 5, "mixed"), (0, 0, "empty")]
)
def test_steps_are_timed_by_kind(metrics: Metrics, decode: int, prefill: int, kind: str) -> None:
    record = StepRecord(
        decode_tokens=decode, prefill_tokens=prefill, plan_s=0.1, execute_s=0.2, sample_s=0.3, commit_s=0.4
    )
    metrics.on_step("q4", "q4-0", record)
    assert value(metrics, "rllm_step_seconds_count", **AT, kind=kind) == 1
    assert value(metrics, "rllm_step_seconds_sum", **AT, kind=kind) == pytest.approx(1.0)
    assert value(metrics, "rllm_step_phase_seconds_total", **AT, phase="sample") == pytest.approx(0.3)


def test_gauges_show_the_state_after_the_last_step(metrics: Metrics) -> None:
    metrics.on_step("q4", "q4-0", StepRecord(running=5, waiting=2, kv_used=900))
    shown = [
        value(metrics, f"rllm_{n}", **AT)
        for n in ("slots_used", "requests_waiting", "kv_cells_used", "slots")
    ]
    assert shown == [5, 2, 900, 8]


def test_the_prefix_store_is_shown(metrics: Metrics) -> None:
    record = StepRecord(
        spills=2,
        spill_s=0.1,
        restores=1,
        restored_tokens=300,
        restore_s=0.2,
        store_failures=1,
        store_bytes=1000,
        store_disk_bytes=2000,
    )
    metrics.on_step("q4", "q4-0", record)
    metrics.on_step("q4", "q4-0", record)
    names = ("spills", "spill_seconds", "restores", "restored_tokens", "restore_seconds", "store_failures")
    shown = [value(metrics, f"rllm_prefix_{name}_total", **AT) for name in names]
    assert shown == pytest.approx([4, 0.2, 2, 600, 0.4, 2])
    assert value(metrics, "rllm_prefix_store_bytes", **AT, where="memory") == 1000
    assert value(metrics, "rllm_prefix_store_bytes", **AT, where="disk") == 2000


def test_a_request_that_is_cancelled_between_steps_frees_its_slot_in_the_metrics(metrics: Metrics) -> None:
    metrics.on_accepted("q4", "q4-0", REQUEST)
    metrics.on_step("q4", "q4-0", StepRecord(prefill_tokens=512, running=1))
    metrics.on_finished("q4", "q4-0", REQUEST, Event(request_id="a.b.0", finish=FinishReason.CANCELLED), 0.5)
    assert value(metrics, "rllm_slots_used", **AT) == 0
    assert value(metrics, "rllm_sequences_in_flight", **AT) == 0


def finish(metrics: Metrics, tokens: int) -> None:
    event = Event(
        request_id="a.b.0",
        finish=FinishReason.STOP,
        usage=Usage(prompt_tokens=30, completion_tokens=tokens, cached_tokens=10),
        timings=Timings(queue_s=0.1, prefill_s=0.2, decode_s=0.9),
    )
    metrics.on_accepted("q4", "q4-0", REQUEST)
    metrics.on_finished("q4", "q4-0", REQUEST, event, 1.2)


def test_tokens_and_times_of_finished_sequences_add_up(metrics: Metrics) -> None:
    finish(metrics, tokens=10)
    finish(metrics, tokens=1)
    model = {"model": "q4"}
    assert value(metrics, "rllm_prompt_tokens_total", **model) == 60
    assert value(metrics, "rllm_cached_prompt_tokens_total", **model) == 20
    assert value(metrics, "rllm_generated_tokens_total", **model) == 11
    assert value(metrics, "rllm_sequences_finished_total", **model, reason="stop") == 2
    for name in ("e2e_latency", "queue_time", "prefill_time", "decode_time"):
        assert value(metrics, f"rllm_{name}_seconds_count", **model) == 2
    # one token has no gaps: it is left out
    assert value(metrics, "rllm_time_per_output_token_seconds_count", **model) == 1
    assert value(metrics, "rllm_time_per_output_token_seconds_sum", **model) == pytest.approx(0.1)


def test_http_requests_are_counted_by_what_became_of_them(metrics: Metrics) -> None:
    record = RequestRecord(
        request_id="r", method="POST", path="/v1/chat/completions", route="/v1/chat/completions"
    )
    record.model, record.status, record.finish_reasons, record.ttft_s = "q4", 200, ("stop", "length"), 0.004
    metrics.on_request(record)
    labels = {"route": record.route, "model": "q4", "status": "200", "finish_reason": "mixed"}
    assert value(metrics, "rllm_requests_total", **labels) == 1
    # a few milliseconds are told apart
    at = {"route": record.route, "model": "q4"}
    assert value(metrics, "rllm_request_time_to_first_token_seconds_bucket", **at, le="0.003") == 0
    assert value(metrics, "rllm_request_time_to_first_token_seconds_bucket", **at, le="0.004") == 1


def test_names_that_clients_invent_do_not_become_labels(metrics: Metrics) -> None:
    for number in range(50):
        record = RequestRecord(request_id="r", method="POST", path="/x", model=f"evil-{number}", status=404)
        metrics.on_request(record)
    assert b"evil" not in metrics.render()
    labels = {"route": "unmatched", "model": "", "status": "404", "finish_reason": ""}
    assert value(metrics, "rllm_requests_total", **labels) == 50


def test_rejections_and_errors_are_counted_by_code(metrics: Metrics) -> None:
    metrics.on_rejected("q4", "server_is_overloaded", "queue_tokens")
    record = RequestRecord(request_id="r", method="POST", path="/x", route="/x", status=503)
    record.error_code = "server_is_overloaded"
    metrics.on_request(record)
    refused = {"model": "q4", "reason": "server_is_overloaded", "bound": "queue_tokens"}
    assert value(metrics, "rllm_rejections_total", **refused) == 1
    assert value(metrics, "rllm_request_errors_total", route="/x", code="server_is_overloaded") == 1


def test_a_lost_worker_is_counted_and_leaves_nothing_running(metrics: Metrics) -> None:
    metrics.on_step("q4", "q4-0", StepRecord(running=3, waiting=1, kv_used=50))
    metrics.on_instance("q4", "q4-0", InstanceState.RESTARTING, "killed")
    assert value(metrics, "rllm_worker_restarts_total", **AT) == 1
    assert value(metrics, "rllm_instance_state", **AT, state="restarting") == 1
    assert value(metrics, "rllm_instance_state", **AT, state="ready") == 0
    assert value(metrics, "rllm_slots_used", **AT) == 0
    assert value(metrics, "rllm_kv_cells_used", **AT) == 0
    assert ("rllm_process_cpu_seconds_total", frozenset({("process", "q4-0")})) not in read(metrics)


def test_processes_are_read_at_the_scrape(metrics: Metrics) -> None:
    for process in ("api", "q4-0"):
        assert value(metrics, "rllm_process_resident_memory_bytes", process=process) > 1e6
        assert value(metrics, "rllm_process_cpu_seconds_total", process=process) > 0


def test_a_worker_that_is_gone_does_not_break_the_scrape(metrics: Metrics) -> None:
    metrics.on_ready("q4", "q4-1", INFO, 2**22 - 3)  # no such process
    assert b"rllm_process_threads" in metrics.render()


def test_without_a_gpu_there_are_no_gpu_metrics(metrics: Metrics) -> None:
    assert b"rllm_gpu" not in metrics.render()


class FakeNvml(NoNvml):
    """One card that does not tell its power."""

    NVML_TEMPERATURE_GPU = 0

    class _Memory:
        used, total = 10, 100

    class _Rates:
        gpu = 50

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:
        return "H100"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> object:
        return self._Memory()

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> object:
        return self._Rates()

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        raise self.NVMLError("not supported")

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return 40


def test_a_gpu_is_shown_with_what_it_tells() -> None:
    gpus = Gpus(FakeNvml())
    metrics = Metrics(gpus)
    card = {"gpu": "0", "name": "H100"}
    assert value(metrics, "rllm_gpu_memory_used_bytes", **card) == 10
    assert value(metrics, "rllm_gpu_utilization_ratio", **card) == 0.5
    assert value(metrics, "rllm_gpu_temperature_celsius", **card) == 40
    assert ("rllm_gpu_power_watts", frozenset(card.items())) not in read(metrics)
    assert gpus.free_bytes() == 90


def http_request(path: str, **values: object) -> RequestRecord:
    record = RequestRecord(request_id="r", method="POST", path=path, route=path)
    for name, wanted in {"model": "q4", "status": 200, **values}.items():
        setattr(record, name, wanted)
    return record


def test_requests_in_flight_leave_probes_out(metrics: Metrics) -> None:
    request, probe = http_request("/v1/completions"), http_request("/metrics")
    metrics.on_start(request)
    metrics.on_start(probe)
    assert value(metrics, "rllm_requests_in_flight") == 1
    metrics.on_request(request)
    metrics.on_request(probe)
    assert value(metrics, "rllm_requests_in_flight") == 0
    assert value(metrics, "rllm_requests_received_total") == 1


def test_refusals_for_a_keys_limits_are_counted_by_its_name(metrics: Metrics) -> None:
    metrics.know_keys(["team-a", "team-b"])
    metrics.on_request(http_request("/x", status=429, error_code="rate_limit_exceeded", client_key="team-a"))
    metrics.on_request(http_request("/x", status=503, error_code="server_is_overloaded", client_key="team-a"))
    assert value(metrics, "rllm_rate_limited_total", key="team-a") == 1
    assert value(metrics, "rllm_rate_limited_total", key="team-b") == 0


@pytest.mark.parametrize(
    ("error_code", "cause"), [(None, "client_gone"), ("client_too_slow", "client_too_slow")]
)
def test_cancellations_are_counted_by_cause(metrics: Metrics, error_code: str | None, cause: str) -> None:
    metrics.on_request(http_request("/x", status=499, error_code=error_code))
    assert value(metrics, "rllm_cancellations_total", model="q4", cause=cause) == 1


def test_tokens_that_nobody_wanted_in_the_end_are_counted_apart(metrics: Metrics) -> None:
    metrics.on_accepted("q4", "q4-0", REQUEST)
    event = Event(request_id=REQUEST.id, finish=FinishReason.CANCELLED, usage=Usage(3, 4, 0))
    metrics.on_finished("q4", "q4-0", REQUEST, event, 1.0)
    finish(metrics, tokens=10)
    assert value(metrics, "rllm_generated_tokens_total", model="q4") == 14
    assert value(metrics, "rllm_wasted_tokens_total", model="q4") == 4


def test_a_breaker_is_closed_from_the_start_and_a_new_worker_does_not_close_it(metrics: Metrics) -> None:
    assert value(metrics, "rllm_breaker_state", **AT, state="closed") == 1
    metrics.on_breaker("q4", "q4-0", BreakerState.OPEN)
    metrics.on_ready("q4", "q4-0", INFO, os.getpid())
    assert value(metrics, "rllm_breaker_state", **AT, state="open") == 1


def test_the_queue_is_known_before_the_worker_says_anything() -> None:
    clock = iter((10.0, 12.0, 15.0, 16.0, 17.0))
    queue = QueueMetrics(lambda: next(clock))
    queue.ready("q4", "q4-0")
    second = EngineRequest(id="b.b.0", prompt=(1,) * 7, max_tokens=4)
    queue.accepted("q4", "q4-0", REQUEST)
    queue.accepted("q4", "q4-0", second)

    def shown() -> list[float]:
        return [family.samples[0].value for family in queue.collect()]

    assert shown() == [2, 10, 5.0]
    queue.left("q4", "q4-0", REQUEST)
    assert shown() == [1, 7, 4.0]
    queue.left("q4", "q4-0", second)
    assert shown() == [0, 0, 0.0]


def test_tokens_per_second_are_those_of_the_last_seconds() -> None:
    now = [100.0]
    meter = Meter(lambda: now[0])
    for _ in range(5):
        meter.add(10)
        now[0] += 1.5
    assert meter.rate() == 50 / WINDOW_S
    now[0] += WINDOW_S - 2
    assert meter.rate() == 10 / WINDOW_S
    now[0] += WINDOW_S
    assert meter.rate() == 0


def test_vllms_names_show_the_same_numbers() -> None:
    metrics = Metrics(Gpus(NoNvml()), vllm_names=True)
    metrics.on_ready("q4", "q4-0", INFO, os.getpid())
    finish(metrics, tokens=10)
    metrics.on_step("q4", "q4-0", StepRecord(decode_tokens=1, running=5, kv_used=1024))
    metrics.on_rejected("q4", "server_is_overloaded", "queue_tokens")
    metrics.on_rejected("q4", "server_is_overloaded", "first_token_time")  # vLLM has no such reason
    metrics.on_token_gap("q4", "q4-0", 0.004)
    model, engine = {"model_name": "q4"}, {"model_name": "q4", "engine": "0"}
    assert value(metrics, "vllm:num_requests_running", **engine) == 5
    assert value(metrics, "vllm:kv_cache_usage_perc", **engine) == 0.25
    assert value(metrics, "vllm:generation_tokens_total", **model) == 10
    assert value(metrics, "vllm:prefix_cache_hits_total", **model) == 10
    assert value(metrics, "vllm:request_success_total", **model, finished_reason="stop") == 1
    assert value(metrics, "vllm:request_success_total", **model, finished_reason="abort") == 0
    assert value(metrics, "vllm:admission_rejections_total", **model, reason="max_num_queued_tokens") == 1
    assert value(metrics, "vllm:e2e_request_latency_seconds_count", **model) == 1
    assert value(metrics, "vllm:inter_token_latency_seconds_bucket", **engine, le="0.004") == 1
    refused = [name for name, _ in read(metrics) if name == "vllm:admission_rejections_total"]
    assert len(refused) == 1


def test_every_metric_is_in_the_documentation() -> None:
    document = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
    metrics = Metrics(Gpus(FakeNvml()))
    metrics.on_ready("q4", "q4-0", INFO, os.getpid())
    named = set(re.findall(r"`(rllm_\w+)`", document))
    exposed = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in metrics.registry.collect()
    }
    assert exposed == named


def test_every_metric_is_ours_and_explained(metrics: Metrics) -> None:
    for family in text_string_to_metric_families(metrics.render().decode()):
        assert family.name.startswith("rllm_")
        assert family.documentation


def test_observations_that_are_counted_later_are_counted_the_same() -> None:
    registry = CollectorRegistry()
    at_once, later = (
        Histogram(name, "Text.", ["a"], buckets=(0.1, 1.0), registry=registry).labels("x") for name in "ab"
    )
    tally = Tally(later)
    for value in (0.0, 0.1, 0.5, 1.0, 2.0, 0.1):
        at_once.observe(value)
        tally.add(value)
    assert len(tally) == 6
    tally.flush()
    tally.flush()
    assert len(tally) == 0
    seen = {name: registry.get_sample_value(f"{name}_sum", {"a": "x"}) for name in "ab"}
    assert seen["a"] == pytest.approx(seen["b"])
    for bound in ("0.1", "1.0", "+Inf"):
        labels = {"a": "x", "le": bound}
        counts = [registry.get_sample_value(f"{name}_bucket", labels) for name in "ab"]
        assert counts[0] == counts[1]


def test_steps_are_counted_although_nobody_looks(metrics: Metrics) -> None:
    for _ in range(1000):
        metrics.on_step("q4", "q4-0", StepRecord(decode_tokens=2))
        metrics.on_token_gap("q4", "q4-0", 0.01)
        metrics.on_token_gap("q4", "q4-0", 0.02)
    assert (
        metrics.registry.get_sample_value(
            "rllm_inter_token_latency_seconds_count", {"model": "q4", "instance": "q4-0"}
        )
        == 2000
    )
    assert (
        metrics.registry.get_sample_value("rllm_decode_tokens_total", {"model": "q4", "instance": "q4-0"})
        == 2000
    )


def test_the_text_is_the_librarys(metrics: Metrics) -> None:
    metrics.on_request(RequestRecord("r", "POST", "/x", route='a "b" \\ \n', status=200, ttft_s=0.1))
    metrics.on_step("q4", "q4-0", StepRecord(decode_tokens=2, execute_s=1e-7, kv_used=10**9))
    families = list(metrics.registry.collect())

    class Collected(CollectorRegistry):
        def collect(self) -> list[object]:  # type: ignore[override]
            return list(families)

    renderer, expected = Renderer(), generate_latest(Collected())
    assert renderer.render(families) == expected
    assert renderer.render(families) == expected
