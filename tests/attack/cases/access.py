"""Who gets in, what a caller can learn of others, and what the server's processes know."""

from __future__ import annotations

import asyncio
import hashlib
import re
import signal
import time
from pathlib import Path
from typing import Any

import orjson

from tests.attack.arena import Arena
from tests.attack.case import Case, Outcome
from tests.attack.raw import connected, read_answer
from tests.chaos.servers import ServerProcess

_SMALL = ("--threads", 1, "--slots", 2)
_SECRETS = {"RLLM_API_KEY": "hunter2", "HF_TOKEN": "hunter3", "OTEL_EXPORTER_OTLP_HEADERS": "key=hunter4"}


def _keys(arena: Arena, *names: str, **secrets: str) -> Path:
    """A keys file; a key's secret is its name unless given."""
    path = arena.folder / "keys.toml"
    pairs = {**{name: name for name in names}, **secrets}
    digests = {name: hashlib.sha256(secret.encode()).hexdigest() for name, secret in pairs.items()}
    path.write_text("".join(f'[[keys]]\nname = "{n}"\nsha256 = "{d}"\n' for n, d in digests.items()))
    return path


async def _get(server: ServerProcess, path: str, *headers: bytes) -> int:
    lines = [f"GET {path} HTTP/1.1".encode(), b"host: localhost", *headers, b"", b""]
    if any(header.startswith(b"host:") for header in headers):
        lines.remove(b"host: localhost")
    async with connected(server.port) as (reader, writer):
        writer.write(b"\r\n".join(lines))
        async with asyncio.timeout(20):
            return (await read_answer(reader))[0]


async def _complete(
    arena: Arena, server: ServerProcess, key: str, body: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    url = f"{server.url}/v1/completions"
    async with arena.http.post(url, data=orjson.dumps(body), headers=headers) as response:
        return response.status, orjson.loads(await response.read())


async def _starts(arena: Arena, *options: object, **env: str) -> bool:
    """Whether a server with these options is there after a while, rather than refusing to start."""
    process = await asyncio.create_subprocess_exec(
        *arena.command("rllm-serve", "--gguf", arena.model, "--port", 0, *_SMALL, *options),
        env=arena.environment(env),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while line := await process.stdout.readline():
                if b"is ready at" in line:
                    return True
        return False
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def empty_key(arena: Arena) -> Outcome:
    toml = arena.folder / "empty.toml"
    toml.write_text('api_key = ""\n')
    digest = hashlib.sha256(b"").hexdigest()
    keys = arena.folder / "nothing.toml"
    keys.write_text(f'[[keys]]\nname = "a"\nsha256 = "{digest}"\n')
    host = ("--host", "0.0.0.0")
    tried = {
        "a flag": await _starts(arena, *host, "--api-key", ""),
        "a blank flag": await _starts(arena, *host, "--api-key", " "),
        "a file": await _starts(arena, *host, "--config", toml, "--allow-insecure"),
        "a blank variable": await _starts(arena, *host, "--allow-insecure", RLLM_API_KEY=" "),
        "an empty variable": await _starts(arena, *host, "--allow-insecure", RLLM_API_KEY=""),
        "the digest of nothing": await _starts(arena, *host, "--keys-file", keys),
    }
    opened = [how for how, started in tried.items() if started]
    return Outcome(
        not opened, f"{len(opened)} of {len(tried)} opened a server: {', '.join(opened) or 'none'}"
    )


async def key_forms(arena: Arena) -> Outcome:
    """Keys beyond ASCII, and requests with two keys."""
    keys = _keys(arena, "one", umlaut="zwölf")
    async with arena.server(*_SMALL, "--keys-file", keys) as server:
        right = {
            "UTF-8": await _get(server, "/v1/models", "authorization: Bearer zwölf".encode()),
            "Latin-1": await _get(server, "/v1/models", "authorization: Bearer zwölf".encode("latin-1")),
            "x-api-key": await _get(server, "/v1/models", b"x-api-key: one"),
        }
        wrong = {
            "two headers": await _get(server, "/v1/models", *[b"authorization: Bearer one"] * 2),
            "a second, wrong one": await _get(
                server, "/v1/models", b"authorization: Bearer one", b"authorization: Bearer no"
            ),
            "keys of two callers": await _get(
                server, "/v1/models", b"authorization: Bearer one", "x-api-key: zwölf".encode()
            ),
            "nothing after Bearer": await _get(server, "/v1/models", b"authorization: Bearer "),
        }
    kept = set(right.values()) == {200} and set(wrong.values()) == {401}
    return Outcome(kept, ", ".join(f"{form}: {status}" for form, status in {**right, **wrong}.items()))


async def passphrase(arena: Arena) -> Outcome:
    """What one key has asked, found word by word by another from what it finds computed."""
    words = ["anchor", "bishop", "copper", "damsel", "ember", "falcon", "garnet", "harbor"]
    secret = ["falcon", "bishop", "harbor"]
    keys = _keys(arena, "victim", "thief")

    async def cached(server: ServerProcess, key: str, text: str) -> int:
        _, answer = await _complete(arena, server, key, {"prompt": text, "max_tokens": 1, "temperature": 0})
        count: int = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        return count

    start = "The passphrase of the vault, which nobody else may ever know, is"
    async with arena.server("--threads", 1, "--slots", 4, "--keys-file", keys) as server:
        whole = " ".join([start, *secret])
        await cached(server, "victim", whole)
        own = await cached(server, "victim", whole)
        began = time.monotonic()
        seen = await cached(server, "thief", start)
        first_s = time.monotonic() - began
        found: list[str] = []
        for _ in secret:
            guesses = {
                word: await cached(server, "thief", " ".join([start, *found, word, "x"])) for word in words
            }
            found.append(max(guesses, key=lambda word: guesses[word]))
    kept = seen == 0 and found != secret and own > 0
    return Outcome(
        kept,
        f"the thief found {seen} tokens computed and read {' '.join(found)!r}; the victim's own: {own}",
        {"thief_cached_tokens": seen, "thief_s": first_s},
    )


async def rebinding(arena: Arena) -> Outcome:
    async with arena.server(*_SMALL) as server:
        pages = {
            host: await _get(server, "/v1/models", b"host: " + host.encode())
            for host in (
                "evil.example",
                f"evil.example:{server.port}",
                "127.0.0.1.evil.example",
                "localhost.evil.example",
            )
        }
        ours = {
            host: await _get(server, "/v1/models", b"host: " + host.encode())
            for host in ("localhost", f"127.0.0.1:{server.port}", "[::1]", "app.localhost")
        }
    kept = set(pages.values()) == {403} and set(ours.values()) == {200}
    return Outcome(kept, ", ".join(f"{host}: {status}" for host, status in {**pages, **ours}.items()))


async def environment(arena: Arena) -> Outcome:
    async with arena.server(*_SMALL, "--open-metrics", env=_SECRETS) as server:
        known = [Path(f"/proc/{pid}/environ").read_bytes() for pid in server.worker_pids]
    told = [name for name, value in _SECRETS.items() if any(value.encode() in each for each in known)]
    return Outcome(bool(known) and not told, f"{len(known)} workers know {', '.join(told) or 'none of them'}")


async def user_signals(arena: Arena) -> Outcome:
    async with arena.server(*_SMALL) as server:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            if server.process.returncode is None:
                server.process.send_signal(number)
            await asyncio.sleep(0.3)
        ended = server.process.returncode
        status = await _get(server, "/health") if ended is None else 0
    return Outcome(status == 200, f"ended by {-ended}" if ended is not None else f"/health: {status}")


async def names_of_keys(arena: Arena) -> Outcome:
    keys = _keys(arena, "caller", "competitor")
    header = {"authorization": "Bearer caller"}
    told = []
    async with arena.server(*_SMALL, "--keys-file", keys) as server:
        for path in ("/metrics", "/v1/rllm/state"):
            async with arena.http.get(server.url + path, headers=header) as response:
                if response.status == 200:
                    told.append(f"{path}{' with names' if b'competitor' in await response.read() else ''}")
    return Outcome(not told, f"a caller's key reads {', '.join(told) or 'neither'}")


async def priority(arena: Arena) -> Outcome:
    async with arena.server(*_SMALL) as server:
        status, answer = await _complete(arena, server, "", {"prompt": "a", "max_tokens": 1, "priority": -5})
    message = answer.get("error", {}).get("message", "nothing was said")
    return Outcome(status == 400 and "priority" in message, f"{status}: {message}")


async def foreign_scripts(arena: Arena) -> Outcome:
    async with arena.server(*_SMALL) as server:
        async with arena.http.get(f"{server.url}/docs") as response:
            page, policy = await response.text(), response.headers.get("content-security-policy", "none")
    hosts = sorted(set(re.findall(r"https?://([^/\"']+)", page)))
    kept = not hosts and "default-src 'none'" in policy
    return Outcome(kept, f"other hosts: {', '.join(hosts) or 'none'}; policy: {policy[:18]}")


async def locks(arena: Arena) -> Outcome:
    """Static: what an index that lies could bring in."""
    root = arena.app.parent
    bare = [
        line
        for path in root.glob("requirements*.lock")
        for line in path.read_text().splitlines()
        if "==" in line and not line.endswith("\\")
    ]
    setup = "".join(
        (root / "scripts" / name).read_text()
        for name in ("setup", "pinned")
        if (root / "scripts" / name).exists()
    )
    isolated = "--no-build-isolation" not in setup
    kept = not bare and "--require-hashes" in setup and not isolated
    free = "free" if isolated else "pinned"
    return Outcome(kept, f"{len(bare)} packages without a hash, build requirements {free}")


CASES = (
    Case(
        "empty-key",
        5,
        "a server for other machines is started with a key of nothing: by flag, file, variable, keys file",
        "refused at start, every time",
        "`--api-key ''` was a key: `Authorization: Bearer ` got 200.",
        empty_key,
    ),
    Case(
        "passphrase",
        9,
        "a key guesses word by word what another key has asked, by the tokens it finds computed",
        "nothing is found computed",
        "A passphrase of five words was found in 80 requests; 215 ms against 3,845 ms.",
        passphrase,
        real=True,
    ),
    Case(
        "rebinding",
        10,
        "a web page calls a keyless server on loopback by the page's own name",
        "403; loopback names get 200",
        "Every Host was answered.",
        rebinding,
    ),
    Case(
        "worker-environment",
        14,
        "the environment of workers is read for the server's secrets",
        "none of them is there",
        "Workers inherited RLLM_API_KEY.",
        environment,
    ),
    Case(
        "user-signals",
        14,
        "SIGUSR1 and SIGUSR2 to the API process",
        "it serves on",
        "SIGUSR1 ended it.",
        user_signals,
    ),
    Case(
        "names-of-keys",
        14,
        "a caller's key asks for the metrics and the live state",
        "403: they are for operators' keys",
        "Every key's name was in /metrics for every key.",
        names_of_keys,
    ),
    Case(
        "key-forms",
        14,
        "keys beyond ASCII in both encodings, x-api-key, two headers, keys of two callers",
        "one right key is found, two are refused",
        "UTF-8 keys never matched; of two Authorization headers the first one counted.",
        key_forms,
    ),
    Case(
        "priority-beyond",
        14,
        "a request asks for a priority beyond its key's own",
        "400 that names it",
        "It was clamped without a word.",
        priority,
    ),
    Case(
        "docs-scripts",
        14,
        "the page /docs is looked through for other hosts",
        "none, and a policy that allows none",
        "It loaded its script from a CDN.",
        foreign_scripts,
    ),
    Case(
        "locks",
        15,
        "the locks are looked through for what an index could replace",
        "every file has a hash, builders too",
        "requirements.lock had no hashes; the source was built with free requirements.",
        locks,
    ),
)
