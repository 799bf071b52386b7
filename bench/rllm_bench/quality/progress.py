"""One progress bar per task, on a terminal; a line per finished task elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rllm_bench.quality.reference import Progress as Report


class Bars:
    def __init__(self) -> None:
        self._console = Console(stderr=True)

    @contextmanager
    def task(self, name: str) -> Iterator[Report]:
        """The reporter takes (done, total); without a terminal it says nothing until the end."""
        if not self._console.is_terminal:
            yield lambda _done, _total: None
            self._console.print(f"done: {name}")
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=self._console) as bar:
            row = bar.add_task(name, total=None)
            yield lambda done, total: bar.update(row, completed=done, total=total)
