"""What is an extra is not imported by who can do without."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

_PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
_BENCH = [re.split("[<>=]", name)[0] for name in _PROJECT["optional-dependencies"]["bench"]]


def test_nothing_of_tracing_is_imported_while_it_is_off() -> None:
    code = "import sys, rllm.main; print([m for m in sys.modules if m.startswith('opentelemetry.sdk')])"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]", result.stderr


def test_a_server_needs_nothing_that_only_measuring_needs() -> None:
    """Neither it nor the tool for models; the bench says what is missing."""
    absent = "; ".join(f"sys.modules[{name!r}] = None" for name in _BENCH)
    server = f"import sys; {absent}; import rllm.main, rllm.cli, rllm.modelhub.cli"
    subprocess.run([sys.executable, "-c", server], check=True, timeout=60)
    bench = f"import sys; {absent}; import rllm_bench.cli"
    ended = subprocess.run(
        [sys.executable, "-c", bench], check=False, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("rllm-bench: import of ")
    assert "install rllm[bench]" in ended.stderr
