"""Log probabilities over HTTP are those of the model: of prompts and of answers, alone and in company."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rllm.backends.llama.logits import LogitModel
from tests.cli.server import RunningServer, running
from tests.model.asking import ask

TEXT = "the man in the hat, größer: 日本 🦙 and then the end"


@pytest.fixture(scope="module", params=["split", "unified"])
def server(tiny_model: Path, request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    options = ("--slots", "4", "--ctx-size", "1024", "--threads", "1", "--kv", request.param)
    with running("--gguf", tiny_model, *options, "--temperature", "0") as started:
        yield started


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Iterator[LogitModel]:
    with LogitModel(tiny_model, num_ctx=1024, threads=1) as loaded:
        yield loaded


def exact(model: LogitModel, tokens: Sequence[int]) -> list[float]:
    """log p of each token but the first."""
    rows = model.logits([tokens])[0].astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    logs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return [float(logs[i, token]) for i, token in enumerate(tokens[1:])]


def tokens_of(model: LogitModel, text: str) -> list[int]:
    return model.vocabulary.tokenize(text, add_special=True, parse_special=True)


def test_an_echoed_prompt_has_the_models_log_probabilities(server: RunningServer, model: LogitModel) -> None:
    answer = ask(server, prompt=TEXT, echo=True, logprobs=2, max_tokens=0)
    choice = answer["choices"][0]
    found = choice["logprobs"]
    tokens = tokens_of(model, TEXT)
    assert (choice["text"], choice["finish_reason"]) == (TEXT, "length")
    assert answer["usage"] == {
        "prompt_tokens": len(tokens),
        "completion_tokens": 0,
        "total_tokens": len(tokens),
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert (found["token_logprobs"][0], found["top_logprobs"][0]) == (None, None)
    assert found["token_logprobs"][1:] == pytest.approx(exact(model, tokens), abs=1e-4)
    for name, logprob, top in list(
        zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True)
    )[1:]:
        assert top[name] == logprob
        assert 2 <= len(top) <= 3


def test_offsets_lead_to_the_tokens_in_the_text(server: RunningServer) -> None:
    choice = ask(server, prompt=TEXT, echo=True, logprobs=0, max_tokens=40)["choices"][0]
    found, text = choice["logprobs"], choice["text"]
    offsets = found["text_offset"]
    assert offsets == sorted(offsets)
    for name, offset in zip(found["tokens"], offsets, strict=True):
        if name.startswith("bytes:"):
            part = bytes.fromhex(name.removeprefix("bytes:").replace("\\x", ""))
            in_prompt = offset < len(TEXT)
            assert not in_prompt or part in text[offset].encode()
        elif not name.startswith("<|"):
            assert text[offset : offset + len(name)] == name


def test_a_long_prompt_is_scored_the_same_in_company_and_when_it_was_computed_before(
    server: RunningServer, model: LogitModel
) -> None:
    texts = [f"{number} {TEXT} " * 8 for number in range(3)]
    ask(server, prompt=texts[0], max_tokens=1)
    with ThreadPoolExecutor(6) as pool:
        company = [pool.submit(ask, server, prompt=f"{i}", max_tokens=200, ignore_eos=True) for i in range(3)]
        scored = [pool.submit(ask, server, prompt=text, prompt_logprobs=3, max_tokens=2) for text in texts]
        answers = [one.result() for one in scored]
        assert all(one.result()["usage"]["completion_tokens"] == 200 for one in company)
    for text, answer in zip(texts, answers, strict=True):
        tokens = tokens_of(model, text)
        listed = answer["choices"][0]["prompt_logprobs"]
        assert listed[0] is None
        own = [entry[str(token)] for entry, token in zip(listed[1:], tokens[1:], strict=True)]
        # computed in pieces of other sizes, for which llama.cpp has other kernels: docs/exactness.md
        assert [one["logprob"] for one in own] == pytest.approx(exact(model, tokens), abs=0.1)
        for entry, mine in zip(listed[1:], own, strict=True):
            assert sorted(one["rank"] for one in entry.values())[:3] == [1, 2, 3]
            better = [one for one in entry.values() if one["logprob"] > mine["logprob"]]
            assert mine["rank"] > len(better)


def test_what_is_drawn_is_among_what_is_reported(server: RunningServer) -> None:
    greedy = ask(server, prompt=TEXT, logprobs=3, max_tokens=60, ignore_eos=True)["choices"][0]["logprobs"]
    for name, logprob, top in zip(
        greedy["tokens"], greedy["token_logprobs"], greedy["top_logprobs"], strict=True
    ):
        assert top[name] == logprob == max(top.values())
    wild = ask(server, prompt=TEXT, logprobs=1, max_tokens=60, temperature=2, seed=3, ignore_eos=True)
    found = wild["choices"][0]["logprobs"]
    assert any(name.startswith("bytes:") for name in found["tokens"])
    for name, logprob, top in zip(
        found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True
    ):
        assert top[name] == logprob <= max(top.values())


def test_a_stream_says_the_same(server: RunningServer) -> None:
    only = {"allowed_token_ids": [72]}  # near ties may fall otherwise the second time
    body = {"prompt": [TEXT, "the"], "echo": True, "logprobs": 1, "max_tokens": 3, **only}
    whole = ask(server, **body)["choices"]
    parts = [chunk["choices"][0] for chunk in ask(server, **body, stream=True)]
    for choice in whole:
        own = [part for part in parts if part["index"] == choice["index"]]
        assert "".join(part["text"] for part in own) == choice["text"]
        for name, values in choice["logprobs"].items():
            joined = [value for part in own if part["logprobs"] for value in part["logprobs"][name]]
            if name == "token_logprobs":
                assert joined[1:] == pytest.approx(values[1:], abs=0.1)
            elif name != "top_logprobs":
                assert joined == values


def test_how_an_evaluation_asks(server: RunningServer, model: LogitModel) -> None:
    """lm-eval: token ids, one token too many, and the continuation's part of what comes back."""
    context, continuation = tokens_of(model, "the man in"), tokens_of(model, " the hat")
    prompts = [context + continuation, [*context, continuation[0]]]
    answer = ask(server, prompt=prompts, max_tokens=1, logprobs=1, echo=True, temperature=0, seed=1234)
    for prompt, choice in zip(prompts, answer["choices"], strict=True):
        found = choice["logprobs"]["token_logprobs"][len(context) : -1]
        assert found == pytest.approx(exact(model, prompt)[len(context) - 1 :], abs=1e-4)


def test_chats_report_their_prompt_too(server: RunningServer) -> None:
    messages = [{"role": "user", "content": "the"}]
    answer = ask(server, "/v1/chat/completions", messages=messages, prompt_logprobs=0, max_tokens=1)
    listed = answer["prompt_logprobs"]
    assert len(listed) == answer["usage"]["prompt_tokens"]
    assert [len(entry) for entry in listed[1:]] == [1] * (len(listed) - 1)


def test_a_prompt_that_fills_the_context_can_be_scored(server: RunningServer) -> None:
    prompt = [10 + i % 200 for i in range(1024)]
    answer = ask(server, prompt=prompt, max_tokens=0, echo=True, logprobs=0)
    assert len(answer["choices"][0]["logprobs"]["tokens"]) == 1024
