"""The generation task: GSM8K with worked examples, for models that can do arithmetic at all.

A model of 135 million parameters solves about one problem in a hundred, and then flips say
nothing: the report warns when the reference solves less than a tenth.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rllm_bench.quality.datasets import Problem
from rllm_bench.quality.greedy import generate
from rllm_bench.quality.model import LogitsModel
from rllm_bench.quality.reference import Progress

NUM_SHOTS = 4
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def answer_of(text: str) -> str | None:
    """The number after ``####``, else the last number; without separators and idle decimals."""
    _, marker, tail = text.partition("####")
    found = _NUMBER.findall(tail if marker else text)
    if not found:
        return None
    number = found[0] if marker else found[-1]
    value = float(number.replace(",", ""))
    return str(int(value)) if value == int(value) else str(value)


def solve(model: LogitsModel, problems: Sequence[Problem], max_tokens: int, progress: Progress) -> list[bool]:
    """The first problems are the worked examples; the others are answered greedily."""
    shots, asked = problems[:NUM_SHOTS], problems[NUM_SHOTS:]
    head = "".join(f"Question: {shot.question}\nAnswer: {shot.answer}\n\n" for shot in shots)
    right = []
    for index, problem in enumerate(asked):
        right.append(_solves(model, head, problem, max_tokens))
        progress(index + 1, len(asked))
    return right


def _solves(model: LogitsModel, head: str, problem: Problem, max_tokens: int) -> bool:
    tokens = model.tokenize(f"{head}Question: {problem.question}\nAnswer:")
    if model.begin_token is not None:
        tokens.insert(0, model.begin_token)
    written = generate(model, tokens, max_tokens, stop=lambda tokens: "\nQuestion:" in model.text(tokens))
    text = model.text(written).partition("\nQuestion:")[0]
    return answer_of(text) == answer_of(problem.answer)
