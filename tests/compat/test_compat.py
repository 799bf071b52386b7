"""The rows of the tables, asked of a real rllm-serve over a tiny random model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.server import running
from tests.compat import llama_server as llama
from tests.compat import ollama, page, vllm
from tests.compat.table import Row
from tests.compat.talk import KEY, ORIGIN, Server

ROWS = [*llama.TABLE.rows, *vllm.TABLE.rows, *ollama.TABLE.rows]


@pytest.fixture(scope="module")
def servers(tiny_model: Path) -> Iterator[dict[str, Server]]:
    common = ("--gguf", tiny_model, "--slots", "4", "--ctx-size", "256")
    names = ("--alias", "tiny", "--alias", "other", "--alias", "another")
    with ExitStack() as stack:
        plain = stack.enter_context(running(*common, *names, "--batch-size", "64", "--metrics-compat", "vllm"))
        more = ("--alias", "tiny", "--any-model-name", "--cors-origin", ORIGIN)
        guarded = stack.enter_context(running(*common, *more, RLLM_API_KEY=KEY))
        yield {"plain": Server(plain.port), "guarded": Server(guarded.port, KEY)}


def _param(row: Row) -> object:
    marks = [pytest.mark.xfail(reason=row.differs, strict=True)] if row.differs else []
    return pytest.param(row, marks=marks, id=row.id)


@pytest.mark.parametrize("row", [_param(row) for row in ROWS])
def test_row(row: Row, servers: dict[str, Server]) -> None:
    row.check(servers[row.on])


def test_rows_can_be_told_apart() -> None:
    names = [row.id for row in ROWS]
    assert sorted(names) == sorted(set(names))


def test_at_least_95_percent_of_the_rows_hold() -> None:
    assert sum(not row.differs for row in ROWS) >= 0.95 * len(ROWS)


def test_the_page_of_differences_is_up_to_date() -> None:
    docs = Path(__file__).parents[2] / "docs" / "differences.md"
    assert docs.read_text() == page.page(), "python -m tests.compat.page > docs/differences.md"
