"""Where the server listens: several addresses, IPv6 with brackets, Unix sockets; and what models go by."""

from __future__ import annotations

import http.client
import json
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from rllm.errors import StartError
from rllm.startup.listening import Address, address_of, listening
from tests.cli.server import running

SMALL = ("--slots", "2", "--ctx-size", "512", "--threads", "1")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Unix socket's path has at most 107 bytes."""
    return tmp_path_factory.mktemp("s")


def complete(connection: http.client.HTTPConnection, **more: Any) -> tuple[int, bytes]:
    body = json.dumps({"prompt": "a", "max_tokens": 4, "ignore_eos": True, **more})
    connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
    with connection.getresponse() as response:
        answer = response.status, response.read()
    connection.close()
    return answer


def test_two_addresses_and_a_unix_socket_at_once(tiny_model: Path, short: Path) -> None:
    path = short / "rllm.sock"
    with running(
        "--gguf", tiny_model, *SMALL, "--host", "127.0.0.1", "--host", "[::1]", "--uds", path
    ) as server:
        assert stat.S_ISSOCK(path.stat().st_mode)
        for connection in (
            http.client.HTTPConnection("127.0.0.1", server.port, timeout=30),
            http.client.HTTPConnection("::1", server.port, timeout=30),
            UnixConnection(path),
        ):
            status, body = complete(connection, stream=True)
            assert status == 200
            assert body.endswith(b"data: [DONE]\n\n")
        banner = "\n".join(server.lines)
        assert f"http://[::1]:{server.port}" in banner
        assert str(path) in banner
        server.process.terminate()
        assert server.exit_code() == 0
    assert not path.exists()


def test_a_unix_socket_alone_needs_no_key_and_no_port(tiny_model: Path, short: Path) -> None:
    path = short / "s"
    with running("--gguf", tiny_model, *SMALL, "--uds", path, ready=r'"event":"ready"') as server:
        assert complete(UnixConnection(path))[0] == 200
        behind_a_proxy = UnixConnection(path)
        behind_a_proxy.request("GET", "/v1/models", headers={"host": "example.org"})
        assert behind_a_proxy.getresponse().status == 200
        behind_a_proxy.close()
        assert f"--unix-socket {path} http://localhost/v1" in "\n".join(server.lines)


def test_a_socket_that_a_dead_server_left_is_taken_and_nothing_else(short: Path) -> None:
    path = short / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with listening((), 0, path) as (listener,):
        assert address_of(listener) == Address("http://localhost", str(path))
        with pytest.raises(StartError, match="another server listens there"), listening((), 0, path):
            pass
        assert path.exists()
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(StartError, match="it is no socket"), listening((), 0, path):
        pass
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("path", "message"), [("x" * 200, "too long"), ("none/s", "No such file"), ("/dev/null", "no socket")]
)
def test_a_socket_that_cannot_be_is_one_line(short: Path, path: str, message: str) -> None:
    with pytest.raises(StartError, match=message) as caught, listening((), 0, short / path):
        pass
    assert "\n" not in str(caught.value)


def test_all_addresses_take_the_same_port_and_both_families_may_be_open_to_all() -> None:
    with listening(("0.0.0.0", "::"), 0) as listeners:
        first, second = (listener.getsockname()[1] for listener in listeners)
        assert first == second


def test_a_model_answers_to_all_its_names_and_to_any_where_that_is_wanted(tiny_model: Path) -> None:
    def status(server: Any, model: str) -> int:
        return complete(server.connect(), model=model)[0]

    names = ("--alias", "small", "--alias", "gpt-4o-mini")
    with running("--gguf", tiny_model, *SMALL, *names) as server:
        assert [status(server, name) for name in ("small", "gpt-4o-mini", "tiny")] == [200, 200, 404]
        assert json.loads(server.get("/v1/models")[1])["data"][0]["aliases"] == ["gpt-4o-mini"]
    with running("--gguf", tiny_model, *SMALL, "--any-model-name") as server:
        assert status(server, "gpt-5.2") == 200
