"""docs/differences.md, made from the tables: `python -m tests.compat.page > docs/differences.md`."""

from __future__ import annotations

from collections.abc import Iterator

from tests.compat import llama_server, ollama, vllm
from tests.compat.table import FOLDERS, Row

_TABLES = (llama_server, vllm, ollama)
_HEAD = """\
# Where we differ from llama-server, vLLM and Ollama

<!-- Made from tests/compat: python -m tests.compat.page > docs/differences.md -->

Their own tests of the OpenAI routes say what their users rely on. [tests/compat](../tests/compat) asks the same of
rllm: each row there names the test that it comes from. {held} of {count} rows hold ({share:.0f} %). The others stand
here, with the reason.
"""
_LEFT_OUT = """\
## Not asked

Tests that need something else than these routes, or are about how a server works inside.
"""


def page() -> str:
    rows = [row for module in _TABLES for row in module.TABLE.rows]
    held = sum(not row.differs for row in rows)
    parts = [_HEAD.format(held=held, count=len(rows), share=100 * held / len(rows))]
    for module in _TABLES:
        parts += _section(module.TABLE.rows)
    left_out = [one for module in _TABLES for one in module.LEFT_OUT]
    lines = ["| | tests | need |", "| --- | --- | --- |"]
    lines += [f"| {one.peer} | {one.sources} | {one.needs} |" for one in left_out]
    return "\n".join([*parts, _LEFT_OUT, *lines]) + "\n"


def _section(rows: list[Row]) -> Iterator[str]:
    peer = rows[0].peer
    held = sum(not row.differs for row in rows)
    yield f"## {peer}: {held} of {len(rows)}\n\nTests of `{FOLDERS[peer]}`.\n"
    yield "| there | the test | here |\n| --- | --- | --- |"
    for row in rows:
        if row.differs:
            yield f"| {row.says} | `{row.source}` | {row.differs} |"
    yield ""


if __name__ == "__main__":
    print(page(), end="")
