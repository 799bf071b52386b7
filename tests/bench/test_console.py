"""What a caller of `rllm-bench` learns on the console and by the exit status, and whom it asks."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rllm_bench.cli import main
from rllm_bench.quality.served import ServedError, score_served
from rllm_bench.run import prometheus
from tests.bench.conftest import Delay

DEAD = "http://127.0.0.1:9"  # the port "discard": nobody listens
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture
def broken_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever heeds the environment reaches nobody."""
    for name in PROXIES:
        monkeypatch.setenv(name, DEAD)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def matrix(url: str, out: Path, *more: str) -> Result:
    words = f"matrix --preset smoke --url {url} --out {out} --name run --warmups 0 --output-tokens 4"
    loads = "--prompt-tokens 8 --concurrency 1 --min-requests 3 --no-report"
    return CliRunner().invoke(main, [*words.split(), *loads.split(), *more])


@pytest.mark.usefixtures("broken_proxy")
def test_a_proxy_of_the_environment_is_never_asked(delay: Callable[..., Delay], tmp_path: Path) -> None:
    """Readiness, model list, load and metrics: the first three would fail the run."""
    server = delay(ttft_s=0.01, tpot_s=0.001)
    result = matrix(server.url, tmp_path)
    assert result.exit_code == 0, result.output
    assert len(server.served()) == 3


@pytest.mark.usefixtures("broken_proxy")
def test_metrics_and_quality_are_asked_for_directly(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.settimeout(10)
        assert prometheus.scrape(url, timeout_s=0.1) == {}
        listener.accept()[0].close()  # it came here, and did not hear an answer
    with pytest.raises(ServedError, match="refused"):
        score_served(url, [], None, None)  # type: ignore[arg-type]  # it fails before it looks at them


def test_a_run_without_one_answer_fails_and_says_the_kind(
    delay: Callable[..., Delay], tmp_path: Path
) -> None:
    result = matrix(delay(status=400).url, tmp_path)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "Error: url/served-c1-p8-o4-r0: none of 3 requests succeeded "
        '(3 http_400; the first: {"error": {"message": "refused"}})'
    )


def test_one_good_answer_is_a_result(delay: Callable[..., Delay], tmp_path: Path) -> None:
    assert matrix(delay(ttft_s=0.01, tpot_s=0.001).url, tmp_path).exit_code == 0


def test_a_target_that_cannot_run_is_named_before_and_after(
    delay: Callable[..., Delay], tmp_path: Path
) -> None:
    more = ("--targets", "url,vllm", "--vllm-python", str(tmp_path / "none"))
    result = matrix(delay(ttft_s=0.01, tpot_s=0.001).url, tmp_path, *more)
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    said = [i for i, line in enumerate(lines) if line.startswith("vllm/f16 cannot be measured here: ")]
    assert said == [0, len(lines) - 1]


@pytest.mark.slow
def test_a_knee_without_one_answer_fails(delay: Callable[..., Delay], tmp_path: Path) -> None:
    words = f"knee --url {delay(status=503).url} --out {tmp_path} --start-rate 20 --probe-s 1"
    result = CliRunner().invoke(main, [*words.split(), "--prompt-tokens", "8", "--output-tokens", "4"])
    assert result.exit_code == 1
    assert "http_503" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "localhost", "ftp://here", "http://", "http://[::1"])
@pytest.mark.parametrize(
    "command",
    [
        ("matrix",),
        ("knee",),
        ("sweep", "--param", "slots=1"),
        ("quality", "--reference", __file__, "-o", "x"),
    ],
)
def test_an_address_without_a_scheme_is_refused_at_once(command: tuple[str, ...], url: str) -> None:
    result = CliRunner().invoke(main, [*command, "--url", url])
    assert result.exit_code == 2
    assert f"{url!r} is no address such as http://127.0.0.1:8000" in result.output
