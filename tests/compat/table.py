"""What a row of the tables is: a behaviour that a peer's own tests ask of it, asked of this server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.compat.talk import Ask, Check, Server

Peer = Literal["llama.cpp", "vLLM", "Ollama"]
Which = Literal["plain", "guarded"]
"""``guarded``: with an API key and one allowed origin."""

FOLDERS: dict[Peer, str] = {"llama.cpp": "ggml-org/llama.cpp tools/server/tests/unit", "vLLM": "vllm-project/vllm tests/entrypoints", "Ollama": "ollama/ollama"}


@dataclass(frozen=True)
class Row:
    peer: Peer
    source: str
    """File and test, below the peer's folder."""
    says: str
    """The behaviour, in our words; with the source it names the row."""
    check: Callable[[Server], None]
    differs: str = ""
    """Why this server does otherwise. The row must fail then, and stands in docs/differences.md."""
    on: Which = "plain"

    @property
    def id(self) -> str:
        return f"{self.peer} {self.source}: {self.says}"


class Table:
    """The rows of one peer, in the order of its files."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.rows: list[Row] = []

    def row(self, source: str, says: str, ask: Ask, *checks: Check, differs: str = "", on: Which = "plain") -> None:
        """One question, and what must hold for its answer."""

        def run(server: Server) -> None:
            answer = ask(server)
            for check in checks:
                assert check(answer) is not False, f"{answer.status}: {answer.text[:600]}"

        self.rows.append(Row(self.peer, source, says, run, differs, on))

    def talk(self, source: str, says: str, *, differs: str = "", on: Which = "plain") -> Callable[[Callable[[Server], None]], Callable[[Server], None]]:
        """Several questions: decorates what asks and asserts."""

        def add(run: Callable[[Server], None]) -> Callable[[Server], None]:
            self.rows.append(Row(self.peer, source, says, run, differs, on))
            return run

        return add


@dataclass(frozen=True)
class LeftOut:
    """Tests of a peer that ask for something this suite is not about."""

    peer: Peer
    sources: str
    needs: str
