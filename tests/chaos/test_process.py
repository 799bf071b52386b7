"""The program itself: keys that are read again, a second signal, and what the metrics say afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from pathlib import Path

import aiohttp

from tests.chaos.asking import ask, body
from tests.chaos.servers import rllm


def _write_keys(path: Path, **secrets: str) -> None:
    tables = [
        f'[[keys]]\nname = "{name}"\nsha256 = "{hashlib.sha256(secret.encode()).hexdigest()}"\nrequests_per_min = 2\n'
        for name, secret in secrets.items()
    ]
    path.write_text("".join(tables))


async def test_keys_are_read_again_on_sighup_and_a_broken_file_changes_nothing(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "keys.toml"
    _write_keys(path, team="one")

    async def status(http: aiohttp.ClientSession, url: str, secret: str) -> int:
        return (await ask(http, url, body("hi", 4), headers={"authorization": f"Bearer {secret}"})).status

    async def reload(log: Path, event: bytes, pid: int) -> None:
        before = log.read_bytes().count(event)
        os.kill(pid, signal.SIGHUP)
        async with asyncio.timeout(20):
            while log.read_bytes().count(event) == before:
                await asyncio.sleep(0.02)

    async with aiohttp.ClientSession() as http:
        options = ("--gguf", tiny_model, "--slots", 2, "--ctx-size", 256, "--threads", 1, "--keys-file", path)
        async with rllm(http, *options) as server:
            pid = server.process.pid
            assert [await status(http, server.url, key) for key in ("one", "two")] == [200, 401]
            path.write_text("[[keys]]")
            await reload(server.log, b'"reload failed"', pid)
            assert await status(http, server.url, "one") == 200
            assert await status(http, server.url, "one") == 429
            _write_keys(path, other="two")
            await reload(server.log, b'"reloaded"', pid)
            assert [await status(http, server.url, key) for key in ("one", "two")] == [401, 200]
            assert b"one" not in server.log.read_bytes()


async def test_a_second_signal_ends_it_at_once(tiny_model: Path) -> None:
    async with aiohttp.ClientSession() as http:
        options = ("--gguf", tiny_model, "--slots", 2, "--ctx-size", 4096, "--threads", 1)
        async with rllm(http, *options) as server:
            long = asyncio.create_task(ask(http, server.url, body("go on", 4000)))
            async with asyncio.timeout(30):
                while await server.metric(http, "rllm_sequences_in_flight") == 0:
                    await asyncio.sleep(0.02)
            workers = server.worker_pids
            server.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                while b'"stopping"' not in server.log.read_bytes():
                    await asyncio.sleep(0.02)
            server.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                assert await server.process.wait() == 128 + signal.SIGTERM
            async with asyncio.timeout(2):  # the kernel ends them, each when its turn comes
                while any(Path(f"/proc/{pid}/stat").exists() and _is_alive(pid) for pid in workers):
                    await asyncio.sleep(0.02)
            assert not (await long).is_whole


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


async def test_what_the_drain_cuts_ends_with_a_typed_event(tiny_model: Path) -> None:
    async with aiohttp.ClientSession() as http:
        options = (
            "--gguf",
            tiny_model,
            "--slots",
            2,
            "--ctx-size",
            8192,
            "--threads",
            1,
            "--drain-timeout-s",
            0.3,
        )
        async with rllm(http, *options) as server:
            long = asyncio.create_task(ask(http, server.url, body("go on", 8000)))
            async with asyncio.timeout(30):
                while await server.metric(http, "rllm_sequences_in_flight") == 0:
                    await asyncio.sleep(0.02)
            assert await server.terminate() == 0
            answer = await long
            assert (answer.code, answer.failure) == ("server_shutting_down", None)
