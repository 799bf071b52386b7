"""Prompts from a JSONL file: `prompt` or `token_ids`, and optionally `max_tokens` and `at_s`, by line."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import msgspec

from rllm_bench.load.prompts import Prompt, Unit, Words
from rllm_bench.records.cells import WorkloadSpec
from rllm_bench.scenarios.base import Scenario


class _Line(msgspec.Struct):
    prompt: str = ""
    token_ids: list[int] | None = None
    max_tokens: int | None = None
    at_s: float | None = None


@lru_cache(maxsize=4)
def _lines(path: str, sha256: str | None) -> tuple[_Line, ...]:
    data = Path(path).read_bytes()
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{path} has changed since the run was planned")
    lines = tuple(msgspec.json.decode(line, type=_Line) for line in data.splitlines() if line.strip())
    if not lines:
        raise ValueError(f"{path} holds no prompts")
    return lines


def unit(spec: WorkloadSpec, words: Words, index: int) -> Unit:
    lines = _lines(spec.path or "", spec.file_sha256)
    line = lines[index % len(lines)]
    return [Prompt(line.prompt, line.token_ids, line.max_tokens or spec.output_tokens, line.at_s)]


def problem(spec: WorkloadSpec) -> str | None:
    return None if spec.path else "needs prompts_file"


SCENARIOS = (Scenario(name="file", question="prompts of a file, or a trace", unit=unit, problem=problem),)
