"""`rllm-serve top --once` against a server, and against what is none."""

from __future__ import annotations

import socket

from click.testing import CliRunner, Result
from fake_service import FakeService
from http_api import StartApi
from live_server import LiveServer

from rllm.api.app import create_app
from rllm.api.settings import ApiKey, ApiSettings
from rllm.cli import main
from rllm.observe.gpu import Gpus
from rllm.observe.metrics import Metrics


def top(*arguments: str, **env: str | None) -> Result:
    return CliRunner().invoke(main, ["top", "--once", *arguments], env={"RLLM_API_KEY": None, **env})


def refused(result: Result) -> str:
    assert result.exit_code == 1
    (line,) = result.output.strip().splitlines()
    return line


def serve(settings: ApiSettings | None = None) -> LiveServer:
    metrics = Metrics(Gpus())
    app = create_app(FakeService(), settings or ApiSettings(), render_metrics=metrics.render)
    return LiveServer(app)


def test_one_frame_is_shown() -> None:
    with serve() as server:
        result = top(server.url)
    assert result.exit_code == 0
    assert f"at {server.url}" in result.output


def test_a_key_is_sent_and_asked_for() -> None:
    with serve(ApiSettings(api_keys=(ApiKey.from_secret("a", "hunter2"),))) as server:
        assert "wants an API key" in refused(top(server.url))
        assert top(server.url, "--api-key", "hunter2").exit_code == 0
        assert top(server.url, RLLM_API_KEY="hunter2").exit_code == 0


def test_nobody_there_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert refused(top(f"127.0.0.1:{port}")) == (
        f"rllm-serve top: http://127.0.0.1:{port} does not answer: Connection refused"
    )


def test_another_server_is_recognised(start_api: StartApi) -> None:
    assert "not as rllm-serve does" in refused(top(start_api().url))


def test_options_of_the_server_are_refused() -> None:
    result = CliRunner().invoke(main, ["--slots", "3", "top", "--once"])
    assert result.exit_code == 2
    assert "--slots is for serving; top has options of its own" in result.output


def test_a_proxy_of_the_environment_is_not_asked() -> None:
    with serve() as server:
        result = top(server.url, http_proxy="http://127.0.0.1:9", no_proxy=None)
    assert result.exit_code == 0, result.output
