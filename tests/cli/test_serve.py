"""The server's life as its operator sees it: start, ready, Ctrl-C, SIGTERM, lost workers."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil

from tests.cli.server import RunningServer, running

SMALL = ("--slots", "2", "--ctx-size", "8192", "--threads", "1")


def count(server: RunningServer, prefix: str) -> float:
    lines = server.get("/metrics")[1].decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(prefix))


def test_a_server_says_where_it_is_answers_and_stops_with_its_workers(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL) as server:
        assert server.get("/health")[0] == 200
        workers = server.workers()
        assert workers
        server.signal(signal.SIGINT)
        assert server.exit_code() == 0
        assert not any(worker.is_running() for worker in workers)
    banner = "\n".join(server.lines)
    for words in ("tiny", "2 slots x 8,192 tokens", "KV cache", "curl -N http://127.0.0.1:"):
        assert words in banner


def test_several_models_are_served_under_their_names(tiny_model: Path) -> None:
    models = ("--gguf", tiny_model, "--alias", "one", "--gguf", tiny_model, "--alias", "two")
    with running(*models, *SMALL) as server:
        listed = json.loads(server.get("/v1/models")[1])["data"]
        assert [model["id"] for model in listed] == ["one", "two"]
        assert len(server.workers()) == 2


def test_the_port_answers_while_the_model_loads(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL, wait=False) as server:
        status, body = server.get("/health")
        if status != 200:  # else it was faster than we were
            assert (status, json.loads(body)["status"]) == (503, "loading")
        assert server.get("/health/live")[0] == 200
        server.wait_for('"event":"ready"')
        assert server.get("/health")[0] == 200


def test_ctrl_c_while_loading_ends_it(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL, wait=False) as server:
        server.get("/health/live")  # the loop runs: signals are caught
        server.signal(signal.SIGINT)
        assert server.exit_code() == 0


def test_ctrl_c_while_a_worker_loads_leaves_neither_a_worker_nor_an_exception(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, wait=False) as server:
        server.get("/health/live")  # the loop runs: signals are caught
        while not (workers := server.workers()):
            time.sleep(0.01)
        server.signal(signal.SIGINT)
        assert server.exit_code() == 0
        assert not any(worker.is_running() for worker in workers)
        assert [event for event in server.events() if event["level"] == "error"] == []


def test_sigterm_lets_a_running_request_finish(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL) as server:
        response = server.start_stream(max_tokens=100)
        server.signal(signal.SIGTERM)
        text = response.read().decode()
        assert text.rstrip().endswith("data: [DONE]")
        assert '"finish_reason":"length"' in text
        assert server.exit_code() == 0


def test_while_draining_the_server_says_so_and_refuses_new_work(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL) as server:
        server.start_stream(max_tokens=8000)
        server.signal(signal.SIGTERM)
        server.wait_for('"event":"stopping"')
        status, body = server.get("/health/ready")
        assert (status, json.loads(body)["status"]) == (503, "draining")
        assert server.start_stream(max_tokens=1).status == 503


def test_a_request_that_outlives_the_drain_ends_with_an_error_event(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL, "--drain-timeout-s", "0") as server:
        response = server.start_stream(max_tokens=8000)
        server.signal(signal.SIGTERM)
        assert '"error":{' in response.read().decode()
        assert server.exit_code() == 0


def test_a_second_signal_ends_it_at_once(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL) as server:
        workers = server.workers()
        server.start_stream(max_tokens=8000)
        server.signal(signal.SIGTERM)
        server.wait_for('"event":"stopping"')
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 128 + signal.SIGTERM
        assert psutil.wait_procs(workers, timeout=10)[1] == []


def test_a_lost_worker_is_replaced_and_counted(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL) as server:
        os.kill(server.workers()[0].pid, signal.SIGKILL)
        server.wait_for('"state":"restarting"')
        server.wait_for('"event":"worker ready"')
        assert count(server, "rllm_worker_restarts_total") == 1


def test_the_last_words_of_a_worker_are_an_event_before_its_loss(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL) as server:
        os.kill(server.workers()[0].pid, signal.SIGABRT)
        server.wait_for('"state":"restarting"')
        errors = [event for event in server.events() if event["level"] == "error"]
    words, loss = errors
    assert (words["event"], words["instance"], loss["event"]) == ("worker", "tiny-0", "instance")
    assert "Fatal Python error: Aborted" in words["text"]
    assert not [line for line in server.lines if line.startswith("Fatal")]


def test_one_event_is_logged_for_a_request_and_the_counters_agree(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL) as server:
        server.start_stream(max_tokens=20).read()
        server.wait_for('"event":"request"')
        (event,) = [event for event in server.events() if event["event"] == "request"]
        assert event["output_tokens"] == 20
        assert event["finish_reason"] == "length"
        assert event["instance"] == "tiny-0"
        assert event["decode_s"] > 0
        assert count(server, "rllm_generated_tokens_total") == 20
        assert count(server, "rllm_sequences_finished_total") == 1
        assert count(server, 'rllm_requests_total{finish_reason="length"') == 1
        assert count(server, "rllm_slots_used") == 0
        assert "once" not in json.dumps(server.events())


def test_without_metrics_it_serves_and_has_no_such_route(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL, "--no-metrics") as server:
        assert server.start_stream(max_tokens=4).status == 200
        assert server.get("/metrics")[0] == 404
        assert server.get("/health/ready")[0] == 200


def test_prompts_are_logged_when_asked_for(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL, "--log-prompts") as server:
        server.start_stream(max_tokens=1).read()
        server.wait_for('"prompt":".*once.*"')


def test_with_a_key_nobody_else_gets_in(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL, RLLM_API_KEY="hunter2") as server:
        assert server.get("/v1/models")[0] == 401
        assert server.get("/metrics")[0] == 401
        assert server.get("/health")[0] == 200
    assert "hunter2" not in "\n".join(server.lines)
