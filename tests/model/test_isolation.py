"""Requests that share a batch do not share anything else, on the real model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rllm.backends.llama.backend import LlamaBackend
from rllm.backends.llama.logits import LogitModel
from rllm.backends.options import LlamaOptions
from tests.model.loop import generate

pytestmark = pytest.mark.model

SLOTS, CTX, TOKENS = 8, 256, 24

TOPICS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "The three primary colours are",
    "def fibonacci(n):\n    ",
    "Dear Sir or Madam,\nI am writing to",
    "Once upon a time, in a small village,",
    "The mitochondria is the",
    "1, 2, 3, 4,",
)


@pytest.fixture(scope="module", params=["unified", pytest.param("split", marks=pytest.mark.slow)])
def backend(request: pytest.FixtureRequest, f16_model: Path) -> Iterator[LlamaBackend]:
    options = LlamaOptions(slots=SLOTS, ctx_per_slot=CTX, batch_size=256, threads=1, kv=request.param)
    made = LlamaBackend(f16_model, options)
    yield made
    made.close()


@pytest.fixture(scope="module")
def logit_model(f16_model: Path) -> Iterator[LogitModel]:
    with LogitModel(f16_model, num_ctx=CTX, num_sequences=SLOTS, batch_size=256, threads=1) as made:
        yield made


def decode_logits(model: LogitModel, sequences: list[list[int]]) -> list[list[np.ndarray]]:
    """Logits at the last ``TOKENS`` positions, fed one token of each sequence at a time like decoding."""
    rows: list[list[np.ndarray]] = [[] for _ in sequences]
    wanted = [range(len(tokens) - TOKENS, len(tokens)) for tokens in sequences]
    for part in model.rows(sequences, wanted, tokens_per_step=1):
        rows[part.sequence].extend(part.logits)
    return rows


def noise_floor(model: LogitModel, sequences: list[list[int]]) -> float:
    """How far the batch alone moves the difference of two logits, at most, over these texts."""
    together = decode_logits(model, sequences)
    alone = [decode_logits(model, [tokens])[0] for tokens in sequences]
    moved = [
        float(np.abs(one - other).max())
        for rows, others in zip(together, alone, strict=True)
        for one, other in zip(rows, others, strict=True)
    ]
    return 2 * max(moved)


def test_batched_equals_alone(backend: LlamaBackend, logit_model: LogitModel) -> None:
    """Greedy text beside seven others is the text alone, except where two tokens are as good as equal."""
    vocabulary = backend.vocabulary
    prompts = [vocabulary.tokenize(text, add_special=True, parse_special=False) for text in TOPICS]
    together = generate(backend, prompts, TOKENS)
    alone = [generate(backend, [prompt], TOKENS)[0] for prompt in prompts]
    texts = [prompt + tokens for prompt, tokens in zip(prompts, alone, strict=True)]
    floor = noise_floor(logit_model, texts)
    print(f"noise floor of the top-2 gap, batch of {SLOTS} against 1: {floor:.2g}")
    for prompt, one, other in zip(prompts, alone, together, strict=True):
        if one == other:
            continue
        at = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        row = logit_model.logits([prompt + one[:at]], [[len(prompt) + at - 1]])[0][0]
        second, first = np.sort(row)[-2:]
        print(f"diverged at token {at}; the gap there is {first - second:.2g}")
        assert first - second <= floor


def test_no_secret_shows_up_in_another_answer(backend: LlamaBackend) -> None:
    """Every prompt holds a secret and asks for it; only its own may come back, and mostly does."""
    vocabulary = backend.vocabulary
    secrets = ("plum-81", "kite-47", "oven-25", "raft-93", "lamp-62", "fern-18", "wasp-74", "iron-59")
    prompts = [
        vocabulary.tokenize(
            f"User: The secret code is {secret}. What is it?\nAnswer: The secret code is {secret}.\n"
            "User: What is the secret code?\nAnswer: The secret code is",
            add_special=True,
            parse_special=False,
        )
        for secret in secrets
    ]
    answers = [vocabulary.detokenize(tokens, special=False) for tokens in generate(backend, prompts, TOKENS)]
    kept = sum(secret in answer for secret, answer in zip(secrets, answers, strict=True))
    assert kept >= len(secrets) // 2, f"the test has no power: {answers}"
    for own, answer in zip(secrets, answers, strict=True):
        assert not [secret for secret in secrets if secret != own and secret in answer]
