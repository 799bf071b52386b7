"""Tuning as an experiment: a grid is searched with few requests, the best is validated on a fresh seed.

The search picks a winner among noisy figures, so the winner's figure is too good by construction. What is
reported is only the second experiment: baseline against winner, new prompts, repeats in alternating
order, with an interval. When that shows no difference, the answer is the baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rllm_bench.figures import metrics
from rllm_bench.figures.compare import Comparison, compare
from rllm_bench.figures.summary import Result, judged, summarize
from rllm_bench.records.store import Store
from rllm_bench.run import outcome
from rllm_bench.run.matrix import execute, prepare
from rllm_bench.run.plan import MatrixConfig, PlanError
from rllm_bench.run.runner import CellFailed, Observer
from rllm_bench.search import tuning
from rllm_bench.search.tuning import Value
from rllm_bench.targets.catalog import Places

VALIDATION_SEED_OFFSET = 1_000_003


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One combination of the search and what it scored."""

    chosen: dict[str, Value]
    score: float | None
    """The geometric mean of the objective over the loads; None when the server could not be measured."""
    error: str | None = None


@dataclass(frozen=True)
class Validation:
    """Baseline against the best of the search, on prompts that the search has not seen."""

    best: Mapping[str, Value]
    comparisons: Sequence[Comparison]
    baseline: Store
    tuned: Store

    @property
    def confirmed(self) -> bool:
        """Better under some load and worse under none."""
        verdicts = {one.verdict for one in self.comparisons}
        return "better" in verdicts and "worse" not in verdicts


@dataclass(frozen=True)
class Sweep:
    """One subject, a grid of parameters, and the figure that is to be best."""

    config: MatrixConfig
    places: Places
    folder: Path
    grid: Mapping[str, Sequence[Value]]
    objective: str
    observer: Observer

    @property
    def engine(self) -> str:
        if len(self.config.targets) != 1 or ":" not in self.config.targets[0]:
            raise PlanError("a sweep tunes one subject: --target engine:variant")
        return self.config.targets[0].partition(":")[0]

    def search(self) -> list[Trial]:
        for name in self.grid:
            tuning.check(self.engine, name)
        trials = [self._trial({})]
        trials += [self._trial(chosen) for chosen in tuning.combinations(self.grid)]
        return trials

    def validate(self, best: Mapping[str, Value], repeats: int = 3) -> Validation:
        """Each repeat of one side is followed by one of the other, so that both meet the same machine."""
        seed = self.config.seed + VALIDATION_SEED_OFFSET
        for repeat in range(1, repeats + 1):
            order = ({}, best) if repeat % 2 else (best, {})
            for chosen in order:
                side = "tuned" if chosen is best else "baseline"
                config = self._config(f"validate-{side}", chosen, seed=seed, repeats=repeats)
                execute(
                    prepare(config, self.places), self.folder / config.name, self.observer, resume=True,
                    only_repeat=repeat - 1,
                )  # fmt: skip
        baseline, tuned = (Store(self.folder / f"validate-{side}") for side in ("baseline", "tuned"))
        return Validation(best, self._compare(baseline, tuned), baseline, tuned)

    def _trial(self, chosen: Mapping[str, Value]) -> Trial:
        name = tuning.label(chosen).replace(",", "_").replace("=", "-")
        config = self._config(f"trial-{name}", chosen, seed=self.config.seed, repeats=1)
        try:
            store = execute(
                prepare(config, self.places), self.folder / config.name, self.observer, resume=True
            )
        except CellFailed as error:
            return Trial(chosen=dict(chosen), score=None, error=str(error).splitlines()[0])
        failed = outcome.unanswered(store)
        return Trial(chosen=dict(chosen), score=self._score(store), error=failed[0] if failed else None)

    def _config(self, name: str, chosen: Mapping[str, Value], *, seed: int, repeats: int) -> MatrixConfig:
        settings = {key: chosen[key] for key in tuning.SETTINGS if key in chosen}
        words = tuning.arguments(self.engine, chosen)
        extra = {**self.config.extra}
        extra[self.engine] = [*extra.get(self.engine, []), *words]
        return msgspec.structs.replace(
            self.config, name=name, seed=seed, repeats=repeats, extra=extra, **settings
        )

    def _score(self, store: Store) -> float | None:
        slos = store.run().slos
        values = [metrics.summarize(cell, slos).get(self.objective) for cell in judged(store) if cell.good]
        found = [value for value in values if value is not None]
        if not found or len(found) < len(store.run().cells):
            return None
        if min(found) <= 0:
            return 0.0
        return math.exp(sum(map(math.log, found)) / len(found))

    def _compare(self, baseline: Store, tuned: Store) -> list[Comparison]:
        old, new = summarize([baseline]), summarize([tuned])
        pairs: list[tuple[Result, Result | None]] = [(r, old.find(r.subject, r.group)) for r in new.results]
        found = [compare(new_, old_, self.objective, new.slos) for new_, old_ in pairs if old_ is not None]
        return [one for one in found if one is not None]


def best_of(trials: Sequence[Trial], *, lower_is_better: bool = False) -> Trial:
    """The best scored; the baseline (the first) when nothing beats it."""
    scored = [trial for trial in trials if trial.score is not None]
    if not scored:
        reason = next((f": {trial.error}" for trial in trials if trial.error), "")
        raise PlanError(f"no combination could be measured{reason}")
    sign = -1 if lower_is_better else 1
    return max(scored, key=lambda trial: sign * (trial.score or 0.0))
