"""The whole server on the real model, through the official client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.cli.server import RunningServer, running

pytestmark = pytest.mark.model

QUESTION: list[ChatCompletionUserMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]
SECRETS = [f"{number:03d}-{number * 7919 % 9973:04d}" for number in range(1, 9)]


def address(server: RunningServer) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def server(q8_model: Path) -> Iterator[RunningServer]:
    options = ("--slots", "8", "--ctx-size", "512", "--threads", "1", "--temperature", "0", "--top-p", "1")
    with running("--gguf", q8_model, *options) as started:
        yield started


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address(server)}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_chat_names_the_model_and_counts_its_tokens(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="q8", messages=QUESTION, max_tokens=12)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_is_the_answer_in_pieces_and_ends_with_usage(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="q8", messages=QUESTION, max_tokens=12)
    chunks = list(
        client.chat.completions.create(
            model="q8", messages=QUESTION, max_tokens=12, stream=True, stream_options={"include_usage": True}
        )
    )
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_two_choices_and_a_seed_that_repeats_them(client: openai.OpenAI) -> None:
    def ask() -> list[str | None]:
        answer = client.chat.completions.create(
            model="q8", messages=QUESTION, max_tokens=10, n=2, temperature=1.0, seed=11
        )
        return [choice.message.content for choice in answer.choices]

    first = ask()
    assert len(set(first)) == 2
    assert ask() == first


def test_a_stop_string_ends_the_text_before_itself(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="q8", prompt="1, 2, 3, 4,", max_tokens=16).choices[0].text
    stop = whole[5:8]
    cut = client.completions.create(model="q8", prompt="1, 2, 3, 4,", max_tokens=16, stop=stop).choices[0]
    assert cut.text == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"


def test_errors_are_the_clients_own_types(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nobody"):
        client.chat.completions.create(model="nobody", messages=QUESTION)
    with pytest.raises(openai.BadRequestError, match="512"):
        client.completions.create(model="q8", prompt="word " * 600, max_tokens=4)


async def test_no_secret_of_one_request_is_in_the_answer_of_another(server: RunningServer) -> None:
    """Eight at once, each told to repeat its own number; exact, whatever the texts are."""
    async with openai.AsyncOpenAI(base_url=f"{address(server)}/v1", api_key="none", max_retries=0) as client:
        answers = await asyncio.gather(
            *(
                client.completions.create(
                    model="q8", prompt=f"The code is {secret}. I repeat: the code is", max_tokens=16
                )
                for secret in SECRETS
            )
        )
    texts = [answer.choices[0].text for answer in answers]
    for number, text in enumerate(texts):
        assert not [s for other, s in enumerate(SECRETS) if other != number and s in text]
    assert sum(secret in text for secret, text in zip(SECRETS, texts, strict=True)) >= len(SECRETS) // 2
