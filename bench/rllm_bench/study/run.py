"""Carries out pieces: what is done stays done, what does not fit into the time is left out and said."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from rllm_bench.figures import cost, metrics
from rllm_bench.load.workload import Workload
from rllm_bench.records import environment, vocabulary
from rllm_bench.records.cells import CellSpec, failed_cell
from rllm_bench.records.runs import RunRecord, Settings, Subject
from rllm_bench.records.store import Store
from rllm_bench.run import plan
from rllm_bench.run.measure import GeneratorFailed, measure
from rllm_bench.run.subjects import describe
from rllm_bench.study import crash
from rllm_bench.study.fleet import Fleet, log_tail
from rllm_bench.study.pace import START_S, Pace
from rllm_bench.study.pieces import FLAVOURS, Piece, split
from rllm_bench.study.subjects import Configured, Places, target
from rllm_bench.study.warm import warm_prefix
from rllm_bench.targets.base import subject
from rllm_bench.targets.server import Server

_RESERVE_S = 12.0
"""Kept for stopping the servers and packing the records."""
_LOG_BYTES = 200_000


@dataclass
class Study:
    """One invocation. ``work`` keeps the records until all is packed into ``out``."""

    work: Path
    out: Path
    places: Places
    deadline: float
    """On the monotonic clock."""
    seed: int = 1
    repeats: int | None = None
    commit: str | None = None
    without: tuple[str, ...] = ()
    """Engines that are not measured this time."""
    peer: tuple[str, ...] = ()
    """Flavours of llama-server where a piece does not name any."""
    pace: Pace = field(default_factory=Pace)
    hashes: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def run(self, pieces: Sequence[Piece]) -> None:
        fleet = Fleet(self.work / "logs")
        try:
            for piece in pieces:
                began = time.monotonic()
                self._piece(piece, fleet)
                click.echo(f"== {piece.name}: {time.monotonic() - began:.0f} s, {self._left_s():.0f} s left")
                self.pack()
        finally:
            fleet.close()
            self.pack()
        for reason in self.left_out:
            click.echo(f"left out: {reason}")

    def _left_s(self) -> float:
        return self.deadline - time.monotonic() - _RESERVE_S

    # --- a piece --------------------------------------------------------------------------------

    def _piece(self, piece: Piece, fleet: Fleet) -> None:
        targets = self.targets(piece)
        for absent in (t for t in targets if t.missing()):
            self.left_out.append(f"{piece.name}: {subject(absent)}: {absent.missing()}")
        targets = [t for t in targets if not t.missing()]
        if not targets:
            return
        store = self._store(piece, targets)
        run = store.run()
        pending = [spec for spec in run.cells if not store.is_done(spec)]
        wanted = [t for t in targets if any(spec.subject == subject(t) for spec in pending)]
        end_tokens = store.vocabulary().end_tokens
        starts = sum(START_S.get(t.engine, 10.0) for t in fleet.to_start(wanted, run.settings, end_tokens))
        click.echo(f"== {piece.name}: {piece.what}; {len(pending)} cells to measure")
        if pending and self._left_s() < starts + min(map(self.pace.cell_s, pending)):
            self.left_out.append(
                f"{piece.name}: {self._left_s():.0f} s left, its servers' start needs {starts:.0f} s"
            )
            return
        if pending:
            servers, failed = fleet.bring_up(wanted, run.settings, end_tokens)
            for spec in pending:
                if spec.subject in failed:
                    self._record_failure(store, spec, failed[spec.subject])
            self._cells(piece, store, servers, fleet)
            (store.folder / "servers.json").write_bytes(
                msgspec.json.format(msgspec.json.encode(fleet.about()), indent=1)
            )
            if piece.kills:
                self._kill(piece, store, servers)

    def targets(self, piece: Piece) -> list[Configured]:
        found = [
            target(name, self.places, self.peer) for name in piece.subjects if not self._is_skipped(name)
        ]
        return [t for t in found if t is not None]

    def _is_skipped(self, name: str) -> bool:
        return split(name)[0] in self.without

    def _store(self, piece: Piece, targets: Sequence[Configured]) -> Store:
        store = Store(self.work / piece.name)
        run = self._plan(piece, targets)
        if store.exists():
            store.forget_partial()
            store.forget_failed()
            known = store.run()
            if known.settings != run.settings or any(spec not in known.cells for spec in run.cells):
                raise click.ClickException(
                    f"{store.folder} was planned otherwise; move it away to begin anew"
                )
            return store
        models = [t.model for t in targets if t.model is not None and t.model.exists()]
        models += sorted(self.places.models.glob("*.gguf"))  # of one shape, and with one vocabulary
        if not models:
            raise click.ClickException(f"{piece.name}: no model file in {self.places.models}")
        words = vocabulary.from_gguf(models[0])
        store.create(msgspec.structs.replace(run, vocabulary=words.digest), words)
        return store

    def _plan(self, piece: Piece, targets: Sequence[Configured]) -> RunRecord:
        machine = environment.describe()
        if self.commit:
            machine["git"] = {"commit": self.commit, "dirty": False}
        price = cost.price(None, None, machine)
        return RunRecord(
            name=piece.name,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            command=environment.command_line().replace("rllm-bench", "scripts/gpu-study", 1),
            preset="gpu-study",
            settings=Settings(slots=piece.slots, ctx_per_slot=piece.ctx),
            subjects=(subjects := [describe(t, lambda path: self.hashes.get(path.name)) for t in targets]),
            cells=cells(piece, subjects, self.repeats or piece.repeats, self.seed),
            slos=plan.DEFAULT_SLOS,
            price_per_hour=price.per_hour if price else None,
            price_source=price.source if price else "no price known for this machine",
            environment=machine,
            vocabulary="",
            seed=self.seed,
        )

    # --- its cells ------------------------------------------------------------------------------

    def _cells(self, piece: Piece, store: Store, servers: dict[str, Server], fleet: Fleet) -> None:
        broken: set[str] = set()
        for spec in store.run().cells:
            server = servers.get(spec.subject)
            if server is None or store.is_done(spec) or spec.subject in broken:
                continue
            if (needed := self.pace.cell_s(spec)) > self._left_s():
                self.left_out.append(
                    f"{piece.name}: {spec.id} needs {needed:.0f} s, {self._left_s():.0f} s left"
                )
                continue
            if not self._cell(store, server, spec):
                broken.add(spec.subject)
                click.echo(f"  {spec.subject} is measured no further; its log ends with:")
                click.echo(log_tail(fleet.log_of(server)))

    def _cell(self, store: Store, server: Server, spec: CellSpec) -> bool:
        """False: hardly anything was answered."""
        began = time.monotonic()
        try:
            if spec.workload.kind == "shared-prefix":
                warm_prefix(server.launch.endpoint, Workload(spec.workload, store.vocabulary()))
            outcome = measure(store, server, spec)
        except (GeneratorFailed, OSError) as error:
            self._record_failure(store, spec, str(error))
            click.echo(f"  {spec.id}: {error}")
            return False
        store.save(outcome.record, outcome.telemetry)
        self.pace.note(spec, time.monotonic() - began)
        click.echo(f"  {line(store, spec)}  [{time.monotonic() - began:.1f} s]")
        done = metrics.CellData.of(store.load(spec))
        return len(done.good) * 2 > len(done.requests)

    @staticmethod
    def _record_failure(store: Store, spec: CellSpec, reason: str) -> None:
        store.forget_partial()
        store.save(failed_cell(spec, reason), [])

    def _kill(self, piece: Piece, store: Store, servers: dict[str, Server]) -> None:
        server = servers.get(subject(self.targets(piece)[-1]))
        if server is None or self._left_s() < crash.NEEDS_S:
            self.left_out.append(f"{piece.name}: kill -9 under load")
            return
        done = crash.kill_one(store, server, seed=self.seed)
        click.echo(f"  kill -9 of one worker under load: {done}")

    # --- what comes back ------------------------------------------------------------------------

    def pack(self) -> None:
        """All records so far as one archive, whole or not at all."""
        self.out.mkdir(parents=True, exist_ok=True)
        archive = self.out / "gpu-study.tar.gz"
        partial = archive.with_name(archive.name + ".tmp")
        with tarfile.open(partial, "w:gz", compresslevel=6) as tar:
            for path in sorted(self.work.rglob("*")):
                if path.is_file() and path.suffix != ".part":
                    _add(tar, path, path.relative_to(self.work))
        partial.replace(archive)


def cells(piece: Piece, subjects: Sequence[Subject], repeats: int, seed: int) -> list[CellSpec]:
    """Repeats outermost, subjects forth and back. The first cell of a server warms it up as a whole.

    Servers live on from piece to piece, with what they have cached: no two pieces ask the same.
    """
    seed = plan.cell_seed(seed, piece.name, 0)
    planned = [
        spec for grid in piece.grids for spec in plan.cells(grid.config(repeats, seed), list(subjects))
    ]
    order = {known.name: place for place, known in enumerate(subjects)}
    planned.sort(key=lambda spec: (spec.repeat, order[spec.subject] * (1 if spec.repeat % 2 == 0 else -1)))
    seen: set[str] = set()
    ready = []
    for spec in planned:
        users = spec.load.concurrency or 1
        first = spec.subject not in seen
        seen.add(spec.subject)
        ready.append(
            msgspec.structs.replace(
                spec, num_warmups=min(users, 16 if first else 2), timeout_s=piece.cell_timeout_s
            )
        )
    return ready


def estimate_s(piece: Piece, planned: Sequence[CellSpec], pace: Pace) -> float:
    """Servers that differ only in how they are asked start once; vLLM runs already."""
    apart = set()
    for name in piece.subjects:
        engine, variant, flavours = split(name)
        apart.add((engine, variant, *(f for f in flavours if FLAVOURS[f].options.get(engine))))
    starts = sum(START_S.get(server[0], 10.0) for server in apart if server[0] != "vllm")
    return starts + sum(map(pace.cell_s, planned))


def line(store: Store, spec: CellSpec) -> str:
    """A cell's main figures, for whoever watches."""
    cell = metrics.CellData.of(store.load(spec))
    values = metrics.summarize(cell, {})

    def ms(name: str) -> str:
        value = values.get(name)
        return "-" if value is None else f"{value:.1f}"

    failed = len(cell.requests) - len(cell.good)
    parts = (
        f"{spec.id}: {values.get('output_tps', 0):.0f} tok/s",
        f"ttft p50 {ms('ttft_p50_ms')} p95 {ms('ttft_p95_ms')}",
        f"tpot {ms('tpot_p50_ms')}",
        f"itl p50 {ms('itl_p50_ms')} p99 {ms('itl_p99_ms')} ms",
        f"gpu {values.get('gpu_memory_peak_mb', 0):.0f} MB {values.get('gpu_power_mean_w', 0):.0f} W",
        *([f"{failed} of {len(cell.requests)} FAILED: {metrics.errors(cell)}"] if failed else []),
    )
    return ", ".join(parts)


def _add(tar: tarfile.TarFile, path: Path, name: Path) -> None:
    if path.suffix != ".log" or path.stat().st_size <= _LOG_BYTES:
        tar.add(path, arcname=f"gpu-study/{name}")
        return
    with path.open("rb") as log:
        head = log.read(_LOG_BYTES // 2)
        log.seek(-_LOG_BYTES // 2, os.SEEK_END)
        data = head + b"\n[...]\n" + log.read()
    info = tarfile.TarInfo(f"gpu-study/{name}")
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
