"""Thousands of requests, a third of them sane: no 500, no hang, no cut."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tests.chaos.result import Result
from tests.chaos.servers import rllm

_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, -0.0, 2**63, 2**200, "", "x" * 5000, "\u0000", "\U0001f600" * 50, "\ud800", [], {},
    [[]], {"a": {"b": []}}, [None], "<|im_end|>", "{{ 7 * 7 }}", "../../etc/passwd", 1.5, "NaN", [1, "a", None],
)  # fmt: skip
_FIELDS = (
    "model", "messages", "prompt", "max_tokens", "temperature", "top_p", "top_k", "n", "stop", "stream", "seed",
    "logit_bias", "logprobs", "top_logprobs", "response_format", "tools", "stream_options", "priority", "suffix",
    "min_tokens", "echo", "user", "presence_penalty", "cache_salt", "unknown_field", "grammar", "best_of",
)  # fmt: skip
_PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/tokenize",
    "/detokenize",
    "/v1/models",
    "/v1/nothing",
    "/..%2f",
)
_HEADERS = (
    ("x-request-timeout-ms", "abc"), ("x-request-timeout-ms", "-5"), ("x-request-timeout-ms", "9" * 30),
    ("x-request-ttft-ms", "1.5"), ("x-request-id", "a" * 400), ("x-request-id", "ok-1"), ("content-type", "text/x"),
    ("authorization", "Bearer \u00ff"), ("accept", "nonsense"), ("x-request-id", "<script>"), ("expect", "nothing"),
)  # fmt: skip


@dataclass(frozen=True)
class FuzzPlan:
    model: Path
    requests: int = 20_000
    at_a_time: int = 32
    threads: int = 0
    """0: as many as the server chooses."""
    slots: int = 16
    ctx: int = 512
    seed: int = 11
    hang_s: float = 30.0


@dataclass(frozen=True)
class Shot:
    kind: str
    method: str
    path: str
    data: bytes
    headers: tuple[tuple[str, str], ...]


def shots(plan: FuzzPlan) -> list[Shot]:
    """The same for the same seed."""
    rng = random.Random(plan.seed)
    return [_shot(rng) for _ in range(plan.requests)]


def _shot(rng: random.Random) -> Shot:
    json = (("content-type", "application/json"),)
    luck = rng.random()
    path, data = _valid(rng)
    if luck < 0.4:
        return Shot("valid", "POST", path, orjson.dumps(data), json)
    if luck < 0.75:
        for _ in range(rng.randint(1, 3)):
            data[rng.choice(_FIELDS)] = rng.choice(_ODD)
        return Shot("odd value", "POST", path, _dump(data), json)
    if luck < 0.85:
        raw = bytearray(orjson.dumps(data))
        for _ in range(rng.randint(1, 8)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        return Shot("broken bytes", "POST", path, bytes(raw[: rng.randint(1, len(raw))]), json)
    if luck < 0.93:
        return Shot("odd header", "POST", path, orjson.dumps(data), (*json, rng.choice(_HEADERS)))
    method = rng.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))
    return Shot("odd route", method, rng.choice(_PATHS), _dump(data), json)


def _valid(rng: random.Random) -> tuple[str, dict[str, Any]]:
    text = " ".join(
        rng.choice(("tell", "me", "a", "story", "über", "猫", "\n", "12")) for _ in range(rng.randint(1, 20))
    )
    data: dict[str, Any] = {"max_tokens": rng.randint(1, 8), "temperature": rng.choice((0, 0.5, 1, 2))}
    for name, values in (
        ("top_p", (0.1, 1)),
        ("seed", (0, 2**40)),
        ("stop", ("zz", ["a", "b"])),
        ("n", (1, 2)),
    ):
        if rng.random() < 0.3:
            data[name] = rng.choice(values)
    if rng.random() < 0.3:
        data["stream"] = True
    if rng.random() < 0.5:
        return "/v1/completions", {**data, "prompt": text}
    return "/v1/chat/completions", {**data, "messages": [{"role": "user", "content": text}]}


def _dump(data: dict[str, Any]) -> bytes:
    import json

    return json.dumps(data).encode()  # unlike orjson it writes lone surrogates and numbers of any size


async def run(plan: FuzzPlan) -> Result:
    result = Result(
        "fuzz",
        f"{plan.requests} fuzzed requests",
        f"rllm-serve --gguf {plan.model.name} --slots {plan.slots}, {plan.at_a_time} at a time, seed {plan.seed}; "
        "valid ones, odd values in known and unknown fields, broken bytes, odd headers, odd routes and methods",
    )
    seen: Counter[tuple[str, int]] = Counter()
    hung: list[Shot] = []
    cut: list[Shot] = []
    bad: list[Shot] = []
    gate = asyncio.Semaphore(plan.at_a_time)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as http:
        options = (
            "--gguf",
            plan.model,
            "--threads",
            plan.threads,
            "--slots",
            plan.slots,
            "--ctx-size",
            plan.ctx,
        )
        async with rllm(http, *options) as server:

            async def fire(shot: Shot) -> None:
                async with gate:
                    try:
                        async with asyncio.timeout(plan.hang_s):
                            kwargs: dict[str, Any] = {"data": shot.data, "headers": list(shot.headers)}
                            async with http.request(
                                shot.method, server.url + shot.path, **kwargs
                            ) as response:
                                content = await response.read()
                    except TimeoutError:
                        hung.append(shot)
                        return
                    except aiohttp.ClientError:
                        cut.append(shot)
                        return
                    seen[shot.kind, response.status] += 1
                    if response.status >= 500 or b"Traceback" in content:
                        bad.append(shot)

            began = time.monotonic()
            await asyncio.gather(*(fire(shot) for shot in shots(plan)))
            seconds = time.monotonic() - began
            alive = (await server.instances(http)).values()
            restarts = await server.metric(http, "rllm_worker_restarts_total")
    answered = sum(count for (kind, status), count in seen.items() if kind == "valid" and status == 200)
    result.check(
        "at least 30 % are valid and answered 200",
        answered >= 0.3 * plan.requests,
        f"{answered} of {plan.requests} ({100 * answered / plan.requests:.0f} %)",
    )
    valid = sum(count for (kind, _), count in seen.items() if kind == "valid")
    result.check(
        "every valid one is answered 200", answered == valid > 0, f"{valid - answered} of {valid} were not"
    )
    result.check("zero 500s, and no other 5xx", not bad, f"{len(bad)}")
    result.check("zero hangs", not hung, f"{len(hung)} without an answer after {plan.hang_s:g} s")
    result.check("no connection is cut", not cut, f"{len(cut)}")
    result.check("no worker was lost", restarts == 0 and set(alive) == {"ready"}, f"{restarts:.0f} restarts")
    statuses = sorted({status for _, status in seen})
    kinds = sorted({kind for kind, _ in seen})
    rows = [[kind, *(seen[kind, status] for status in statuses)] for kind in kinds]
    result.tables.append((f"Answers in {seconds:.0f} s", ["kind", *map(str, statuses)], rows))
    named = [("hung", hung), ("cut", cut), ("bad", bad)]
    result.raw = {
        name: [
            [s.kind, s.method, s.path, s.data.decode("latin-1")[:2000], list(s.headers)] for s in shots_[:50]
        ]
        for name, shots_ in named
    }
    return result
