"""A long-tailed mix of lengths, in the manner of ShareGPT conversations."""

from __future__ import annotations

import numpy as np

from rllm_bench.load.prompts import Unit, Words
from rllm_bench.records.cells import WorkloadSpec
from rllm_bench.scenarios.base import Scenario

# log-normal: the median prompt some tens of tokens and the mean several times that, answers of about 150
# tokens (mean and deviation of the logarithm)
_PROMPT = (4.2, 1.3)
_OUTPUT = (5.0, 0.9)


def unit(spec: WorkloadSpec, words: Words, index: int) -> Unit:
    """prompt_tokens and output_tokens of the spec are upper limits."""
    rng = words.rng(spec, index)
    prompt = int(np.clip(rng.lognormal(*_PROMPT), 4, spec.prompt_tokens))
    output = int(np.clip(rng.lognormal(*_OUTPUT), 4, spec.output_tokens))
    return [words.prompt(words.draw(rng, prompt), output)]


SCENARIOS = (
    Scenario(
        name="mix",
        question="lengths as in a chat service",
        unit=unit,
        usual={
            "concurrency": [8],
            "prompt_tokens": [512],
            "output_tokens": [256],
            "requests_per_user": 6,
        },
    ),
)
