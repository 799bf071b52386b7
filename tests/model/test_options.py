"""Options that act on tokens, through the whole server on a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.server import RunningServer, running
from tests.model.asking import ask

PROMPT = "the man in"
END, IM_START, IM_END = 0, 1, 2


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[RunningServer]:
    options = ("--slots", "2", "--ctx-size", "1024", "--threads", "1", "--temperature", "0")
    with running("--gguf", tiny_model, *options) as started:
        yield started


def choice(server: RunningServer, **body: Any) -> Any:
    asked = {"prompt": PROMPT, "max_tokens": 16, "return_token_ids": True, **body}
    return ask(server, **asked)["choices"][0]


def test_a_stop_token_ends_the_answer_and_is_no_text_of_it(server: RunningServer) -> None:
    usual = choice(server, ignore_eos=True)
    at = next(i for i in range(3, 16) if usual["token_ids"][i] not in usual["token_ids"][:i])
    stop = usual["token_ids"][at]
    cut = choice(server, ignore_eos=True, stop_token_ids=[stop])
    assert cut["finish_reason"] == "stop"
    assert cut["token_ids"] == usual["token_ids"][: at + 1]
    whole = choice(server, ignore_eos=True, stop_token_ids=[stop], include_stop_str_in_output=True)
    assert whole["text"].startswith(cut["text"])
    assert len(whole["text"]) > len(cut["text"])
    later = choice(server, ignore_eos=True, stop_token_ids=[stop], min_tokens=at + 2)
    assert stop not in later["token_ids"][: at + 1]
    assert len(later["token_ids"]) > at + 1


def test_a_stop_string_may_be_kept(server: RunningServer) -> None:
    usual = choice(server, ignore_eos=True)["text"]
    stop = usual[4:6]
    assert choice(server, ignore_eos=True, stop=stop)["text"] == usual[: usual.index(stop)]
    kept = choice(server, ignore_eos=True, stop=stop, include_stop_str_in_output=True)
    assert kept["text"] == usual[: usual.index(stop) + 2]


def test_control_tokens_are_text_where_that_is_wanted(server: RunningServer) -> None:
    always = {str(IM_START): 100}
    assert choice(server, logit_bias=always, max_tokens=3)["text"] == ""
    shown = choice(server, logit_bias=always, max_tokens=3, skip_special_tokens=False)
    assert shown["text"] == "<|im_start|>" * 3
    end = choice(server, logit_bias={str(IM_END): 100}, skip_special_tokens=False)
    assert (end["text"], end["finish_reason"], end["token_ids"]) == ("", "stop", [IM_END])
    kept = choice(
        server,
        logit_bias={str(IM_END): 100},
        skip_special_tokens=False,
        include_stop_str_in_output=True,
    )
    assert kept["text"] == "<|im_end|>"


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_nothing_but_allowed_tokens_is_drawn(server: RunningServer, temperature: float) -> None:
    allowed = [70, 71, 72]
    for more in ({}, {"top_p": 0.5}, {"frequency_penalty": 1.0}, {"logprobs": 2}):
        found = choice(server, allowed_token_ids=allowed, temperature=temperature, seed=1, **more)
        assert len(found["token_ids"]) == 16
        assert set(found["token_ids"]) <= set(allowed)


def test_bad_words_are_not_said(server: RunningServer) -> None:
    usual = choice(server, ignore_eos=True, max_tokens=40)["text"]
    plain = [word for word in (usual[i : i + 2] for i in range(len(usual) - 2)) if word.isascii()]
    word = next(word for word in plain if word.strip() == word and word.isprintable())
    found = choice(server, ignore_eos=True, max_tokens=40, bad_words=[word])["text"]
    assert word not in found
    assert found[: usual.index(word)] == usual[: usual.index(word)]


def test_ignoring_the_end_holds_after_the_least_tokens(server: RunningServer) -> None:
    found = choice(server, logit_bias={str(IM_END): 100}, ignore_eos=True, min_tokens=2)
    assert (found["finish_reason"], len(found["token_ids"])) == ("length", 16)
    assert IM_END not in found["token_ids"]


def test_a_stream_tells_how_far_the_prompt_is(server: RunningServer) -> None:
    body = {"prompt": "x" * 900, "max_tokens": 2, "stream": True, "return_progress": True}
    chunks = ask(server, **body)
    found = [chunk["prompt_progress"] for chunk in chunks if "prompt_progress" in chunk]
    assert len(found) >= 3  # the batch holds 256 tokens
    assert [one["processed"] for one in found] == sorted(one["processed"] for one in found)
    assert {one["total"] for one in found} == {900}
    assert all(0 < one["processed"] <= 900 for one in found)


def test_without_the_cache_the_whole_prompt_is_computed(server: RunningServer) -> None:
    prompt = "the cache and " * 20
    cached = []
    for cache in (True, True, False):
        answer = ask(server, prompt=prompt, max_tokens=1, cache_prompt=cache)
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert (cached[0], cached[2]) == (0, 0)
    assert cached[1] > 100


def test_running_usage_ends_with_the_last_one(server: RunningServer) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, last = ask(server, prompt=PROMPT, max_tokens=8, stream=True, stream_options=options)
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert chunks[-1]["usage"] == last["usage"]
