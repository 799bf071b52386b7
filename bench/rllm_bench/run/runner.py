"""Carries out a plan: servers up as it says, its cells measured, what is done already left alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rllm_bench.records.cells import CellSpec, failed_cell
from rllm_bench.records.runs import RunRecord
from rllm_bench.records.store import Store
from rllm_bench.run.budget import Pace
from rllm_bench.run.fleet import Fleet
from rllm_bench.run.measure import GeneratorFailed, measure
from rllm_bench.targets.base import Target, subject
from rllm_bench.targets.server import Server, ServerFailed


class CellFailed(Exception):
    """A cell could not be measured, and the run was not told to go on."""


class Observer(Protocol):
    """Hears how a run goes; a progress bar, or nothing."""

    def cell_started(self, spec: CellSpec) -> None: ...

    def cell_progress(self, spec: CellSpec, requests: int) -> None: ...

    def cell_finished(self, spec: CellSpec, error: str | None) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass
class Runner:
    store: Store
    targets: Sequence[Target]
    observer: Observer
    continue_on_error: bool = False
    generators: int | None = None
    deadline: float | None = None
    """On the monotonic clock: nothing is begun that would probably last longer."""
    parts: Sequence[str] = ()
    """Of the plan, to be measured this time; all where none is named."""
    left_out: list[str] = field(default_factory=list)
    """What did not fit into the time."""

    def run(self, only_repeat: int | None = None) -> None:
        """Measures every cell of the stored plan that is not done, or of one repeat those."""
        run = self.store.run()
        self.store.forget_partial()
        self._pace = Pace(run)
        with Fleet(self.store, self.observer.note) as fleet:
            for _, specs in itertools.groupby(run.cells, key=_block(run)):
                pending = [spec for spec in specs if self._is_wanted(spec)]
                if pending and only_repeat in (None, pending[0].repeat):
                    self._measure(run, fleet, pending)

    def _is_wanted(self, spec: CellSpec) -> bool:
        return not self.store.is_done(spec) and (not self.parts or spec.part in self.parts)

    def _measure(self, run: RunRecord, fleet: Fleet, pending: list[CellSpec]) -> None:
        """Cells that share their servers."""
        if run.hosting != "kept":
            fleet.stop_all()
        targets = [self._target(name) for name in dict.fromkeys(spec.subject for spec in pending)]
        settings = pending[0].settings or run.settings
        starts = sum(self._pace.start_s(target.engine) for target in fleet.missing(targets, settings))
        if not self._fits(starts + min(map(self._pace.cell_s, pending))):
            self.left_out += [f"{spec.id}: its servers' start needs {starts:.0f} s" for spec in pending]
            return
        servers: dict[str, Server] = {}
        for target in targets:
            try:
                servers[subject(target)] = fleet.start(target, settings)
            except (ServerFailed, OSError) as error:
                own = [spec for spec in pending if spec.subject == subject(target)]
                self._fail(own, f"the server failed: {error}")
        for spec in pending:
            if spec.subject in servers:
                self._cell(servers[spec.subject], spec)

    def _fits(self, seconds: float) -> bool:
        return self.deadline is None or time.monotonic() + seconds <= self.deadline

    def _target(self, name: str) -> Target:
        for target in self.targets:
            if subject(target) == name:
                return target
        raise CellFailed(f"the plan has {name}, which is not among the targets given now")

    def _cell(self, server: Server, spec: CellSpec) -> None:
        if not self._fits(needed := self._pace.cell_s(spec)):
            self.left_out.append(f"{spec.id}: needs about {needed:.0f} s")
            return
        if (ended := server.ended()) is not None:
            self._fail([spec], f"the server failed: {ended}")
            return
        self.observer.cell_started(spec)
        report: Callable[[int], None] = lambda count: self.observer.cell_progress(spec, count)  # noqa: E731
        began = time.monotonic()
        try:
            outcome = measure(self.store, server, spec, generators=self.generators, progress=report)
        except GeneratorFailed as error:
            self._fail([spec], str(error))
            return
        self.store.save(outcome.record, outcome.telemetry)
        self._pace.note(spec, time.monotonic() - began)
        self.observer.cell_finished(spec, None)

    def _fail(self, specs: list[CellSpec], reason: str) -> None:
        """Failed cells are recorded as such, so that the report names them; `--resume` tries them again."""
        self.store.forget_partial()
        if not self.continue_on_error:
            raise CellFailed(f"{specs[0].subject}: {reason}")
        for spec in specs:
            self.store.save(failed_cell(spec, reason), [])
            self.observer.cell_finished(spec, reason)


def _block(run: RunRecord) -> Callable[[CellSpec], object]:
    """What cells have in common that are measured with the same servers up."""
    match run.hosting:
        case "alone":
            return lambda spec: (spec.repeat, spec.subject, spec.part)
        case "together":
            return lambda spec: (spec.repeat, spec.settings)
        case "kept":
            return lambda spec: (spec.part, spec.settings)
