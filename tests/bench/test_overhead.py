"""The verdict on what it costs to see, from the raw pairs alone."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import pytest
from aiohttp import test_utils, web

from micro.observability import (
    STREAMS,
    UI_PATH,
    Plan,
    Seen,
    judge,
    proof,
    report,
    run,
    student_t,
    switches,
)
from rllm_bench.load.client import Endpoint
from rllm_bench.records.vocabulary import Vocabulary
from rllm_bench.targets import processes


def _pairs(*ratios: float) -> list[dict[str, object]]:
    return [{"first": "on", "on": {"tok/s": 200 * ratio}, "off": {"tok/s": 200.0}} for ratio in ratios]


def test_equal_pairs_leave_no_doubt() -> None:
    found = judge(_pairs(*[0.98] * 10), seed=1)
    assert found["ratio"] == pytest.approx(0.98)
    assert found["interval"] == pytest.approx([0.98, 0.98])


def test_the_interval_is_students_on_the_logarithms() -> None:
    found = judge(_pairs(*[0.9, 1.0] * 5), seed=1)
    centre, half = math.log(0.9) / 2, 2.262 * 0.0555316 / math.sqrt(10)
    assert found["ratio"] == pytest.approx(math.exp(centre))
    assert found["interval"] == pytest.approx([math.exp(centre - half), math.exp(centre + half)], rel=1e-3)
    low, high = found["bootstrap"]
    assert found["interval"][0] < low < found["ratio"] < high < found["interval"][1]


@pytest.mark.parametrize(("freedom", "quantile"), [(9, 2.262), (19, 2.093), (29, 2.045)])
def test_the_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert student_t(freedom) == pytest.approx(quantile, abs=1e-3)


def test_the_report_says_when_the_goal_is_missed() -> None:
    rows = _pairs(*[0.95, 0.96] * 5)
    record = {
        "environment": {"cpu": {"model": "x", "cores_usable": 2}, "git": {"commit": "abc", "dirty": False}},
        "model": {"name": "q4.gguf"},
        "plan": {"on": ["metrics"], "num_words": 40, "max_tokens": 96, "threads": 2},
        "missing": {"ui": "rllm-serve has no /ui"},
        "seen": {"answers of /metrics": 3},
        "result": judge(rows, seed=1),
        "pairs": rows,
    }
    text = report(record)
    assert "**the interval does not lie above 0.97**" in text
    assert "not on: ui" in text
    assert text.count("| on |") == 10


class Server:
    """Streams as many tokens as are asked for, and has what is watched."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.since: list[str] = []
        app = web.Application()
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get(UI_PATH, self._state)
        self.app = app

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(str(body["prompt"]))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        chunks = [{"choices": [{"text": "x"}]} for _ in range(body["max_tokens"])]
        chunks[-1]["choices"][0]["finish_reason"] = "length"
        for chunk in (*chunks, {"choices": [], "usage": {"completion_tokens": body["max_tokens"]}}):
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
        return response

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(text="rllm_up 1\n")

    async def _state(self, request: web.Request) -> web.Response:
        self.since.append(request.query["since"])
        return web.json_response({"time": 7.5})


async def test_pairs_take_turns_and_only_the_server_that_has_it_on_is_watched(tmp_path: Path) -> None:
    on, off, seen = Server(), Server(), Seen()
    async with test_utils.TestServer(on.app) as one, test_utils.TestServer(off.app) as other:
        endpoints = {
            name: Endpoint(base_url=str(server.make_url("")).rstrip("/"), model="m")
            for name, server in (("on", one), ("off", other))
        }
        plan = Plan(["metrics", "scrape", "ui"], pairs=2, num_words=3, max_tokens=4, seed=1)
        words = Vocabulary(tokens=(1, 2, 3), words=("a", "b", "c"))
        rows = await asyncio.wait_for(run(endpoints, words, plan, processes.free_port(), seen), 30)
    assert [row["first"] for row in rows] == ["off", "on"]
    assert all(len(row[name]["requests"]) == STREAMS for row in rows for name in ("on", "off"))
    assert len(on.asked) == len(off.asked) == 3 * STREAMS  # with the pair that does not count
    assert seen.counts["scrapes of /metrics"] >= 3
    assert seen.counts[f"answers of {UI_PATH}"] == len(on.since) >= 3
    assert off.since == []
    log = tmp_path / "on.log"
    log.write_text('a banner\n{"event":"request","status":200}\n{"event":"ready"}\n')
    assert proof(log, seen)["request lines in the log"] == 1
    assert judge(rows, seed=1)["ratio"] > 0


def test_what_is_off_is_switched_off() -> None:
    off = switches([], "http://collector")
    assert {"--no-metrics", "--no-ui", "error"} <= set(off)
    on = switches(["metrics", "logs", "tracing", "scrape", "ui"], "http://collector")
    assert on == ["--log-format", "json", "--log-level", "info", "--otlp-endpoint", "http://collector"]
