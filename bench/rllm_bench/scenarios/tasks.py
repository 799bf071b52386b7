"""Questions with a meaning, in chat messages, ended by the model: guessing ahead depends on what is asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from rllm_bench.load.prompts import Prompt, Unit, Words
from rllm_bench.records.cells import WorkloadSpec
from rllm_bench.scenarios.base import Scenario

_TEXT = Path(__file__).parents[1] / "quality" / "data" / "wiki.test.raw"
_MARKS = ((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."), (" , ", ", "), (" . ", ". "))
_WORDS = 120
_QUESTIONS = (
    "Write a short story about a dog who finds a key.",
    "Explain how a queue works in computer science.",
    "List five tips for saving energy at home.",
    "Write a Python function that adds up the even numbers of a list, and explain it.",
    "Give me a recipe for pancakes.",
    "Why is the sky blue?",
    "Describe the water cycle to a child.",
    "Write an email to my boss that asks for a day off.",
    "Compare cats and dogs as pets.",
    "What are the main causes of inflation?",
    "How does a bicycle stay upright?",
    "What should I see in Rome in two days?",
)


@cache
def passages() -> tuple[str, ...]:
    """Beginnings of the paragraphs that are long enough, without the corpus's marks."""
    found = []
    for line in _TEXT.read_text().splitlines():
        for mark, plain in _MARKS:
            line = line.replace(mark, plain)
        own = line.split()
        if len(own) >= _WORDS and not line.startswith(" ="):
            found.append(" ".join(own[:_WORDS]))
    return tuple(found)


def _chat(rng: np.random.Generator) -> str:
    return str(rng.choice(_QUESTIONS))


def _summarize(rng: np.random.Generator) -> str:
    return f"Summarize this text in two sentences:\n\n{rng.choice(passages())}"


def _copy(rng: np.random.Generator) -> str:
    passage = str(rng.choice(passages()))
    word = rng.choice([word for word in passage.split() if word.isalpha() and len(word) > 4])
    return f'Repeat this text exactly, but write "XX" for "{word}":\n\n{passage}'


def _scenario(name: str, question: str, text: Callable[[np.random.Generator], str]) -> Scenario:
    def unit(spec: WorkloadSpec, words: Words, index: int) -> Unit:
        rng = words.rng(spec, index)
        nonce = f"({int(rng.integers(10**6))}) "  # no server has seen it before
        return [Prompt(nonce + text(rng), None, spec.output_tokens)]

    return Scenario(
        name=name,
        question=question,
        unit=unit,
        chat=True,
        usual={
            "concurrency": [1, 4],
            "prompt_tokens": [320],
            "output_tokens": [96],
            "requests_per_user": 3,
            "min_requests": 6,
        },
        headline=("tpot_p50_ms", "output_tps", "same_answers"),
    )


SCENARIOS = (
    _scenario("chat", "questions that are answered freely", _chat),
    _scenario("summarize", "a passage of about 120 words, to be told shorter", _summarize),
    _scenario("copy", "the same passage, to be repeated with one word replaced", _copy),
)
