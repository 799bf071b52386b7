"""Fixtures that several kinds of tests share, and which tests are ``core``.

``pytest -m core`` needs no compiler: these folders never import llama_cpp, and no other is even read.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ["RLLM_TUNE"] = "off"  # no server that a test starts measures for seconds what is fastest here

TESTS = Path(__file__).parent
CORE = ("formats", "http", "property", "serving", "unit")
"""Folders of tests for the engine, the serving layer on the fake backend, and the HTTP API."""
MODELS = TESTS.parent / "models"


def pytest_configure(config: pytest.Config) -> None:
    if not _is_core_run(config):
        import rllm.backends.llama  # noqa: F401  loads llama.cpp before numpy, which a CUDA build needs


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    in_tests = collection_path.relative_to(TESTS).parts if collection_path.is_relative_to(TESTS) else ()
    return True if in_tests and in_tests[0] not in CORE and _is_core_run(config) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(TESTS).parts[0] in CORE:
            item.add_marker("core")


def _is_core_run(config: pytest.Config) -> bool:
    return str(config.option.markexpr).split(" ")[0] == "core"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 400 kB with a byte-level vocabulary and a chat template."""
    from tests.tinymodel import write_tiny_model  # imports numpy

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
