"""`rllm-bench matrix`: plan, measure, render."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rllm_bench.figures import cost
from rllm_bench.records import environment, vocabulary
from rllm_bench.records.runs import RunRecord
from rllm_bench.records.store import Store
from rllm_bench.records.vocabulary import Vocabulary
from rllm_bench.run import outcome, plan
from rllm_bench.run.plan import MatrixConfig, PlanError
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


def prepare(config: MatrixConfig, places: Places, *, hash_models: bool = True) -> Prepared:
    config = plan.complete(config)
    targets = resolve(config.targets, config.variants, places)
    subjects = [describe(target, environment.sha256 if hash_models else None) for target in targets]
    machine = environment.describe()
    model = vocabulary_model(targets)
    words = vocabulary.from_gguf(model) if model else vocabulary.plain_words()
    price = cost.price(config.price_per_hour, config.machine_kind, machine)
    now = datetime.now(UTC)
    run = RunRecord(
        name=config.name or f"{config.preset}-{now:%Y%m%d-%H%M%S}",
        created_at=now.isoformat(timespec="seconds"),
        command=environment.command_line(),
        preset=config.preset,
        settings=plan.settings(config),
        subjects=subjects,
        cells=plan.cells(config, subjects),
        slos=config.slos or plan.DEFAULT_SLOS,
        price_per_hour=price.per_hour if price else None,
        price_source=price.source if price else "no price known for this machine (--price-per-hour)",
        environment=machine,
        vocabulary=words.digest,
        seed=config.seed,
    )
    return Prepared(run, targets, words)


def execute(
    prepared: Prepared,
    folder: Path,
    observer: Observer,
    *,
    resume: bool = False,
    continue_on_error: bool = False,
    generators: int | None = None,
    only_repeat: int | None = None,
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
    Runner(store, prepared.targets, observer, continue_on_error, generators).run(only_repeat)
    return store


def _check_same(old: RunRecord, new: RunRecord) -> None:
    """Cells of two plans, or of two machines, do not make one run."""
    for field in ("cells", "settings", "vocabulary"):
        if getattr(old, field) != getattr(new, field):
            raise PlanError(f"the run that is there was planned with other {field}; use another --name")
    if old.environment["cpu"] != new.environment["cpu"] or _cards(old) != _cards(new):
        raise PlanError("the run that is there was begun on another machine; use another --name")
    hashes = {s.name: s.model_sha256 for s in old.subjects}
    for known in new.subjects:
        if known.model_sha256 != hashes.get(known.name):
            raise PlanError(f"{known.model} has changed since the run was begun; use another --name")


def _cards(run: RunRecord) -> list[str]:
    return [card["name"] for card in run.environment["gpus"]]
