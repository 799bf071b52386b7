"""A collector over fake models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rllm_bench.quality.cache import ReferenceCache
from rllm_bench.quality.collect import Collector, Subject
from rllm_bench.quality.datasets import EvaluationData
from rllm_bench.quality.files import ModelFile
from rllm_bench.quality.model import Shape
from rllm_bench.quality.results import Settings
from rllm_bench.quality.store import QualityStore
from tests.bench.quality.fakes import FakeModel


def subject(
    name: str,
    noise: float = 0.0,
    file_type: str = "Q8_0",
    opened: list[Shape] | None = None,
    imatrix: str | None = None,
) -> Subject:
    file = ModelFile(
        name=name, path=f"{name}.gguf", sha256=name, file_type=file_type, file_bytes=1000, num_params=1000,
        type_shares={file_type: 1.0}, imatrix=imatrix,
    )  # fmt: skip

    def open_model(shape: Shape) -> FakeModel:
        if opened is not None:
            opened.append(shape)
        return FakeModel(noise, shape.num_ctx, shape.num_sequences)

    return Subject(file, open_model)


@pytest.fixture
def data(tmp_path: Path) -> EvaluationData:
    (tmp_path / "text").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    pairs = [{"paradigm": "p", "good": f"good {i}", "bad": f"worse {i}"} for i in range(60)]
    (tmp_path / "pairs").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    problems = [{"question": f"{i} + 1?", "answer": f"#### {i + 1}"} for i in range(8)]
    (tmp_path / "problems").write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    return EvaluationData({kind: tmp_path / kind for kind in ("text", "pairs", "problems")})


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


MakeCollector = Callable[[Subject], Collector]


@pytest.fixture
def collector(tmp_path: Path, data: EvaluationData, pool: ThreadPoolExecutor) -> MakeCollector:
    settings = Settings(num_ctx=64, num_chunks=8, greedy_prompts=4, greedy_tokens=12)
    cache = ReferenceCache(tmp_path / "cache", 10_000_000)

    def make(reference: Subject) -> Collector:
        store = QualityStore(tmp_path / "store")
        store.folder.mkdir(exist_ok=True)
        return Collector(reference, settings, data, store, cache, "fake 1", pool)

    return make
