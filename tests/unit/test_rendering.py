"""Chat templates are files from strangers: whatever one does, it does to a process that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from rllm.api.text.rendering.__main__ import MEMORY_BYTES
from rllm.api.text.rendering.frames import Load
from rllm.api.text.rendering.renderer import MAX_TEMPLATE_BYTES, Renderer
from rllm.errors import BadRequest, Overloaded

TIMEOUT_S = 0.5
FORMATS = Path(__file__).parents[1] / "formats" / "templates"
ECHO = "{{ messages[0].content }}"
DOUBLED = (
    "{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
    "{% set ns.m = [ns.m, ns.m] %}{% endfor %}"
)
BOMBS = {
    "nested lists compared": DOUBLED + "{{ ns.l == ns.m }}",
    "nested lists shown": DOUBLED + "{{ ns.l }}",
    "nested lists as JSON": DOUBLED + "{{ ns.l | tojson }}",
    "nested lists sorted": DOUBLED + "{{ [ns.l, ns.m] | sort }}",
    "nested lists as a key": DOUBLED + "{{ [ns.l] | unique | list }}{{ ns.l in [ns.m] }}",
    "a width in a format": "{{ '%9999s' % 1 }}" * 2 + "{{ ('%999999999s' | format('a')) | length }}" * 99,
    "a width that is given": "{{ '{:{}}'.format(1, 999999999) }}",
    "a width in format": "{{ '{:999999999}'.format(1) }}",
    "a width in format_map": "{{ '{x:999999999}'.format_map({'x': 1}) }}",
    "format by its name": "{{ ('{:999999999}' | attr('format'))(1) }}",
    "centred by map": "{{ ['a'] * 9999 | map('center', 16000000) | list | length }}",
    "centred": "{% for i in range(99999) %}{% set x = i | string | center(99999999) %}{% endfor %}",
    "wordwrap": "{{ ('a ' * 9999999) | wordwrap(1) | length }}",
    "translate": "{{ (('a' * 99999) * 99).translate({97: 'b' * 9999}) | length }}",
    "powers": "{{ (9 ** 387420489) % 7 }}",
    "products": "{% set ns = namespace(x=9) %}{% for i in range(99) %}"
    "{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a sum of lists": "{{ [[[1] * 9999] * 9999] | sum(start=[]) | sum(start=[]) | length }}",
    "text that doubles": "{% set ns = namespace(x='a') %}{% for i in range(60) %}"
    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "a repeated text": "{{ 'a' * 9999999999 }}",
    "a replaced text": "{{ ('a' * 9999999).replace('', 'b' * 9999) | length }}",
    "a long date": "{% for i in range(9999) %}{{ strftime_now('%c' * 99999) | length }}{% endfor %}",
    "output": "{% for i in range(99999) %}0123456789{% endfor %}",
    "a call without end": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "recursion": "{% for i in range(9) recursive %}{{ loop([1]) }}{% endfor %}",
}
BROKEN = {
    "not a template": "{% for %}",
    "a number of 5,000 digits (ValueError)": "{{ " + "9" * 5000 + " }}",
    "25 nested loops (SyntaxError)": "{% for a in b %}" * 25 + "{% endfor %}" * 25,
    "110 nested ifs (IndentationError)": "{% if a %}" * 110 + "{% endif %}" * 110,
    "5,000 brackets (RecursionError)": "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    "200,000 nots": "{{ " + "not " * 50_000 + "x }}",
    "a constant that does not fit (MemoryError)": "{{ ['a'] * 99999999999 }}" * 2 + "{% for %}",
    "a filter that is none": "{{ 'a' | nosuchfilter }}",
    "a constant that takes for ever": "{{ ('a' * 9999999) | wordwrap(1) | length }}" * 9 + "{% for %}",
    "too long": "{#" + "x" * MAX_TEMPLATE_BYTES + "#}",
    "half a surrogate pair": "{{ 'a' }}\ud800",
}
Make = Callable[..., Renderer]


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Make]:
    made: list[Renderer] = []

    def renderer(source: str, *, timeout_s: float = TIMEOUT_S) -> Renderer:
        load = Load(source, "<s>", "</s>", ("<s>", "</s>", "<|im_end|>"))
        made.append(Renderer(load, timeout_s=timeout_s, name="test"))
        return made[-1]

    yield renderer
    for renderer_ in made:
        await renderer_.close()
    assert not children()


def children() -> list[psutil.Process]:
    """Rendering processes of this one."""
    return [p for p in psutil.Process().children() if "rllm.api.text.rendering" in p.cmdline()]


async def text(renderer: Renderer, content: str = "hi", *, max_chars: int = 1000, **variables: Any) -> str:
    messages = [{"role": "user", "content": content}]
    pieces = await renderer.render({"messages": messages, **variables}, without_bos=True, max_chars=max_chars)
    return "".join(piece.text for piece in pieces)


async def _ticks(gaps: list[float]) -> None:
    """The longest silence of this event loop, at the end of ``gaps``."""
    while True:
        began = time.perf_counter()
        await asyncio.sleep(0.005)
        gaps.append(time.perf_counter() - began)


@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb_hurts_its_own_process(make: Make, name: str) -> None:
    """The request ends as a bad one, the event loop goes on, and another model's chat is served meanwhile."""
    bomb, other = make(BOMBS[name]), make(ECHO)
    await other.prepare()
    gaps: list[float] = []
    ticking = asyncio.create_task(_ticks(gaps))
    exploding = asyncio.create_task(text(bomb))
    began = time.perf_counter()
    while not exploding.done():
        assert await text(other) == "hi"
        await asyncio.sleep(0.01)
    assert time.perf_counter() - began < 20
    with pytest.raises(BadRequest) as refused:
        await exploding
    # Output beyond the context is a chat that is too long, whoever made it so.
    too_long = name in ("a width in a format", "output")
    assert refused.value.code == ("context_length_exceeded" if too_long else "chat_template_error")
    ticking.cancel()
    assert max(gaps) < 1.0


@pytest.mark.parametrize("name", BROKEN)
async def test_a_template_that_does_not_compile_is_broken(make: Make, name: str) -> None:
    renderer = make(BROKEN[name])
    with pytest.raises(BadRequest, match="the model's chat template is broken: ") as refused:
        await renderer.prepare()
    assert refused.value.code == "chat_template_error"
    assert "\n" not in str(refused.value)
    assert not children()
    with pytest.raises(BadRequest, match="broken"):
        await text(renderer)


async def test_after_a_kill_the_next_request_is_served(make: Make) -> None:
    renderer = make(
        "{% if messages[0].content == 'boom' %}" + BOMBS["nested lists compared"] + "{% endif %}" + ECHO
    )
    for _ in range(2):
        with pytest.raises(BadRequest, match="too long"):
            await text(renderer, "boom")
        assert await text(renderer) == "hi"


async def test_a_process_that_died_is_replaced_unnoticed(make: Make) -> None:
    renderer = make(ECHO)
    await renderer.prepare()
    [child] = children()
    child.kill()
    while child.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110 - another process is watched by asking
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.001)
    assert await text(renderer) == "hi"


async def test_only_the_processors_time_counts_against_a_template(make: Make) -> None:
    """On a busy machine a harmless chat waits; it is not refused."""
    renderer = make(ECHO)
    await renderer.prepare()
    [child] = children()
    child.suspend()
    asking = asyncio.create_task(text(renderer))
    await asyncio.sleep(3 * TIMEOUT_S)
    assert not asking.done()
    child.resume()
    assert await asking == "hi"


async def test_a_request_whose_process_dies_is_told_so(make: Make) -> None:
    renderer = make(BOMBS["nested lists compared"], timeout_s=20)
    await renderer.prepare()
    [child] = children()
    asking = asyncio.create_task(text(renderer))
    await asyncio.sleep(0.05)
    child.kill()
    with pytest.raises(BadRequest, match="ends its process"):
        await asking


async def test_the_process_has_nothing_of_ours(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor, no key from the environment, no place in our process group; little memory; no core."""
    monkeypatch.setenv("RLLM_API_KEY", "secret")
    renderer = make(ECHO)
    mine, theirs = os.pipe()
    os.set_inheritable(theirs, True)
    await renderer.prepare()
    [child] = children()
    assert sorted(map(int, os.listdir(f"/proc/{child.pid}/fd"))) == [0, 1, 2]  # noqa: PTH208
    os.close(mine)
    os.close(theirs)
    assert "RLLM_API_KEY" not in child.environ()
    assert os.getpgid(child.pid) != os.getpgid(0)
    assert child.rlimit(psutil.RLIMIT_AS) == (MEMORY_BYTES, MEMORY_BYTES)
    assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert child.rlimit(psutil.RLIMIT_CPU)[0] != psutil.RLIM_INFINITY


async def test_whoever_leaves_disturbs_nobody(make: Make) -> None:
    renderer = make(ECHO)
    await renderer.prepare()
    [child] = children()
    leaving = [asyncio.create_task(text(renderer)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in leaving[::2]:
        task.cancel()
    answers = await asyncio.gather(*leaving, return_exceptions=True)
    assert answers[1::2] == ["hi"] * 10
    assert [p.pid for p in children()] == [child.pid]


async def test_the_shortest_goes_first(make: Make) -> None:
    renderer = make("{% for m in messages %}{{ m.content }}{% endfor %}", timeout_s=5)
    done: list[int] = []

    async def one(length: int) -> None:
        await text(renderer, "x" * length, max_chars=10**6)
        done.append(length)

    await asyncio.gather(*(one(length) for length in (300_000, 2_000, 100_000, 10)))
    assert done == [10, 2_000, 100_000, 300_000]


async def test_where_no_process_can_be_had_a_request_may_come_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = make(ECHO)
    with monkeypatch.context() as patch:
        patch.setattr("rllm.api.text.rendering.process.sys.executable", "/nonexistent/python")
        with pytest.raises(Overloaded) as refused:
            await text(renderer)
    assert refused.value.retry_after_s
    assert await text(renderer) == "hi"


async def test_a_refusal_is_in_the_templates_own_words(make: Make) -> None:
    renderer = make("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(BadRequest, match="refuses these messages: roles must alternate"):
        await text(renderer)
    with pytest.raises(BadRequest, match="fails on these messages"):
        await text(make("{{ messages[7].content.x() }}"))


async def test_variables_may_be_any_json(make: Make) -> None:
    renderer = make("{{ tools | tojson }}{{ level }}{{ thinking }}")
    tools = [{"name": "f", "parameters": {"type": "object", "x": [1, 2.5, None, True, {"é": 2**63}]}}]
    expected = json.dumps(tools, ensure_ascii=False) + "lowFalse"
    assert await text(renderer, tools=tools, level="low", thinking=False) == expected
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(BadRequest):
        await text(renderer, tools=deep)
    assert await text(renderer, tools=[], level=1, thinking=1) == "[]11"


async def test_a_template_knows_the_time_of_its_zone(make: Make) -> None:
    assert await text(make("{{ strftime_now('%Y-%m-%d') }}")) == time.strftime("%Y-%m-%d")


async def test_how_a_model_calls_is_found_in_the_process_of_its_template(make: Make) -> None:
    template = (FORMATS / "Qwen-Qwen3-0.6B.jinja").read_text()
    form = await make(template).form()
    assert str(form.tools) == "<tool_call> JSON, parallel, from the template"
    assert form.reasoning is not None
    assert form.reasoning.end.strip() == "</think>"


async def test_a_template_that_takes_too_long_to_be_asked_has_the_generic_format(
    make: Make,
) -> None:
    renderer = make("{% if tools %}" + BOMBS["nested lists compared"] + "{% endif %}" + ECHO)
    assert (await renderer.form()).tools.source == "generic"
    assert await text(renderer) == "hi"


async def test_a_broken_template_has_no_format(make: Make) -> None:
    with pytest.raises(BadRequest, match="broken"):
        await make(BROKEN["not a template"]).form()
