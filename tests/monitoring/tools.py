"""Prometheus and promtool where there are any, and a Prometheus that watches one server."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.chaos.servers import free_port

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs/monitoring"
UNPACKED = ROOT / ".cache/prometheus/usr/bin"
MISSING = "no Prometheus on this machine; scripts/get-prometheus fetches Debian's"


def program(name: str) -> str | None:
    """On the PATH, or what scripts/get-prometheus has unpacked."""
    return shutil.which(name) or shutil.which(name, path=UNPACKED)


needs_prometheus = pytest.mark.skipif(not (program("prometheus") and program("promtool")), reason=MISSING)


def promtool(*arguments: object, text: str | None = None) -> tuple[int, str]:
    """Exit status and everything it said."""
    command = [program("promtool") or "promtool", *map(str, arguments)]
    done = subprocess.run(
        command,
        check=False,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


class Prometheus:
    """A running one. Questions raise where Prometheus answers with an error."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self.url = url

    async def _get(self, path: str, **parameters: str) -> Any:
        async with self._http.get(f"{self.url}/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        if answer["status"] != "success":
            raise ValueError(f"{parameters}: {answer['error']}")
        return answer["data"]

    async def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of every series of an instant query."""
        data = await self._get("query", query=expression)
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    async def rules(self) -> list[dict[str, Any]]:
        groups = (await self._get("rules"))["groups"]
        return [rule for group in groups for rule in group["rules"]]

    async def targets(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._get("targets"))["activeTargets"]
        return found

    async def firing(self) -> set[str]:
        alerts = (await self._get("alerts"))["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def configuration(target: str, interval: str) -> str:
    """The example of the documentation, pointed at ``target`` and faster."""
    text = (DOCS / "prometheus.yml").read_text()
    for old, new in (
        ("127.0.0.1:8000", target),
        ("interval: 15s", f"interval: {interval}"),
        ("alerts.yml", str(DOCS / "alerts.yml")),
    ):
        assert old in text
        text = text.replace(old, new)
    return text


@asynccontextmanager
async def prometheus(
    http: aiohttp.ClientSession, target: str, folder: Path, interval: str = "1s"
) -> AsyncIterator[Prometheus]:
    """Scrapes ``target`` (host:port) by the example's configuration; its files lie in ``folder``."""
    port = free_port()
    config = folder / "prometheus.yml"
    config.write_text(configuration(target, interval))
    with (folder / "prometheus.log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            program("prometheus") or "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        await _wait_ready(http, url, process)
        yield Prometheus(http, url)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _wait_ready(http: aiohttp.ClientSession, url: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(60):
        while process.returncode is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"{url}/-/ready") as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.1)
    raise RuntimeError(f"Prometheus ended with {process.returncode}")
