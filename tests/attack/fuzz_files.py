"""Model files that nobody meant: ``python -m tests.attack.fuzz_files headers|templates --count N``.

Mutated headers go through what ``rllm-models inspect`` and a start of ``rllm-serve`` do before llama.cpp sees the
file; generated templates through what a chat request does. Each must end in an answer or in a refusal of ours of
one line. Prints what was seen as JSON, and each item before it is tried, so that one that hangs is known.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

Mutation = Callable[[random.Random, bytearray, int], None]
"""Changes a file whose header has so many bytes."""

_NUMBERS = (0, 1, 2, 3, 8, 9, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)


def _flip(rng: random.Random, data: bytearray, size: int) -> None:
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        data[rng.randrange(4, size)] ^= 1 << rng.randrange(8)


def _number(rng: random.Random, data: bytearray, size: int) -> None:
    """Somewhere an extreme number: often a length, a count or a type."""
    width = rng.choice((4, 8))
    at = rng.randrange(4, size - 8)
    data[at : at + width] = (rng.choice(_NUMBERS) % 256**width).to_bytes(width, "little")


def _value(rng: random.Random, data: bytearray, size: int) -> None:
    """The value of a known key becomes extreme, or its type another one."""
    keys = (b"block_count", b"head_count", b"context_length", b"embedding_length", b"architecture", b"tokens")
    at = data.find(rng.choice(keys), 0, size)
    end = data.find(b"\0", at) if at >= 0 else -1
    if end < 0:
        return _number(rng, data, size)
    if rng.random() < 0.3:
        data[end - 1 : end + 3] = struct.pack("<I", rng.randrange(14))
    else:
        data[end + 3 : end + 11] = struct.pack("<Q", rng.choice(_NUMBERS))
    return None


def _counts(rng: random.Random, data: bytearray, _size: int) -> None:
    at = rng.choice((8, 16))
    data[at : at + 8] = struct.pack("<Q", rng.choice(_NUMBERS))


def _cut(rng: random.Random, data: bytearray, size: int) -> None:
    del data[rng.randrange(size) :]


def _zeros(rng: random.Random, data: bytearray, size: int) -> None:
    """A hole, often up to the end of a larger file."""
    at = rng.randrange(4, size)
    if rng.random() < 0.5:
        data[at:] = bytes(2**22)
        data[8:24] = struct.pack("<QQ", rng.choice((1, 2**16, 2**21)), rng.choice((1, 2**16, 2**21)))
    else:
        data[at : at + rng.randrange(1, 4096)] = bytes(rng.randrange(1, 4096))


def _repeat(rng: random.Random, data: bytearray, size: int) -> None:
    """A part of the header once more, or many times."""
    at = rng.randrange(24, size)
    part = bytes(data[at : at + rng.randrange(1, 200)])
    data[at:at] = part * rng.choice((1, 2, 1000))


def _nested(rng: random.Random, data: bytearray, _size: int) -> None:
    depth = rng.choice((1, 2, 100, 5000, 100_000))
    key = struct.pack("<Q", 1) + b"n" + struct.pack("<I", 9)
    data[24:24] = key + struct.pack("<IQ", 9, 1) * depth
    data[16:24] = struct.pack("<Q", struct.unpack("<Q", data[16:24])[0] + 1)


def _garbage(rng: random.Random, data: bytearray, size: int) -> None:
    at = rng.randrange(4, size)
    data[at : at + 256] = rng.randbytes(rng.randrange(1, 512))


MUTATIONS: tuple[Mutation, ...] = (
    _flip, _flip, _number, _number, _value, _value, _counts, _cut, _zeros, _repeat, _nested, _garbage,
)  # fmt: skip


_ATOMS = (
    "messages", "messages[0]", "messages[0].content", "ns.a", "ns.b", "x", "i", "'a'", "'ab' * 999", "1", "0", "-1",
    "2.5", "99999", "2 ** 70", "[1, 2]", "[ns.a, ns.a]", "{'k': ns.b}", "none", "true", "loop.index", "tools", "nope",
    "range(99999)", "'%9999s'", "'{:>9999}'", "namespace(z=ns.a)", "cycler('a', 'b')", "joiner()", "m(1)", "dict(q=1)",
)  # fmt: skip
_FILTERS = (
    "tojson", "length", "list", "sort", "join(',')", "trim", "upper", "string", "int", "float", "first", "last",
    "reverse", "unique", "map('upper')", "map('center', 16000000)", "center(99999999)", "wordwrap(1)", "indent(9999)",
    "replace('', 'aaaaaaaa')", "format(1, 2)", "batch(3)", "slice(3)", "sum(start=[])", "tojson(indent=99999)", "e",
    "selectattr('role')", "groupby('role')", "attr('format')", "xmlattr", "urlize", "pprint", "random", "title",
    "default('d')", "dictsort", "items", "abs", "round(9)", "filesizeformat", "truncate(9)", "striptags",
)  # fmt: skip
_METHODS = (
    ".split('')", ".split('a')", ".join(['a', 'b'])", ".format(1)", ".format_map({'a': 1})", ".strip()", ".items()",
    ".ljust(99999999)", ".translate({97: 'b' * 9999})", ".zfill(99999999)", ".encode()", ".__class__", ".a", "[0]",
    "[::-1]", "['k']", ".append(1)", ".update({})", ".get('role')", ".startswith('a')", ".splitlines()", ".count('a')",
)  # fmt: skip
_BROKEN = (
    "{% for i in x %}" * 25 + "{% endfor %}" * 25,
    "{% if x %}" * 110 + "{% endif %}" * 110,
    "{{ " + "(" * 300 + "x" + ")" * 300 + " }}",
    "{{ " + "9" * 5000 + " }}",
    "{{ x | nofilter }}",
    "{% nothing %}",
    "{{ " + "x ~ " * 20_000 + "x }}",
)
_OPERATORS = ("+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "in", "not in", "and", "or", "is", "if")


class Templates:
    """Generates templates from what Jinja has, with a preference for what grows."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def template(self) -> str:
        text = "".join(self._statement(3) for _ in range(self._rng.randrange(1, 4)))
        if self._rng.random() < 0.1:
            text += self._rng.choice(_BROKEN)
        if self._rng.random() < 0.1:
            at = self._rng.randrange(len(text) + 1)
            text = text[:at] + self._rng.choice(("{%", "%}", "{{", "}}", "'", "(", "\0", "{#")) + text[at:]
        return (
            "{% set ns = namespace(a=[1], b='b', c=3) %}{% macro m(p) %}{{ p }}{{ ns.b }}{% endmacro %}"
            + text
        )

    def _statement(self, depth: int) -> str:
        inner = "x" if depth == 0 else self._statement(depth - 1)
        one, other = self._expression(2), self._expression(2)
        return self._rng.choice((
            f"{{{{ {one} }}}}",
            f"{{{{ {one} }}}}{inner}",
            f"{{% for i in {one} %}}{inner}{{% endfor %}}",
            f"{{% for i in range(60) %}}{{% set ns.a = [ns.a, ns.a] %}}{{% endfor %}}{{{{ {one} }}}}",
            f"{{% for i in range(60) %}}{{% set ns.b = ns.b ~ ns.b %}}{{% endfor %}}{inner}",
            "{% for i in range(99) %}{% set ns.c = ns.c * ns.c %}{% endfor %}{{ ns.c }}",
            f"{{% for i in range(99999) %}}{inner}{{% endfor %}}",
            f"{{% for i in [1] recursive %}}{{{{ loop({one}) }}}}{{% endfor %}}",
            f"{{% macro m(p) %}}{{{{ m({one}) }}}}{{% endmacro %}}{{{{ m(1) }}}}",
            f"{{% if {one} %}}{inner}{{% elif {other} %}}{inner}{{% else %}}{inner}{{% endif %}}",
            f"{{% set ns.a = {one} %}}{inner}",
            f"{{% set x = {one} %}}{{{{ x {self._rng.choice(_OPERATORS[:12])} {other} }}}}",
            f"{{% filter {self._rng.choice(_FILTERS)} %}}{inner}{{% endfilter %}}",
            f"{{% call m({one}) %}}{inner}{{% endcall %}}",
            f"{{{{ raise_exception({one}) }}}}",
            f"{{{{ strftime_now({one}) }}}}",
        ))  # fmt: skip

    def _expression(self, depth: int) -> str:
        rng = self._rng
        if depth == 0:
            return rng.choice(_ATOMS)
        inner = self._expression(depth - 1)
        return rng.choice((
            rng.choice(_ATOMS),
            f"({inner} {rng.choice(_OPERATORS[:14])} {self._expression(depth - 1)})",
            f"({inner} | {rng.choice(_FILTERS)})",
            f"({inner} | {rng.choice(_FILTERS)} | {rng.choice(_FILTERS)})",
            f"({inner}){rng.choice(_METHODS)}",
            f"[{inner}, {inner}]",
        ))  # fmt: skip


@dataclass
class Seen:
    ends: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    slowest: str = ""
    faults: list[str] = field(default_factory=list)

    def add(self, end: str, seconds: float, item: str) -> None:
        self.ends[end] += 1
        if seconds > self.slowest_s:
            self.slowest_s, self.slowest = seconds, item

    def figures(self) -> dict[str, Any]:
        mine, children = (
            resource.getrusage(who).ru_maxrss / 1024
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        return {**vars(self), "rss_mib": mine, "child_rss_mib": children}


def _refusal(error: Exception, seen: Seen, item: str) -> str:
    """The name of an error of ours that is one short line; else it is noted as a fault."""
    from rllm.errors import RllmError

    line = str(error)
    if isinstance(error, RllmError) and "\n" not in line and len(line) < 1000:
        return type(error).__name__
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    seen.faults.append(f"{item}: {type(error).__name__} at {where}: {line[:200]}")
    return "fault"


def mutated(path: Path, seed: int) -> Iterator[tuple[str, bytes]]:
    """Endlessly: what was done to the file, and the file."""
    whole = path.read_bytes()
    header = min(len(whole), 64 * 1024)
    for number in range(seed, sys.maxsize):
        rng = random.Random(number)
        data = bytearray(whole)
        chosen = [rng.choice(MUTATIONS) for _ in range(rng.choice((1, 1, 2)))]
        for mutation in chosen:
            if len(data) > 64:
                mutation(rng, data, min(header, len(data) - 16))
        yield f"{number} {'+'.join(mutation.__name__[1:] for mutation in chosen)}", bytes(data)


def _headers(model: Path, count: int, seed: int) -> Seen:
    from rllm.modelhub.inspecting import as_text, inspect
    from rllm.settings.model import ModelSettings
    from rllm.startup.preflight import check, check_memory

    seen = Seen()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutated.gguf"
        for (item, data), _ in zip(mutated(model, seed), range(count), strict=False):
            path.write_bytes(data)
            print(item, flush=True)
            began = time.monotonic()
            try:
                found = inspect(path)
                json.dumps(found.kv_bytes_per_token)
                as_text(found)
                settings = ModelSettings(gguf=path)
                check_memory([check(settings)], 2**34, "memory")
                end = "read"
            except Exception as error:
                end = _refusal(error, seen, item)
            seen.add(end, time.monotonic() - began, item)
    return seen


_ENDS = ("is broken", "takes too long", "too much memory", "refuses", "ends its process", "fails")
"""What becomes of a chat, in the words of its error."""


def _tokenizer() -> tuple[Any, dict[str, str]]:
    """Of the version under attack, and what its ``chat`` is told as well."""
    from rllm.api.settings import ApiSettings
    from rllm.api.text import tokenizing

    kind: Any = tokenizing.Tokenizer
    limit_s = ApiSettings().render_timeout_s
    try:
        from rllm.api.http.fair_threads import FairThreads
    except ImportError:  # 1c41d18
        return kind(threads=2, render_timeout_s=limit_s), {}
    return kind(FairThreads(2), render_timeout_s=limit_s), {"caller": "fuzz"}


async def _templates(count: int, seed: int) -> Seen:
    from rllm.api.text.messages import Chat, Message
    from rllm.backends.fake.vocabulary import FakeVocabulary
    from rllm.engine.types import ModelInfo
    from rllm.serving.service import ServedModel

    info = ModelInfo(**{**dict.fromkeys(ModelInfo.__struct_fields__, 1), "ctx_per_slot": 4096})
    roles = ("system", "user", "assistant", "user")
    chat = Chat(messages=[Message(role=role, text=f"{role} says hi </think> <|im_end|>") for role in roles])
    seen = Seen()
    tokenizer, terms = _tokenizer()
    for number in range(count):
        source = Templates(random.Random(seed + number)).template()

        class Vocabulary(FakeVocabulary):
            chat_template = source  # type: ignore[assignment]

        model = ServedModel("fuzzed", (), 0, info, Vocabulary())
        print(f"{seed + number} {source}", flush=True)
        try:
            await tokenizer.warm(model)
        except Exception as error:
            _refusal(error, seen, f"warm {number}")
        began = time.monotonic()
        try:
            await tokenizer.chat(model, chat, **terms)
            end = "rendered"
        except Exception as error:
            if (end := _refusal(error, seen, f"{seed + number}")) != "fault":
                end = next((words for words in _ENDS if words in str(error)), end)
        seen.add(end, time.monotonic() - began, source)
    if asyncio.iscoroutine(closing := tokenizer.close()):
        await closing
    return seen


@click.command()
@click.argument("what", type=click.Choice(["headers", "templates"]))
@click.option("--model", type=click.Path(path_type=Path), help="Whose header is mutated.")
@click.option("--count", default=100, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(what: str, model: Path | None, count: int, seed: int) -> None:
    if what == "headers":
        assert model is not None
        seen = _headers(model, count, seed)
    else:
        seen = asyncio.run(_templates(count, seed))
    print(json.dumps(seen.figures()))


if __name__ == "__main__":
    main()
