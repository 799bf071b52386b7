"""Model files, a catalog and stored prefixes that were made to do harm."""

from __future__ import annotations

import asyncio
import os
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.attack.arena import Arena
from tests.attack.case import Case, Outcome
from tests.attack.cases.templates import fuzz_output
from tests.chaos.servers import ServerProcess

_SMALL = ("--threads", 1, "--slots", 2)


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _header(*values: bytes, num_tensors: int = 0, num_values: int = -1, rest: bytes = b"") -> bytes:
    count = len(values) if num_values < 0 else num_values
    return b"GGUF" + struct.pack("<IQQ", 3, num_tensors, count) + b"".join(values) + rest


def _value(key: bytes, kind: int, data: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + data


_LLAMA = (
    _value(b"general.architecture", 8, _text(b"llama")),
    _value(b"llama.embedding_length", 4, struct.pack("<I", 64)),
)
_HEADS = b"llama.attention.head_count"
_FOUR = _value(_HEADS, 4, struct.pack("<I", 4))
_TITLE = b"\x1b]0;owned\x07"
_HEADERS: dict[str, Callable[[], bytes]] = {
    "2^63 layers": lambda: _header(
        *_LLAMA, _FOUR, _value(b"llama.block_count", 10, struct.pack("<Q", 2**63))
    ),
    "2*10^9 layers": lambda: _header(
        *_LLAMA, _FOUR, _value(b"llama.block_count", 4, struct.pack("<I", 2 * 10**9))
    ),
    "heads of mixed types": lambda: _header(
        *_LLAMA,
        _value(
            _HEADS,
            9,
            struct.pack("<IQ", 9, 2) + struct.pack("<IQI", 4, 1, 4) + struct.pack("<IQ", 8, 1) + _text(b"x"),
        ),
    ),
    "arrays 5,000 deep": lambda: _header(_value(b"a", 9, struct.pack("<IQ", 9, 1) * 5000)),
    "2M zero-filled tensors": lambda: _header(num_tensors=2**21, rest=bytes(70 * 2**20)),
    "2M zero-filled keys": lambda: _header(num_values=2**21, rest=bytes(70 * 2**20)),
    "a title in the name": lambda: _header(_value(b"general.name", 8, _text(_TITLE))),
}


async def _run(arena: Arena, *words: object, limit_s: float = 40) -> tuple[int, bytes, float]:
    """Exit status (-1: it hung), all that it printed, and processor seconds of it."""
    began = os.times()
    process = await asyncio.create_subprocess_exec(
        *arena.command(str(words[0]), *words[1:]),
        env=arena.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), limit_s)
    except TimeoutError:
        process.kill()
        output, _ = await process.communicate()
        return -1, output, limit_s
    ended = os.times()
    used = ended.children_user + ended.children_system - began.children_user - began.children_system
    return process.returncode or 0, output, used


def _is_tame(output: bytes) -> bool:
    """No traceback, and nothing that acts on a terminal."""
    return b"Traceback" not in output and not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", output)


async def headers(arena: Arena) -> Outcome:
    """Through both commands. What they need to start is taken off: both read a sound file first."""
    tried: dict[str, Path] = {}
    for number, (name, make) in enumerate(_HEADERS.items()):
        tried[name] = arena.folder / f"hostile-{number}.gguf"
        tried[name].write_bytes(make())
    tried["a FIFO"] = arena.folder / "pipe.gguf"
    os.mkfifo(tried["a FIFO"])
    _, _, start_s = await _run(arena, "rllm-models", "inspect", arena.model)
    bad: list[str] = []
    slowest = 0.0
    for name, path in tried.items():
        for command in (("rllm-models", "inspect", path), ("rllm-serve", "--port", 0, "--gguf", path)):
            status, output, used = await _run(arena, *command)
            slowest = max(slowest, used - start_s) if command[0] == "rllm-models" else slowest
            lines = len(output.strip().splitlines())
            wrong = (
                status < 0
                or not _is_tame(output)
                or (status != 0 and lines > 1 and command[0] == "rllm-models")
            )
            bad += [f"{command[0]} with {name}"] if wrong else []
    found = f"{len(bad)} of {2 * len(tried)} with a traceback, a hang or control characters"
    found += (
        f" ({', '.join(bad)})" if bad else f"; the slowest took {max(slowest, 0):.1f} s of processor time"
    )
    return Outcome(not bad and slowest < 1 * arena.slack, found, {"slowest_s": slowest})


async def aborting(arena: Arena) -> Outcome:
    """llama.cpp asserts that no token is there twice."""
    data = arena.model.read_bytes()
    once, twice = _text(b"he"), _text(b"th")
    assert once in data
    path = arena.folder / "aborting.gguf"
    path.write_bytes(data.replace(once, twice, 1))
    options = ("--gguf", arena.model, "--alias", "good", "--gguf", path, "--alias", "aborting")
    try:
        async with arena.server(*options, *_SMALL) as server:
            body = {"model": "good", "prompt": "once", "max_tokens": 2}
            async with arena.http.post(f"{server.url}/v1/completions", json=body) as response:
                return Outcome(response.status == 200, f"the sound model answered {response.status}")
    except Exception as error:
        return Outcome(False, f"the server did not start: {type(error).__name__}")


async def header_fuzz_few(arena: Arena) -> Outcome:
    return await fuzz_output(arena, "headers", 200, 80, "--model", arena.model)


async def header_fuzz(arena: Arena) -> Outcome:
    return await fuzz_output(arena, "headers", 2000, 200, "--model", arena.model)


async def catalog(arena: Arena) -> Outcome:
    """Somebody listens where pip would go, and says nothing."""
    asked: list[str] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append("asked")
        writer.close()

    server = await asyncio.start_server(hear, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    folder = arena.folder / "catalog"
    folder.mkdir()
    source = f'{{ kind = "package", package = "-rhttp://127.0.0.1:{port}/x", version = "1", member = "x" }}'
    (folder / "models.toml").write_text(f'[models.m]\nfile = "m.gguf"\nsource = {source}\n')
    status, output, _ = await _run(arena, "rllm-models", "--models-dir", folder, "pull", "m")
    server.close()
    lines = len(output.strip().splitlines())
    found = f"exit {status} with {lines} line(s); somebody {'was asked' if asked else 'was not asked'}"
    return Outcome(status == 1 and not asked and lines == 1, found)


async def parts(arena: Arena) -> Outcome:
    """A server that hangs up, then one that serves a page instead of a model."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 1000000\r\n\r\n' + bytes(1000))
        await writer.drain()
        writer.close()

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
        await writer.drain()
        writer.close()

    modes: list[str] = []
    for name, answer in (("cut", hang_up), ("page", page)):
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/{name}.gguf"
            await _run(arena, "rllm-models", "--models-dir", arena.folder, "pull", url, limit_s=90)
        part = arena.folder / f"{name}.gguf.part"
        modes.append(f"{part.stat().st_mode & 0o777:04o}" if part.exists() else "gone")
    return Outcome(modes == ["0600", "gone"], f"the cut download is {modes[0]}, the page is {modes[1]}")


async def prefixes(arena: Arena) -> Outcome:
    """What a server has stored is changed behind its back, each time with checksums that are right."""
    store = arena.folder / "store"
    options = (*_SMALL, "--prefix-store-mb", 64, "--prefix-store-dir", store, "--prefix-store-disk-mb", 64)
    async with arena.server(*options) as server:
        expected = [await _greedy(arena, server, prompt) for prompt in _PROMPTS]
        if not await _fill(arena, server, store):
            return Outcome(False, "nothing was stored to be changed")
    files = sorted(store.rglob("*.prefix"))
    _swap_states(files[0], files[1])
    _cut_a_token(files[0], files[0].with_name("0000ff01.prefix"))
    os.mkfifo(files[0].with_name("0000ff02.prefix"))
    try:
        async with arena.server(*options) as server:
            answers = [await _greedy(arena, server, prompt) for prompt in _PROMPTS]
            log = server.log.read_text(errors="replace").count("is deleted")
    except Exception as error:
        return Outcome(False, f"the server did not start again: {type(error).__name__}")
    wrong = sum(answer != wanted for answer, wanted in zip(answers, expected, strict=True))
    found = (
        f"started; {log} files deleted with a line; {wrong} of {len(_PROMPTS)} answers are others than before"
    )
    return Outcome(not wrong and log >= 2, found)


_SENTENCES = (
    "the man in the hat then ran and the rest ",
    "an inn there has the hen that the hare and ",
    "in the heat ",
)
_PROMPTS = tuple(sentence * 400 for sentence in _SENTENCES)


async def _greedy(arena: Arena, server: ServerProcess, prompt: str) -> str:
    body = {"prompt": prompt[:1500], "max_tokens": 24, "temperature": 0, "ignore_eos": True}
    async with arena.http.post(f"{server.url}/v1/completions", json=body) as response:
        answer: dict[str, Any] = await response.json()
        return str(answer["choices"][0]["text"])


async def _fill(arena: Arena, server: ServerProcess, store: Path) -> bool:
    """Ask in turns, for two slots and three prompts, until two of them are on disk."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        for prompt in _PROMPTS:
            await _greedy(arena, server, prompt)
        await asyncio.sleep(0.2)  # between requests is when prefixes are stored
        if len(list(store.rglob("*.prefix"))) >= 2:
            return True
    return False


_PREAMBLE = struct.Struct("<8sIII")


def _parts(path: Path) -> tuple[tuple[Any, ...], dict[str, Any], bytes]:
    data = path.read_bytes()
    preamble = _PREAMBLE.unpack_from(data)
    end = _PREAMBLE.size + preamble[2]
    return preamble, msgspec.msgpack.decode(data[_PREAMBLE.size : end]), data[end:]


def _put(path: Path, preamble: tuple[Any, ...], header: dict[str, Any], state: bytes) -> None:
    import zlib

    if "checksum" in header:  # of 1c41d18's files
        header["checksum"] = zlib.crc32(state)
    header["num_bytes"] = len(state)
    data = msgspec.msgpack.encode(header)
    path.write_bytes(_PREAMBLE.pack(*preamble[:2], len(data), zlib.crc32(data)) + data + state)


def _swap_states(first: Path, second: Path) -> None:
    one, other = _parts(first), _parts(second)
    _put(first, one[0], one[1], other[2])
    _put(second, other[0], other[1], one[2])


def _cut_a_token(source: Path, target: Path) -> None:
    preamble, header, state = _parts(source)
    header["tokens"] = header["tokens"][:-1]
    _put(target, preamble, header, state)


CASES = (
    Case(
        "headers",
        11,
        "seven hostile headers and a FIFO given to rllm-models inspect and rllm-serve",
        "one line each, in a second beyond the start, control characters escaped",
        "Tracebacks for four, over 15 s for two, a hang for the FIFO, and the title reached the terminal.",
        headers,
    ),
    Case(
        "aborting-file",
        11,
        "a second model on whose vocabulary llama.cpp aborts",
        "the first model is served, the second is named",
        "The API process aborted at the start, with a backtrace.",
        aborting,
    ),
    Case(
        "header-fuzz-few",
        11,
        "200 mutated headers through what inspect and a start read",
        "an answer or one line each, within 2 s, below 1 GiB, no traceback",
        "It hung or ended with a traceback early on.",
        header_fuzz_few,
    ),
    Case(
        "header-fuzz",
        11,
        "2,000 mutated headers through what inspect and a start read",
        "an answer or one line each, within 2 s, below 1 GiB, no traceback",
        "It hung or ended with a traceback early on.",
        header_fuzz,
        quick=False,
    ),
    Case(
        "catalog",
        12,
        "models.toml names a package `-rhttp://127.0.0.1/x`",
        "refused in one line, nobody is asked",
        "pip took it for an option and fetched it.",
        catalog,
    ),
    Case(
        "parts",
        12,
        "a download that is cut off, and a page in place of a model",
        "the part that is kept is private (0600), the page is removed",
        "The part was 0644 and the page stayed.",
        parts,
    ),
    Case(
        "stored-prefixes",
        13,
        "stored states swapped, a token cut in half and a FIFO, all checksums right",
        "the server starts, deletes what is not right with a line, and answers as before",
        "The half token kept the server from starting, the FIFO hung it, swapped states gave wrong answers.",
        prefixes,
    ),
)
