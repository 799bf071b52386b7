"""With --exact, greedy answers are the same bit by bit, whatever is cached and whoever is served beside."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cli.server import RunningServer, running
from tests.model.asking import ask

SOURCE = Path(__file__).parents[2] / "bench" / "rllm_bench" / "quality" / "data" / "wiki.test.raw"

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def server(q8_model: Path) -> Iterator[RunningServer]:
    options = ("--slots", "4", "--ctx-size", "256", "--threads", "1", "--temperature", "0", "--exact")
    with running("--gguf", q8_model, *options) as started:
        yield started


def said(server: RunningServer, prompt: str, **body: Any) -> tuple[list[int], list[float]]:
    """Tokens and their log probabilities."""
    asked = {"max_tokens": 8, "ignore_eos": True, "logprobs": 0, "return_token_ids": True, **body}
    choice = ask(server, prompt=prompt, **asked)["choices"][0]
    return choice["token_ids"], choice["logprobs"]["token_logprobs"]


def test_cold_warm_and_in_company_are_the_same(server: RunningServer) -> None:
    text = SOURCE.read_text()[2000:]
    prompts = [text[i * 700 : i * 700 + length] for i, length in enumerate((150, 270, 333, 420))]
    cold = [said(server, prompt, cache_prompt=False) for prompt in prompts]
    said(server, prompts[1][:170])
    assert [said(server, prompt) for prompt in prompts] == cold
    assert [said(server, prompt) for prompt in prompts] == cold, "all but the last token was there"
    with ThreadPoolExecutor(4) as pool:
        for _ in range(2):
            assert list(pool.map(lambda prompt: said(server, prompt), prompts)) == cold
            assert list(pool.map(lambda p: said(server, p, cache_prompt=False), prompts)) == cold
