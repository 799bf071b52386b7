"""A running server, three faults in an order that nobody is told, and somebody who must name them.

    scripts/faults [--fault-s 150] [--calm-s 60]

Prints where the server, its log and (where there is one) a Prometheus are, and then only when something is wrong.
Which fault it was lies in a file that is not to be opened before the verdict; its checksum is printed first, so that
nobody can change the one for the other. Read RUNBOOK.md, 'Slow, and nobody knows why', and name them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import click
import orjson

from tests.chaos.faults import FAULTS, Scene, ordinary_traffic, running
from tests.chaos.servers import LOGS, ServerProcess, rllm
from tests.monitoring.tools import MISSING, program, prometheus

ROOT = Path(__file__).parents[2]
OPTIONS = ("--replicas", 2, "--threads", 1, "--slots", 8, "--ctx-size", 1024, "--kv-cells", 2048)


def say(text: str) -> None:
    click.echo(f"{datetime.now(UTC):%H:%M:%S} {text}")


def seal(path: Path, answer: dict[str, Any]) -> str:
    """Write the answer with something that cannot be guessed; the checksum of the file."""
    text = json.dumps({**answer, "nonce": secrets.token_hex(16)})
    path.write_text(text)
    path.chmod(0o600)
    return hashlib.sha256(text.encode()).hexdigest()


def workers(server: ServerProcess) -> dict[str, int]:
    """Instances and their processes, as the log says."""
    lines = [line for line in server.log.read_bytes().splitlines() if b'"worker ready"' in line]
    return {event["instance"]: event["pid"] for event in map(orjson.loads, lines)}


@asynccontextmanager
async def _watched(http: aiohttp.ClientSession, server: ServerProcess, folder: Path) -> AsyncIterator[None]:
    if program("prometheus") is None:
        say(f"prometheus: {MISSING}")
        yield
        return
    async with prometheus(http, f"127.0.0.1:{server.port}", folder, interval="2s") as watcher:
        say(f"prometheus: {watcher.url}")
        yield


async def play(model: Path, folder: Path, *, fault_s: float, calm_s: float, rate: float) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(600)) as http:
        async with rllm(http, "--gguf", model, *OPTIONS) as server:
            chance = random.SystemRandom()
            order = chance.sample(list(FAULTS), len(FAULTS))
            victim, pid = chance.choice(sorted(workers(server).items()))
            say(f"server: {server.url}, log {server.log}, options {' '.join(map(str, OPTIONS))}")
            sealed = folder / "sealed.json"
            say(f"sealed: {sealed}, sha256 {seal(sealed, {'order': order, 'victim': victim})}")
            scene = Scene(http, server, random.Random(secrets.randbits(64)))
            async with _watched(http, server, folder), running(ordinary_traffic(scene, rate)):
                for number, name in enumerate(order, start=1):
                    say("all is well")
                    await asyncio.sleep(calm_s)
                    say(f"fault {number} begins")
                    async with running(FAULTS[name](scene, pid)):
                        await asyncio.sleep(fault_s)
                    say(f"fault {number} is over")
                await asyncio.sleep(calm_s)
            say(f"the end; the answer is in {sealed}")


@click.command(help=__doc__)
@click.option("--model", type=click.Path(path_type=Path, exists=True), default=ROOT / "models/q4.gguf")
@click.option("--fault-s", default=150.0, show_default=True, help="How long each fault lasts.")
@click.option("--calm-s", default=60.0, show_default=True, help="How long all is well before each.")
@click.option("--rate", default=1.0, show_default=True, help="Ordinary requests a second.")
def main(model: Path, fault_s: float, calm_s: float, rate: float) -> None:
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    os.environ[LOGS] = str(folder)  # the log is to be read, also afterwards
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(play(model, folder, fault_s=fault_s, calm_s=calm_s, rate=rate))


if __name__ == "__main__":
    main()
