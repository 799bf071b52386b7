"""Clients that scripts/clients has fetched, in environments of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rllm.modelhub.export_hf import export_hf
from tests.cli.server import running
from tests.clients.conftest import PROGRAMS, fetched, run, tool
from tests.page.conftest import browser  # noqa: F401  # a fixture

pytestmark = pytest.mark.slow


def test_java(url: str) -> None:
    assert run(tool("java"), PROGRAMS / "Chat.java", url).startswith("java ")


def test_node(url: str) -> None:
    said = run(tool("node"), PROGRAMS / "node_chat.mjs", fetched("node"), f"{url}/v1")
    assert said.startswith("openai 6.")


@pytest.mark.parametrize("name", ["langchain", "llamaindex"])
def test_frameworks(url: str, name: str) -> None:
    run(fetched(name) / "bin" / "python", PROGRAMS / f"{name}_chat.py", f"{url}/v1")


@pytest.mark.timeout(600)
def test_guidellm(url: str, tiny_model: Path, tmp_path: Path) -> None:
    """It always sends ``stream_options.continuous_usage_stats``, and wants usage in the stream."""
    export_hf(tiny_model, tmp_path / "tokenizer", force=False)
    result = tmp_path / "result.json"
    run(
        fetched("guidellm") / "bin" / "guidellm", "run", "--disable-console-interactive",
        "--backend", f"kind=openai_http,target={url}",
        "--tokenizer", f"kind=hf_auto,model={tmp_path / 'tokenizer'}",
        "--data", "kind=synthetic_text,prompt_tokens=32,output_tokens=8",
        "--profile", "kind=concurrent,streams=2",
        "--constraint", "kind=max_requests,count=6",
        "--output", f"kind=json,path={result}",
        timeout_s=300,
    )  # fmt: skip
    (benchmark,) = json.loads(result.read_text())["benchmarks"]
    requests = benchmark["requests"]
    assert not requests["errored"], requests["errored"][0]
    assert len(requests["successful"]) == 6
    assert all(request["output_tokens"] == 8 for request in requests["successful"])


class _Folders(SimpleHTTPRequestHandler):
    """The page, and the official client as npm has left it."""

    def __init__(self, *args: Any, node: Path, **kwargs: Any) -> None:
        self._node = node
        super().__init__(*args, **kwargs)

    def translate_path(self, path: str) -> str:
        plain = path.partition("?")[0].lstrip("/")
        return str((self._node if plain.startswith("node_modules/") else PROGRAMS) / plain)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(node: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Folders, node=node)) as site:
        Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()


def test_the_official_client_in_a_browser(browser: Any, tiny_model: Path) -> None:  # noqa: F811
    """A page of another origin: the browser asks first whether its ``x-stainless-*`` headers are allowed."""
    with (
        serving(fetched("node")) as origin,
        running(
            "--gguf", tiny_model, "--alias", "tiny", "--ctx-size", "2048", "--cors-origin", origin
        ) as server,
    ):
        page = browser.new_page()
        page.goto(f"{origin}/browser.html?http://127.0.0.1:{server.port}")
        page.wait_for_function("document.title != 'waiting'", timeout=60_000)
        assert page.title() == "done"


def test_versions_in_the_documentation() -> None:
    """docs/clients.md names the versions that are pinned here."""
    docs = (PROGRAMS.parents[2] / "docs" / "clients.md").read_text()
    for lock, package in (
        ("langchain", "langchain-openai"),
        ("llamaindex", "llama-index-llms-openai-like"),
        ("guidellm", "guidellm"),
        ("lmeval", "lm_eval"),
    ):
        pinned = dict(
            line.split("==")
            for line in (PROGRAMS.parent / "locks" / f"{lock}.txt").read_text().splitlines()
            if "==" in line
        )
        assert pinned[package] in docs
    assert (
        json.loads((PROGRAMS.parent / "node" / "package.json").read_text())["dependencies"]["openai"] in docs
    )
