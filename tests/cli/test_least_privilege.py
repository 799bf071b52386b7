"""What the processes of a running server know and what outsiders' signals can do to them."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path
from typing import Any

from tests.cli.server import RunningServer, running

SMALL = ("--slots", "2", "--ctx-size", "512", "--threads", "1")


def post(server: RunningServer, key: str, body: dict[str, Any]) -> dict[str, Any]:
    connection = server.connect()
    headers = {"content-type": "application/json", "x-api-key": key}
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    with connection.getresponse() as response:
        answer: dict[str, Any] = json.loads(response.read())
    connection.close()
    return answer


def test_workers_know_no_secret_of_the_server(tiny_model: Path) -> None:
    secrets = {"RLLM_API_KEY": "hunter2", "HF_TOKEN": "hunter3", "OTEL_EXPORTER_OTLP_HEADERS": "key=hunter4"}
    with running("--gguf", tiny_model, *SMALL, OMP_NUM_THREADS="1", **secrets) as server:
        (worker,) = server.workers()
        environment = worker.environ()
        assert environment["OMP_NUM_THREADS"] == "1"
        assert not {
            name for name, value in environment.items() if "hunter" in value or name.startswith("RLLM_")
        }
        assert post(server, "hunter2", {"prompt": "a", "max_tokens": 1})["choices"]


def test_user_signals_end_neither_the_server_nor_its_workers(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL) as server:
        server.signal(signal.SIGUSR2)
        server.signal(signal.SIGUSR1)
        server.wait_for("most recent call first")  # where every thread stands
        assert server.get("/health")[0] == 200
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0


def test_what_one_key_has_asked_is_computed_again_for_another(tiny_model: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(
        "".join(
            f'[[keys]]\nname = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n'
            for name in ("one", "two")
        )
    )
    body = {"prompt": "the passphrase of the vault is correct horse battery", "max_tokens": 1}

    def cached(server: RunningServer, key: str) -> int:
        count: int = post(server, key, body)["usage"]["prompt_tokens_details"]["cached_tokens"]
        return count

    with running("--gguf", tiny_model, *SMALL, "--keys-file", keys) as server:
        assert [cached(server, key) for key in ("one", "two")] == [0, 0]
        assert cached(server, "one") > 0
    with running("--gguf", tiny_model, *SMALL, "--keys-file", keys, "--share-prefixes") as server:
        assert cached(server, "one") == 0
        assert cached(server, "two") > 0


def test_a_server_on_loopback_is_called_by_loopback_names(tiny_model: Path) -> None:
    def status(server: RunningServer, host: str, **headers: str) -> int:
        connection = server.connect()
        connection.request("GET", "/v1/models", headers={"host": host, **headers})
        code = connection.getresponse().status
        connection.close()
        return code

    with running("--gguf", tiny_model, *SMALL) as server:
        assert status(server, f"localhost:{server.port}") == 200
        assert status(server, "rebound.example") == 403
    with running("--gguf", tiny_model, *SMALL, "--allowed-hosts", "*.example") as server:
        assert status(server, "rebound.example") == 200
        assert status(server, "rebound.test") == 403
    with running("--gguf", tiny_model, *SMALL, "--api-key", "k") as server:  # a page has no key
        assert status(server, "behind-a-proxy.test", authorization="Bearer k") == 200
