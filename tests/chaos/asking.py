"""One request as a client sees it: every arrival with its time, and how it ended."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp
import orjson

WORDS = [
    "river",
    "stone",
    "market",
    "winter",
    "engine",
    "garden",
    "letter",
    "signal",
    "bridge",
    "copper",
    "harbour",
    "lantern",
    "meadow",
    "orchard",
    "pepper",
    "quarry",
    "ribbon",
    "saddle",
    "timber",
    "violin",
    "window",
    "yellow",
    "anchor",
    "basket",
    "candle",
    "dragon",
    "ember",
    "falcon",
]


@dataclass
class Answer:
    sent_at: float
    streaming: bool = True
    status: int = 0
    """0: the connection was lost, or nothing came in time."""
    code: str | None = None
    """Of an error, as status or as event."""
    arrivals: list[float] = field(default_factory=list)
    """Of content."""
    ended_at: float = 0.0
    finish: str | None = None
    num_tokens: int = 0
    degraded: str | None = None
    model: str | None = None
    retry_after: str | None = None
    failure: str | None = None
    """What the client saw that no server should do: a cut, a silence."""

    @property
    def ttft_s(self) -> float | None:
        return self.arrivals[0] - self.sent_at if self.arrivals else None

    @property
    def is_whole(self) -> bool:
        return self.status == 200 and self.finish is not None and self.code is None and not self.failure

    @property
    def is_typed(self) -> bool:
        """It ended as it should, or with an error that says what happened."""
        return self.is_whole or (self.code is not None and self.failure is None)

    def row(self) -> dict[str, Any]:
        row = asdict(self)
        arrivals = row.pop("arrivals")
        return {**row, "ttft_s": self.ttft_s, "num_arrivals": len(arrivals)}


def body(prompt: str, max_tokens: int, *, stream: bool = True, **fields: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "stream": stream,
        "temperature": 0.7,
        **fields,
    }
    if stream:
        data["stream_options"] = {"include_usage": True}
    return data


def prompt(number: int, num_words: int = 24) -> str:
    """Different from the first word on, so that no prefix helps."""
    return (
        " ".join(WORDS[(number * 7 + i * (number % 11 + 1)) % len(WORDS)] for i in range(num_words))
        + f" {number}"
    )


async def ask(
    http: aiohttp.ClientSession,
    url: str,
    data: dict[str, Any],
    *,
    headers: dict[str, str] | None = None,
    timeout_s: float = 120,
    answer: Answer | None = None,
) -> Answer:
    """``answer`` is filled while it comes, for those who want to look meanwhile. Never raises for a server."""
    answer = answer or Answer(time.monotonic())
    answer.streaming = bool(data.get("stream"))
    try:
        async with asyncio.timeout(timeout_s):
            async with http.post(url + "/v1/chat/completions", json=data, headers=headers) as response:
                answer.status = response.status
                answer.degraded = response.headers.get("x-rllm-degraded")
                answer.retry_after = response.headers.get("retry-after-ms")
                if response.status == 200 and answer.streaming:
                    await _read_events(response, answer)
                else:
                    _read_whole(await response.read(), answer)
    except TimeoutError:
        answer.failure = f"silent for {timeout_s:.0f} s"
    except (aiohttp.ClientError, ConnectionError) as error:
        answer.failure = type(error).__name__
    answer.ended_at = time.monotonic()
    return answer


async def _read_events(response: aiohttp.ClientResponse, answer: Answer) -> None:
    done = False
    async for line in response.content:
        if not line.startswith(b"data: "):
            continue
        if line.startswith(b"data: [DONE]"):
            done = True
            continue
        _take(orjson.loads(line[6:]), answer)
    if not done and answer.code is None:
        answer.failure = "the stream ended without [DONE] or an error"


def _take(event: dict[str, Any], answer: Answer) -> None:
    if (error := event.get("error")) is not None:
        answer.code = str(error.get("code") or error.get("type"))
        return
    answer.model = event.get("model", answer.model)
    if usage := event.get("usage"):
        answer.num_tokens = usage["completion_tokens"]
    for choice in event.get("choices", ()):
        if choice["delta"].get("content"):
            answer.arrivals.append(time.monotonic())
        answer.finish = choice.get("finish_reason") or answer.finish


def _read_whole(data: bytes, answer: Answer) -> None:
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError:
        answer.failure = "no JSON"
        return
    if "error" in content:
        answer.code = str(content["error"].get("code") or content["error"].get("type"))
        return
    answer.model = content["model"]
    answer.finish = content["choices"][0]["finish_reason"]
    answer.num_tokens = content["usage"]["completion_tokens"]
