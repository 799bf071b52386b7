"""Model files through `rllm.backends.llama`: the only place of the quality package that loads llama.cpp."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from rllm.backends.llama.logits import LogitModel
from rllm_bench.quality.collect import Subject
from rllm_bench.quality.files import describe
from rllm_bench.quality.model import Shape
from rllm_bench.quality.results import Settings


def engine_version() -> str:
    return f"llama-cpp-python {metadata.version('llama-cpp-python')}"


def subject(path: Path, name: str, settings: Settings) -> Subject:
    """Reads the whole file once, for its hash."""

    def open_model(shape: Shape) -> LogitModel:
        return LogitModel(
            path,
            num_ctx=shape.num_ctx,
            num_sequences=shape.num_sequences,
            threads=settings.threads,
            gpu_layers=settings.gpu_layers,
        )

    return Subject(describe(path, name), open_model)
