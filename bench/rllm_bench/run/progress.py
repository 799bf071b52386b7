"""A progress bar over estimated seconds: cells differ too much for counting them."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rllm_bench.records.cells import CellSpec
from rllm_bench.records.runs import RunRecord
from rllm_bench.records.store import Store
from rllm_bench.run.budget import Pace
from rllm_bench.run.console import printable


class Bar:
    """An Observer for a terminal; without one, it prints a line per cell."""

    def __init__(self, store: Store, run: RunRecord) -> None:
        self._store = store
        self._pace = Pace(run)
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        todo = [spec for spec in run.cells if not store.is_done(spec)]
        self._task = self._progress.add_task("planning", total=sum(map(self._weight, todo)))
        self._count, self._total, self._base = len(run.cells) - len(todo), len(run.cells), 0.0

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def _weight(self, spec: CellSpec) -> float:
        return self._pace.cell_s(spec)

    def cell_started(self, spec: CellSpec) -> None:
        self._count += 1
        self._progress.update(self._task, description=f"[{self._count}/{self._total}] {spec.id}")

    def cell_progress(self, spec: CellSpec, requests: int) -> None:
        part = min(1.0, requests / spec.num_requests) * self._weight(spec)
        self._progress.update(self._task, completed=self._base + part)

    def cell_finished(self, spec: CellSpec, error: str | None) -> None:
        self._base += self._weight(spec)
        self._progress.update(self._task, completed=self._base)
        if error is not None:
            self.note(f"{spec.id}: {error}")
        elif not self._console.is_terminal:
            self.note(f"[{self._count}/{self._total}] {spec.id} done")

    def note(self, text: str) -> None:
        self._progress.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)
