"""The README's quickstart, word by word, on a fresh clone: what a new user types, and what comes of it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATIENCE_S = 3000
"""llama.cpp is built where no wheel of it is kept."""


def section() -> str:
    return (ROOT / "README.md").read_text().split("\n## Quickstart\n")[1].split("\n## ")[0]


def promised() -> str:
    """What the page says that curl shows."""
    return section().split('streams "')[1].split('"')[0]


def quickstart() -> tuple[list[str], str]:
    """The commands and the Python program of the section, in their order."""
    text = section()
    blocks = re.findall(r"(?:^    .*\n)+", text, flags=re.M)
    commands = ["\n".join(line[4:] for line in block.splitlines()) for block in blocks]
    return commands, text.split("```python\n")[1].split("```")[0]


def test_the_section_is_what_this_test_reads() -> None:
    (serve, curl, *_), program = quickstart()
    assert serve == "scripts/serve"
    assert curl.startswith("curl -N localhost:8000/")
    assert "from openai import OpenAI" in program
    assert promised().endswith(".")


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S + 600)
def test_word_by_word(tmp_path: Path) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 8000)) == 0:
            pytest.skip("port 8000 is taken, and the README says 8000")
    clone = tmp_path / "rllm"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    for time_ in ("first", "second"):
        began = time.monotonic()
        _once(clone)
        print(f"{time_} time: {time.monotonic() - began:.0f} s", file=sys.stderr)


def _once(clone: Path) -> None:
    (serve, curl, *_), program = quickstart()
    log = clone.parent / "serve.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            serve,
            cwd=clone,
            shell=True,
            stdout=output,
            stderr=output,
            env=_environment(),
            start_new_session=True,
        )
    try:
        _wait_ready(server, log)
        said = subprocess.run(curl, cwd=clone, shell=True, capture_output=True, text=True, check=True).stdout
        assert said.rstrip().endswith("data: [DONE]")
        assert "".join(re.findall(r'"content":"([^"]*)"', said)) == promised()
        subprocess.run(".venv/bin/pip install openai", cwd=clone, shell=True, capture_output=True, check=True)
        printed = subprocess.run(
            [".venv/bin/python", "-c", program], cwd=clone, capture_output=True, text=True, check=True
        )
        assert printed.stdout.strip()
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(60)


def _wait_ready(server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while "API: http://127.0.0.1:8000/docs" not in log.read_text():
        assert server.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(1)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("RLLM_", "PYTHON"))}
