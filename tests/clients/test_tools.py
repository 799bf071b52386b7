"""curl, and the official client for Python: there is nothing to fetch for them."""

from __future__ import annotations

import json

import openai
import pytest

from tests.clients.conftest import run, tool

BODY = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}


@pytest.mark.parametrize(
    "options", [(), ("--http2",), ("--http1.0",), ("--http2", "-H", "transfer-encoding: chunked")]
)
@pytest.mark.parametrize("stream", [False, True])
def test_curl(url: str, options: tuple[str, ...], stream: bool) -> None:
    """With ``--http2`` it offers to upgrade, and sends its body without waiting for an answer to that."""
    curl = tool("curl")
    if "--http2" in options and "HTTP2" not in run(curl, "--version"):
        pytest.skip("this curl knows no HTTP/2")
    target = f"{url}/v1/chat/completions"
    data = json.dumps({**BODY, "stream": stream})
    said = run(
        curl, "-sS", "-N", *options, "-H", "content-type: application/json", "-d", data, target, target
    )
    assert said.count("data: [DONE]" if stream else '"object":"chat.completion"') == 2  # on one connection


def test_an_answer_of_the_python_client_goes_back_into_the_history_as_it_is(url: str) -> None:
    """`model_dump` writes every field of OpenAI's type, most of them null."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    history: list[object] = [{"role": "user", "content": "Hello"}]
    for _ in range(3):
        answer = client.chat.completions.create(model="tiny", messages=history, max_tokens=8)  # type: ignore[arg-type]
        dumped = answer.choices[0].message.model_dump()
        assert None in dumped.values()
        history += [dumped, {"role": "user", "content": "And again?"}]


def test_the_python_client_puts_a_stream_together(url: str) -> None:
    """Its helper raises where max_tokens ends an answer: here the end token does."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    usage = {"include_usage": True}
    ends = {"2": 100}
    with client.chat.completions.stream(
        model="tiny", messages=BODY["messages"], logit_bias=ends, stream_options=usage
    ) as stream:  # type: ignore[call-overload]
        for _ in stream:
            pass
        whole = stream.get_final_completion()
    assert whole.usage is not None
    assert whole.choices[0].finish_reason == "stop"


async def test_the_asynchronous_python_client(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        answer = await client.completions.with_raw_response.create(model="tiny", prompt="Once", max_tokens=4)
        assert answer.headers["x-request-id"]
        assert answer.parse().usage is not None
