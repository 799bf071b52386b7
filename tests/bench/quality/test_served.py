"""A model behind HTTP: both ways of asking for prompt log-probabilities, and servers that have neither."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rllm_bench.quality.cache import ReferenceCache
from rllm_bench.quality.reference import Reference, computed_reference
from rllm_bench.quality.served import ServedError, score_served
from tests.bench.quality.fakes import VOCAB, FakeModel

TOKENS = np.random.default_rng(0).integers(0, 256, (4, 16)).astype(np.int32)
MODEL = FakeModel()


def logprobs(seen: list[int], index: int) -> dict[int, float]:
    """Of the token at ``index`` and of the most likely one."""
    row = MODEL.row(seen[:index]).astype(float)
    row -= np.log(np.exp(row).sum())
    return {token: float(row[token]) for token in (seen[index], int(row.argmax()))}


def vllm(body: dict[str, Any]) -> dict[str, Any]:
    seen = body["prompt"]
    listed = [
        None,
        *({str(t): {"logprob": p} for t, p in logprobs(seen, i).items()} for i in range(1, len(seen))),
    ]
    return {"choices": [{"prompt_logprobs": listed}]}


def echo(body: dict[str, Any], prefix: str = "token_id:") -> dict[str, Any]:
    if "echo" not in body:
        return {"choices": [{}]}
    seen = body["prompt"]
    found = [logprobs(seen, i) for i in range(1, len(seen))]
    return {
        "choices": [
            {
                "logprobs": {
                    "token_logprobs": [None, *(own[t] for own, t in zip(found, seen[1:], strict=True)), -1.0],
                    "top_logprobs": [
                        None,
                        *({f"{prefix}{t}": p for t, p in own.items()} for own in found),
                        {},
                    ],
                }
            }
        ]
    }


def silent(_body: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [{"text": "hello"}]}


Serve = Callable[[Callable[[dict[str, Any]], dict[str, Any]]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[HTTPServer] = []

    def start(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply({"data": [{"id": "m"}]})

            def do_POST(self) -> None:
                self.reply(answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

            def reply(self, value: dict[str, Any]) -> None:
                data = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def reference(tmp_path: Path, pool: ThreadPoolExecutor) -> Reference:
    cache = ReferenceCache(tmp_path, 10**8)
    return computed_reference(FakeModel, TOKENS, VOCAB, cache, "key", pool, lambda *_: None)


@pytest.mark.parametrize("answer", [vllm, echo])
def test_the_served_reference_has_the_references_perplexity(
    serve: Serve, reference: Reference, answer: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    result = score_served(serve(answer), TOKENS, None, reference)
    assert result.ppl_ratio is not None
    assert result.ppl_ratio.value == pytest.approx(1, rel=1e-4)
    assert result.same_top is not None
    assert result.same_top.value == 1
    assert result.divergence is None


def test_a_server_without_prompt_logprobs_is_named(serve: Serve, reference: Reference) -> None:
    with pytest.raises(ServedError, match="neither prompt_logprobs nor echo"):
        score_served(serve(silent), TOKENS, None, reference)


def test_tokens_named_by_text_are_refused(serve: Serve, reference: Reference) -> None:
    with pytest.raises(ServedError, match="by their text"):
        score_served(serve(lambda body: echo(body, prefix="")), TOKENS, None, reference)
