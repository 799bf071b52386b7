"""The official client is content: answers, streams, and errors as its own exceptions."""

from __future__ import annotations

import openai
import pytest
from fake_service import ANSWER, FakeService, Script
from http_api import CHAT, Api, StartApi

from rllm.errors import EngineError, Overloaded, RateLimited, RllmError, TimedOut

ASK = {"model": "fake", **CHAT}


def test_chat_and_streaming_with_usage(api: Api) -> None:
    client = api.openai()
    answer = client.chat.completions.create(**ASK)
    assert answer.choices[0].message.content == ANSWER[:12]
    chunks = list(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER[:12]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12
    client.close()


def test_several_choices_completions_and_models(api: Api) -> None:
    client = api.openai()
    answer = client.chat.completions.create(**ASK, n=2, seed=1, stop=["x"], logprobs=True, top_logprobs=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].logprobs is not None
    text = client.completions.create(model="fake", prompt=["a", "b"], max_tokens=3, logprobs=1)
    assert [choice.text for choice in text.choices] == ["The", "The"]
    assert [model.id for model in client.models.list()] == ["fake"]
    assert client.models.retrieve("fake-alias").id == "fake"
    client.close()


@pytest.mark.parametrize(
    ("error", "exception", "status", "code", "retry"),
    [
        (
            Overloaded("full", retry_after_s=1.25),
            openai.InternalServerError,
            503,
            "server_is_overloaded",
            "true",
        ),
        (RateLimited("slow", retry_after_s=0.02), openai.RateLimitError, 429, "rate_limit_exceeded", "true"),
        (TimedOut("late"), openai.InternalServerError, 504, "timeout", "false"),
        (EngineError("broke"), openai.InternalServerError, 500, "engine_error", "true"),
    ],
)
def test_refusals_are_typed(
    api: Api, error: RllmError, exception: type[openai.APIStatusError], status: int, code: str, retry: str
) -> None:
    api.service.refuse_with = error
    client = api.openai()
    with pytest.raises(exception) as caught:
        client.chat.completions.create(**ASK)
    client.close()
    assert (caught.value.status_code, caught.value.code) == (status, code)
    headers = caught.value.response.headers
    assert headers["x-should-retry"] == retry
    assert caught.value.request_id == headers["x-request-id"]
    if error.retry_after_s == 1.25:
        assert (headers["retry-after"], headers["retry-after-ms"]) == ("2", "1250")


def test_bad_requests_are_typed(api: Api) -> None:
    client = api.openai()
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(**ASK, temperature=9)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(**{**ASK, "model": "other"})
    client.close()


@pytest.mark.parametrize("fail_with", [None, EngineError("the worker was replaced")])
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_first_token_is_an_http_error(
    api: Api, stream: bool, fail_with: RllmError | None
) -> None:
    api.service.script = Script(fail_after=0, fail_with=fail_with)
    client = api.openai()
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**ASK, stream=stream)
    assert caught.value.code == "engine_error"
    client.close()


@pytest.mark.parametrize("n", [1, 2])
def test_a_failure_in_the_middle_is_an_event_and_no_done(api: Api, n: int) -> None:
    api.service.script = Script(fail_after=4)
    client = api.openai()
    texts: list[str] = []

    def read() -> None:
        stream = client.chat.completions.create(**ASK, n=n, stream=True)
        texts.extend(chunk.choices[0].delta.content or "" for chunk in stream)

    with pytest.raises(openai.APIError, match="the decode step failed") as caught:
        read()
    assert "".join(texts).startswith("T")
    assert caught.value.code == "engine_error"
    client.close()
    record = api.record()
    assert (record.status, record.error_code) == (200, "engine_error")
    api.service.script = Script()
    assert api.service.idle.wait(10)


def test_the_client_retries_what_it_should(api: Api) -> None:
    """A refusal with a short Retry-After is tried again, a passed deadline is not."""
    client = api.openai(max_retries=2)
    for error, attempts in ((Overloaded("full", retry_after_s=0.01), 3), (TimedOut("late"), 1)):
        api.service.refuse_with = error
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(**ASK)
        assert [api.record().status for _ in range(attempts)] == [503 if attempts == 3 else 504] * attempts
    assert api.no_more_records()
    client.close()


def test_several_models_are_told_apart(start_api: StartApi) -> None:
    client = start_api(service=FakeService(names=("one", "two"))).openai()
    assert client.chat.completions.create(**{**ASK, "model": "two"}).model == "two"
    client.close()
