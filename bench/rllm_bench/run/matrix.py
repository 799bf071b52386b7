"""From a plan to a run in its folder: targets found, the machine described, cells measured."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rllm_bench.figures import cost
from rllm_bench.records import environment, vocabulary
from rllm_bench.records.runs import RunRecord, Subject
from rllm_bench.records.store import Store
from rllm_bench.records.vocabulary import Vocabulary
from rllm_bench.run import outcome, plan
from rllm_bench.run.plan import MatrixConfig, Plan, PlanError
from rllm_bench.run.runner import Observer, Runner
from rllm_bench.run.subjects import describe
from rllm_bench.targets.base import Target
from rllm_bench.targets.catalog import Places, resolve, vocabulary_model


@dataclass(frozen=True)
class Prepared:
    """A run that is planned and not begun."""

    run: RunRecord
    targets: Sequence[Target]
    words: Vocabulary
    left_out: list[str] = field(default_factory=list)
    """What did not fit into the time, once it is carried out."""


def prepare(asked: Plan | MatrixConfig, places: Places, *, hash_models: bool = True) -> Prepared:
    """
    Raises:
        PlanError, UnknownTarget: what is asked for does not exist, or does not go together.
    """
    asked = plan.matrix(asked) if isinstance(asked, MatrixConfig) else asked
    first = asked.first
    of_parts = [resolve(part.targets, part.variants, places) for part in asked.parts]
    targets = {(t.engine, t.variant): t for found in of_parts for t in found}
    known = {key: describe(t, environment.sha256 if hash_models else None) for key, t in targets.items()}
    subjects: list[list[Subject]] = [[known[t.engine, t.variant] for t in found] for found in of_parts]
    able = [one for one in known.values() if one.missing is None]
    if asked.kind == "versus" and len(able) < 2:
        reasons = "; ".join(f"{one.name}: {one.missing}" for one in known.values() if one.missing)
        raise PlanError(f"nothing to compare {able[0].name if able else 'anything'} with. {reasons}")
    machine = environment.describe()
    words = _words([*targets.values()])
    price = cost.price(first.price_per_hour, first.machine_kind, machine)
    now = datetime.now(UTC)
    run = RunRecord(
        name=asked.name or f"{asked.kind if asked.kind != 'matrix' else first.preset}-{now:%Y%m%d-%H%M%S}",
        created_at=now.isoformat(timespec="seconds"),
        command=environment.command_line(),
        preset=first.preset,
        settings=plan.settings(first),
        subjects=list(known.values()),
        cells=plan.cells(asked, subjects),
        slos=first.slos or plan.DEFAULT_SLOS,
        price_per_hour=price.per_hour if price else None,
        price_source=price.source if price else "no price known for this machine (--price-per-hour)",
        environment=machine,
        vocabulary=words.digest,
        seed=first.seed,
        kind=asked.kind,
        question=asked.question,
        hosting=asked.hosting,
        goals=list(asked.goals),
    )
    return Prepared(run, list(targets.values()), words)


def _words(targets: Sequence[Target]) -> Vocabulary:
    """Of the first model file whose tokens are words; else plain ones, whose length the server counts."""
    model = vocabulary_model(targets)
    with contextlib.suppress(vocabulary.FewWords):
        return vocabulary.from_gguf(model) if model else vocabulary.plain_words()
    return vocabulary.plain_words()


def execute(
    prepared: Prepared,
    folder: Path,
    observer: Observer,
    *,
    resume: bool = False,
    continue_on_error: bool = False,
    generators: int | None = None,
    only_repeat: int | None = None,
    deadline: float | None = None,
    parts: Sequence[str] = (),
) -> Store:
    """Measures into ``folder``. A folder that holds a run is only continued, and only with the same plan."""
    for line in outcome.missing(prepared.run):
        observer.note(line)
    store = Store(folder)
    if store.exists():
        if not resume:
            raise PlanError(f"{folder} holds a run already; --resume continues it, --name starts another")
        _check_same(store.run(), prepared.run)
        store.unpack()
        store.forget_failed()
    else:
        if not prepared.run.cells:
            reasons = "; ".join(f"{s.name}: {s.missing}" for s in prepared.run.subjects if s.missing)
            raise PlanError(f"nothing to measure. {reasons}")
        store.create(prepared.run, prepared.words)
    runner = Runner(store, prepared.targets, observer, continue_on_error, generators, deadline, parts)
    runner.left_out = prepared.left_out
    runner.run(only_repeat)
    return store


def _check_same(old: RunRecord, new: RunRecord) -> None:
    """Cells of two plans, or of two machines, do not make one run."""
    for field_ in ("cells", "settings", "vocabulary"):
        if getattr(old, field_) != getattr(new, field_):
            raise PlanError(f"the run that is there was planned with other {field_}; use another --name")
    if old.environment["cpu"] != new.environment["cpu"] or _cards(old) != _cards(new):
        raise PlanError("the run that is there was begun on another machine; use another --name")
    hashes = {s.name: s.model_sha256 for s in old.subjects}
    for known in new.subjects:
        if known.model_sha256 != hashes.get(known.name):
            raise PlanError(f"{known.model} has changed since the run was begun; use another --name")


def _cards(run: RunRecord) -> list[str]:
    return [card["name"] for card in run.environment["gpus"]]
