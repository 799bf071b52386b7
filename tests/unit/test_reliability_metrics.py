"""Every metric of the runbook's reliability part is produced by what it stands for."""

from __future__ import annotations

from rllm.engine.types import EngineRequest
from rllm.observe.gpu import Gpus
from rllm.observe.metrics import Metrics
from rllm.serving.breaker import BreakerState
from rllm.serving.observer import InstanceState
from rllm.serving.timeouts import Limit
from tests.http.fake_service import model_info

REQUEST = EngineRequest(id="a.0", prompt=(1, 2), max_tokens=4)


def _metrics() -> Metrics:
    metrics = Metrics(Gpus())
    metrics.on_ready("m", "m-0", model_info(), 1)
    metrics.on_instance("m", "m-0", InstanceState.READY, "")
    return metrics


def _value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_lost_sequence_is_no_longer_in_flight_and_is_counted_by_outcome() -> None:
    metrics = _metrics()
    metrics.on_accepted("m", "m-0", REQUEST)
    metrics.on_lost("m", "m-0", REQUEST, retried=True)
    assert _value(metrics, "rllm_sequences_in_flight", model="m", instance="m-0") == 0
    assert _value(metrics, "rllm_sequences_lost_total", model="m", instance="m-0", outcome="retried") == 1
    assert _value(metrics, "rllm_sequences_lost_total", model="m", instance="m-0", outcome="failed") == 0


def test_each_time_limit_has_a_counter_from_the_start() -> None:
    metrics = _metrics()
    metrics.on_timeout("m", Limit.QUEUE)
    counts = {limit: _value(metrics, "rllm_timeouts_total", model="m", limit=limit.value) for limit in Limit}
    assert counts == {limit: float(limit is Limit.QUEUE) for limit in Limit}


def test_memory_that_ran_out_is_counted_and_buffers_are_shown() -> None:
    metrics = _metrics()
    assert _value(metrics, "rllm_out_of_memory_total", model="m", instance="m-0") == 0
    metrics.on_fewer_slots("m", "m-0", 8, 6)
    assert _value(metrics, "rllm_out_of_memory_total", model="m", instance="m-0") == 1
    metrics.on_ready("m", "m-0", model_info(buffers={"CUDA0 KV": 7}), 1)
    where = {"model": "m", "instance": "m-0", "place": "CUDA0", "purpose": "KV"}
    assert _value(metrics, "rllm_buffer_bytes", **where) == 7


def test_stalls_breakers_levels_and_reroutes_are_shown() -> None:
    metrics = _metrics()
    assert _value(metrics, "rllm_degradation_level", model="m") == 0
    metrics.on_stall("m", "m-0", 2.0)
    metrics.on_breaker("m", "m-0", BreakerState.OPEN)
    metrics.on_degraded("m", 2, "max_tokens<=10")
    metrics.on_rerouted("m", "small", "fallback")
    assert _value(metrics, "rllm_worker_stalls_total", model="m", instance="m-0") == 1
    assert _value(metrics, "rllm_breaker_state", model="m", instance="m-0", state="open") == 1
    assert _value(metrics, "rllm_degradation_level", model="m") == 2
    assert _value(metrics, "rllm_rerouted_total", model="m", to="small", reason="fallback") == 1
