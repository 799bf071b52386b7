"""Fixtures that several kinds of tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import rllm.backends.llama  # noqa: F401  loads llama.cpp before numpy, which a CUDA build needs
from tests.tinymodel import write_tiny_model

os.environ["RLLM_TUNE"] = "off"  # no server that a test starts measures for seconds what is fastest here

MODELS = Path(__file__).parents[1] / "models"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 400 kB with a byte-level vocabulary and a chat template."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


def _real_model(name: str) -> Path:
    path = MODELS / f"{name}.gguf"
    if not path.exists():
        pytest.fail(f"{path} is missing; scripts/test makes it. Without models: pytest -m 'not model'")
    return path


@pytest.fixture(scope="session")
def q8_model() -> Path:
    return _real_model("q8")


@pytest.fixture(scope="session")
def f16_model() -> Path:
    return _real_model("f16")
