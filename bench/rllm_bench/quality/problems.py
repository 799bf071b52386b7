"""The generation task: GSM8K with worked examples, for models that can do arithmetic at all.

A model of 135 million parameters solves about one problem in a hundred, and then flips say
nothing: the report warns when the reference solves less than a tenth.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rllm_bench.quality.datasets import Problem
from rllm_bench.quality.model import LogitsModel, Vocabulary, begin_token
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
    """The first problems are the worked examples; the others are answered greedily, side by side."""
    shots, asked = problems[:NUM_SHOTS], problems[NUM_SHOTS:]
    head = "".join(f"Question: {shot.question}\nAnswer: {shot.answer}\n\n" for shot in shots)
    right: list[bool] = []
    for start in range(0, len(asked), model.num_sequences):
        group = asked[start : start + model.num_sequences]
        prompts = [
            _prompt(model.vocabulary, f"{head}Question: {problem.question}\nAnswer:") for problem in group
        ]
        for problem, written in zip(group, model.greedy(prompts, max_tokens), strict=True):
            text = model.vocabulary.detokenize([step.token for step in written], special=False)
            right.append(answer_of(text.partition("\nQuestion:")[0]) == answer_of(problem.answer))
        progress(len(right), len(asked))
    return right


def _prompt(vocabulary: Vocabulary, text: str) -> list[int]:
    begin = begin_token(vocabulary)
    tokens = vocabulary.tokenize(text, add_special=False, parse_special=False)
    return tokens if begin is None else [begin, *tokens]
