"""Does llama.cpp load although numpy may come first? With CUDA, reading a vocabulary then crashes.

    python -m micro.load_order --gguf models/q4.gguf [--no-server]

Every case is a process of its own, without LD_PRELOAD. The first must load; with a CUDA build the wrong
orders must be refused in words (the guard of `rllm.backends.llama.lib`); the last shows what llama_cpp does
by itself then: it crashes. Then a server is started as a user starts it, and asked for five tokens.
Exit status 0: users cannot meet the crash.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import click

from micro.served import served
from rllm_bench.load.direct import open_url

_LOAD = """
import sys
from rllm.backends.llama.model import Model
model = Model(sys.argv[1], vocab_only=True)
{numpy}
print("loaded", model.vocab_size, "tokens")
"""
_UNGUARDED = """
import numpy, sys, llama_cpp as api
api.llama_backend_init()
params = api.llama_model_default_params()
params.vocab_only = True
model = api.llama_model_load_from_file(sys.argv[1].encode(), params)
print("loaded", bool(model))
"""
_START_S = 90.0


def attempt(code: str, gguf: Path) -> tuple[int, str]:
    """Exit status (negative: a signal) and the last line of either stream."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(gguf)], capture_output=True, text=True, timeout=120, check=False
    )
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return done.returncode, lines[-1] if lines else ""


def how(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit {status}"


def ask(url: str) -> str:
    body = json.dumps({"prompt": "The capital of France", "max_tokens": 5, "temperature": 0}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json"})
    with open_url(request, 60) as response:
        return f"{json.load(response)['usage']['completion_tokens']} tokens"


def serves(gguf: Path) -> bool:
    """A server that does not start is ended after `_START_S`."""
    watch = threading.Timer(_START_S, lambda: os._exit(3))
    watch.daemon = True
    watch.start()
    with served(gguf, None, "--slots", "4", "--ctx-size", "512") as server:
        click.echo(f"rllm-serve without LD_PRELOAD: answered {ask(server.url)}")
    watch.cancel()
    return True


@click.command()
@click.option("--gguf", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--no-server", is_flag=True, help="Only the three processes that load a vocabulary.")
def main(gguf: Path, no_server: bool) -> None:
    os.environ.pop("LD_PRELOAD", None)
    status, said = attempt(_LOAD.format(numpy="import numpy"), gguf)
    click.echo(f"rllm, then numpy: {how(status)}: {said}")
    good = status == 0
    guarded, refusal = attempt(f"import numpy{_LOAD.format(numpy='')}", gguf)
    click.echo(f"numpy, then rllm: {how(guarded)}: {refusal}")
    good = good and guarded >= 0
    bare, seen = attempt(_UNGUARDED, gguf)
    click.echo(f"numpy, then llama_cpp alone: {how(bare)}: {seen}")
    sys.exit(0 if good and (no_server or serves(gguf)) else 1)


if __name__ == "__main__":
    main()
