"""A server to be asked, and the programs of other people that ask it. They are fetched by scripts/clients."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.cli.server import RunningServer, running

ROOT = Path(__file__).parents[2]
FETCHED = ROOT / ".cache" / "clients"
PROGRAMS = Path(__file__).parent / "programs"
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}


@pytest.fixture(scope="module")
def server(tiny_model: Path) -> Iterator[RunningServer]:
    options = ("--slots", "4", "--ctx-size", "2048", "--alias", "tiny")
    with running("--gguf", tiny_model, *options) as started:
        yield started


@pytest.fixture
def url(server: RunningServer) -> str:
    return f"http://127.0.0.1:{server.port}"


def fetched(name: str) -> Path:
    """The folder of a client that scripts/clients has fetched."""
    folder = FETCHED / name
    if not folder.exists():
        pytest.skip(f"scripts/clients {name} fetches it")
    return folder


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} here")
    return found


def run(*command: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 100) -> str:
    """Standard output of a program that must succeed, without the net."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **OFFLINE, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    return done.stdout
