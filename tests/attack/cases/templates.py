"""Chat templates that hold the interpreter, do not compile, or were never meant."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import orjson

from tests.attack.arena import Arena
from tests.attack.case import Case, Outcome
from tests.chaos.circumstances import ROOT
from tests.chaos.servers import ServerProcess
from tests.tinymodel import write_tiny_model

_DOUBLED = (
    "{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
    "{% set ns.m = [ns.m, ns.m] %}{% endfor %}"
)
_BOMBS = {
    "compare": _DOUBLED + "{{ ns.l == ns.m }}",
    "show": _DOUBLED + "{{ ns.l }}",
    "tojson": _DOUBLED + "{{ ns.l | tojson }}",
    "sort": _DOUBLED + "{{ [ns.l, ns.m] | sort }}",
    "translate": "{{ ('a' * 9999999).translate({97: 'b' * 9999}) | length }}",
    "wordwrap": "{{ ('a ' * 9999999) | wordwrap(1) | length }}",
    "format": "{% for i in range(99999) %}{{ ('%9999s' | format(i)) | length }}{% endfor %}",
    "map": "{{ ['a'] * 9999 | map('center', 16000000) | list | length }}",
    "width": "{{ '{:999999999}'.format(1) | length }}",
    "width by name": "{{ ('{:999999999}' | attr('format'))(1) | length }}",
}
_BROKEN = {
    "5,000 digits": "{{ " + "9" * 5000 + " }}",
    "25 nested loops": "{% for a in b %}" * 25 + "{% endfor %}" * 25,
    "110 nested ifs": "{% if a %}" * 110 + "{% endif %}" * 110,
    "5,000 brackets": "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    "a megabyte": "{#" + "x" * 2**20 + "#}",
}
_SMALL = ("--threads", 1, "--slots", 2)


def _all_bombs() -> str:
    """One template: the first word of a conversation chooses."""
    branches = [
        f"{{% if messages[0].content == '{word}' %}}{bomb}{{% endif %}}" for word, bomb in _BOMBS.items()
    ]
    return "".join(branches) + "{{ messages[0].content }}"


async def _chat(arena: Arena, server: ServerProcess, model: str, content: str) -> tuple[int, str, float]:
    """Status, message of the error, and seconds."""
    body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 2}
    began = time.monotonic()
    async with arena.http.post(f"{server.url}/v1/chat/completions", json=body) as response:
        answer = orjson.loads(await response.read())
        message = str(answer.get("error", {}).get("message", ""))
        return response.status, message, time.monotonic() - began


async def _completes(arena: Arena, server: ServerProcess, model: str) -> bool:
    body = {"model": model, "prompt": "once", "max_tokens": 2}
    async with arena.http.post(f"{server.url}/v1/completions", json=body) as response:
        return response.status == 200


async def bombs(arena: Arena) -> Outcome:
    hostile = write_tiny_model(arena.folder / "hostile.gguf", chat_template=_all_bombs())
    good = ("--gguf", arena.model, "--alias", "good", "--gguf", hostile, "--alias", "hostile")
    async with arena.server(*good, *_SMALL) as server:
        async with arena.beside(server) as beside:
            ends = await asyncio.gather(
                *(asyncio.wait_for(_chat(arena, server, "hostile", word), 60) for word in _BOMBS)
            )
            well = await _chat(arena, server, "hostile", "hello")
            neighbour = await _chat(arena, server, "good", "hello")
        began = time.monotonic()
        server.process.terminate()
        await asyncio.wait_for(server.process.wait(), 30)
        ended_s = time.monotonic() - began
    refused = [status in (400, 503) for status, _, _ in ends]
    slowest = max(seconds for _, _, seconds in ends)
    found = (
        f"{sum(refused)} of {len(refused)} refused, the last after {slowest:.1f} s; then chats answered with"
        f" {well[0]} and {neighbour[0]}, SIGTERM took {ended_s:.1f} s; {beside}"
    )
    kept = all(refused) and well[0] == neighbour[0] == 200 and ended_s < 5 * arena.slack and beside.kept
    return Outcome(kept, found, {"slowest_s": slowest, **beside.figures})


async def broken(arena: Arena) -> Outcome:
    options: list[object] = ["--gguf", arena.model, "--alias", "good"]
    for number, source in enumerate(_BROKEN.values()):
        path = write_tiny_model(arena.folder / f"broken-{number}.gguf", chat_template=source)
        options += ["--gguf", path, "--alias", f"broken-{number}"]
    async with arena.server(*options, *_SMALL) as server:
        names = [f"broken-{number}" for number in range(len(_BROKEN))]
        ends = [await _chat(arena, server, name, "hello") for name in names]
        completed = [await _completes(arena, server, name) for name in names]
        neighbour = await _chat(arena, server, "good", "hello")
    named = [status == 400 and "chat template is broken: " in message for status, message, _ in ends]
    found = (
        f"{sum(named)} of {len(named)} chats were told that the template is broken, {sum(completed)} of these"
        f" models complete texts; a sound model's chat got {neighbour[0]}"
    )
    return Outcome(all(named) and all(completed) and neighbour[0] == 200, found)


async def fuzz_output(arena: Arena, what: str, count: int, limit_s: float, *options: object) -> Outcome:
    """`tests.attack.fuzz_files` on the version under attack, with an end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.attack.fuzz_files", what, "--count", str(count), *map(str, options)),
        cwd=ROOT,
        env=arena.environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=1024 * 1024,  # of a line, which names the template
    )
    assert process.stdout is not None
    lines: list[bytes] = []
    try:
        async with asyncio.timeout(limit_s):
            async for line in process.stdout:
                lines.append(line)  # what came before a hang is wanted
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        return Outcome(False, f"hung at number {len(lines)} of {count}")
    if process.returncode != 0:
        return Outcome(False, f"ended with {process.returncode} at number {len(lines)} of {count}")
    seen = json.loads(lines[-1])
    memory = max(seen["rss_mib"], seen["child_rss_mib"])
    ends = ", ".join(f"{number} {end}" for end, number in sorted(seen["ends"].items()))
    found = f"{ends}; {len(seen['faults'])} tracebacks, slowest {seen['slowest_s']:.2f} s, at most {memory:.0f} MiB"
    if seen["faults"]:
        found += f"; first: {seen['faults'][0]}"
    kept = not seen["faults"] and seen["slowest_s"] <= 2 * arena.slack and memory < 1024
    return Outcome(kept, found, {"slowest_s": seen["slowest_s"], "memory_mib": memory})


async def fuzz_few(arena: Arena) -> Outcome:
    return await fuzz_output(arena, "templates", 25, 80)


async def fuzz(arena: Arena) -> Outcome:
    return await fuzz_output(arena, "templates", 500, 280)


CASES = (
    Case(
        "template-bombs",
        3,
        "a second model's template compares, shows, sorts and formats without end: ten ways at once",
        "each chat is refused in seconds; that model's next chat and everybody else are served",
        "The whole server froze for ever: /health/live dead, SIGTERM ignored.",
        bombs,
        real=True,
    ),
    Case(
        "broken-templates",
        3,
        "five models whose templates do not compile, beside a sound one",
        "their chats say that the template is broken; their completions and the sound model work",
        "ValueError, SyntaxError and IndentationError ended the start.",
        broken,
    ),
    Case(
        "template-fuzz-few",
        3,
        "25 generated templates, a chat with each",
        "an answer or one line each, within 2 s, below 1 GiB, no traceback",
        "It hung at one of the first.",
        fuzz_few,
    ),
    Case(
        "template-fuzz",
        3,
        "500 generated templates, a chat with each",
        "an answer or one line each, within 2 s, below 1 GiB, no traceback",
        "It hung at one of the first.",
        fuzz,
        quick=False,
    ),
)
