"""What the scheduler does shows on /metrics of a real server: a tiny model, three slots, too few cells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.server import RunningServer, running

CELLS = 256
TRIES = 20


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[RunningServer]:
    sizes = ("--slots", "3", "--ctx-size", "128", "--kv", "unified", "--kv-cells", str(CELLS))
    with running("--gguf", tiny_model, *sizes, "--threads", "1") as started:
        yield started


class Readings:
    """All samples of one scrape, by name and by the labels that are not the instance's."""

    def __init__(self, server: RunningServer) -> None:
        text = server.get("/metrics")[1].decode()
        self.samples = {
            (sample.name, sample.labels.get("kind", "")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("rllm_") and "le" not in sample.labels
        }

    def __call__(self, name: str, kind: str = "") -> float:
        return self.samples.get((f"rllm_{name}", kind), 0.0)


def ask(server: RunningServer, prompt: str, max_tokens: int, **options: object) -> dict[str, Any]:
    body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, **options}
    connection = server.connect()
    try:
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        assert response.status == 200, answer
        return answer
    finally:
        connection.close()


def test_steps_are_counted_by_kind_and_cells_are_counted(server: RunningServer) -> None:
    before = Readings(server)
    usage = ask(server, "a prompt of some length", 6)["usage"]
    after = Readings(server)
    assert after("step_seconds_count", "prefill") > before("step_seconds_count", "prefill")
    assert after("step_seconds_count", "decode") - before("step_seconds_count", "decode") == 5
    assert after("prefill_tokens_total") - before("prefill_tokens_total") == usage["prompt_tokens"]
    held = usage["prompt_tokens"] + usage["completion_tokens"] - 1  # the last token has no cell
    assert after("kv_cells_used") - before("kv_cells_used") == held
    assert after("kv_cells") == CELLS


def test_prefix_hits_are_the_tokens_that_usage_names(server: RunningServer) -> None:
    prompt = "the beginning that two requests have in common, "
    ask(server, prompt + "one", 2)
    before = Readings(server)
    usage = ask(server, prompt + "two", 2)["usage"]
    after = Readings(server)
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert cached > len("the beginning") // 2
    assert after("prefix_hit_tokens_total") - before("prefix_hit_tokens_total") == cached
    computed = after("prefill_tokens_total") - before("prefill_tokens_total")
    assert computed == usage["prompt_tokens"] - cached


def test_idle_prefixes_that_give_way_are_counted(server: RunningServer) -> None:
    before = Readings(server)
    asked = 0
    for number in range(5):
        asked += ask(server, f"{number}{number * 7} does not begin like the others " * 2, 20)["usage"][
            "total_tokens"
        ]
    after = Readings(server)
    assert asked > CELLS
    assert after("evicted_tokens_total") - before("evicted_tokens_total") >= asked - CELLS
    assert after("kv_cells_used") <= CELLS


def test_running_requests_that_give_way_are_counted_and_all_finish(server: RunningServer) -> None:
    """An answer takes 20 ms: the first may be over before the third has come; then ask again."""
    before = after = Readings(server)
    for number in range(TRIES):
        answer = ask(server, f"{number}: three answers", 110, n=3)
        after = Readings(server)
        assert [choice["finish_reason"] for choice in answer["choices"]] == ["length"] * 3
        assert answer["usage"]["completion_tokens"] == 330 > CELLS
        if after("preemptions_total") > before("preemptions_total"):
            break
    assert after("preemptions_total") > before("preemptions_total")


def test_prompts_computed_beside_decodes_are_counted(server: RunningServer) -> None:
    """A stream may be over before the prompt arrives; then another is begun."""
    before = after = Readings(server)
    for number in range(TRIES):
        stream = server.start_stream(110)
        ask(server, f"{number} arrives while another decodes", 1)
        stream.read()
        after = Readings(server)
        if after("step_seconds_count", "mixed") > before("step_seconds_count", "mixed"):
            break
    assert after("step_seconds_count", "mixed") > before("step_seconds_count", "mixed")


def test_the_path_of_sampling_is_counted(server: RunningServer) -> None:
    """Greedy is the quick way; log probabilities make every token slow."""
    before = Readings(server)
    ask(server, "quick", 5)
    between = Readings(server)
    ask(server, "slow", 5, logprobs=2)
    after = Readings(server)
    assert between("slow_samples_total") == before("slow_samples_total")
    assert after("slow_samples_total") - between("slow_samples_total") == 5
