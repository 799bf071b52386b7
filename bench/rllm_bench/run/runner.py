"""Carries out a plan: servers started in turn, their cells measured, what is done already left alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from rllm_bench.records.cells import CellSpec, failed_cell
from rllm_bench.records.runs import RunRecord
from rllm_bench.records.store import Store
from rllm_bench.run.measure import GeneratorFailed, measure
from rllm_bench.run.plan import estimate_s
from rllm_bench.targets.base import Target, subject
from rllm_bench.targets.server import Server, ServerFailed, running


class CellFailed(Exception):
    """A cell could not be measured, and the run was not told to go on."""


class Observer(Protocol):
    """Hears how a run goes; a progress bar, or nothing."""

    def cell_started(self, spec: CellSpec) -> None: ...

    def cell_progress(self, spec: CellSpec, requests: int) -> None: ...

    def cell_finished(self, spec: CellSpec, error: str | None) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass(frozen=True)
class Runner:
    store: Store
    targets: Sequence[Target]
    observer: Observer
    continue_on_error: bool = False
    generators: int | None = None

    def run(self, only_repeat: int | None = None) -> None:
        """Measures every cell of the stored plan that is not done, or of one repeat those."""
        run = self.store.run()
        self.store.forget_partial()
        for (repeat, name), specs in itertools.groupby(
            run.cells, key=lambda spec: (spec.repeat, spec.subject)
        ):
            pending = [spec for spec in specs if not self.store.is_done(spec)]
            if pending and only_repeat in (None, repeat):
                self._block(run, self._target(name), pending)

    def _target(self, name: str) -> Target:
        for target in self.targets:
            if subject(target) == name:
                return target
        raise CellFailed(f"the plan has {name}, which is not among the targets given now")

    def _block(self, run: RunRecord, target: Target, specs: list[CellSpec]) -> None:
        """Cells that share one server."""
        log = self.store.folder / "logs" / f"{subject(target).replace('/', '_')}.log"
        self.observer.note(f"starting {subject(target)}")
        try:
            with running(target, run.settings, log, self.store.vocabulary().end_tokens) as server:
                for spec in specs:
                    self._cell(server, spec)
        except (ServerFailed, OSError) as error:
            left = [spec for spec in specs if not self.store.is_done(spec)]
            self._fail(target, left, f"the server failed: {error}")

    def _cell(self, server: Server, spec: CellSpec) -> None:
        self.observer.cell_started(spec)
        report: Callable[[int], None] = lambda count: self.observer.cell_progress(spec, count)  # noqa: E731
        try:
            outcome = measure(self.store, server, spec, generators=self.generators, progress=report)
        except GeneratorFailed as error:
            self._fail(server.target, [spec], str(error))
            return
        self.store.save(outcome.record, outcome.telemetry)
        self.observer.cell_finished(spec, None)

    def _fail(self, target: Target, specs: list[CellSpec], reason: str) -> None:
        """Failed cells are recorded as such, so that the report names them; `--resume` tries them again."""
        self.store.forget_partial()
        if not self.continue_on_error:
            raise CellFailed(f"{subject(target)}: {reason}")
        for spec in specs:
            self.store.save(failed_cell(spec, reason), [])
            self.observer.cell_finished(spec, reason)


def remaining_s(store: Store) -> float:
    """Estimated time of the cells that are not done."""
    run = store.run()
    sizes = {known.name: known.model_bytes for known in run.subjects}
    return sum(estimate_s(spec, sizes.get(spec.subject)) for spec in run.cells if not store.is_done(spec))
