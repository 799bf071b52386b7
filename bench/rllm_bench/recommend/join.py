"""Joins the runs: quality by the hash of the model file, speed and memory by subject and load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rllm_bench.figures.metrics import CellData, summarize
from rllm_bench.figures.stats import over_repeats
from rllm_bench.figures.summary import judged
from rllm_bench.quality.gate import Limits, judge
from rllm_bench.quality.results import QualityRun
from rllm_bench.quality.store import load_run
from rllm_bench.recommend.options import Option, Quality
from rllm_bench.records.runs import RunRecord, Subject
from rllm_bench.records.store import Store

_GOAL = "goal"


def qualities(folders: Sequence[Path], limits: Sequence[Limits]) -> dict[str, Quality]:
    """By sha256. Where two runs judge the same file, the last one counts."""
    found: dict[str, Quality] = {}
    for folder in folders:
        found |= _of_run(load_run(folder), limits)
    return found


def _of_run(run: QualityRun, limits: Sequence[Limits]) -> dict[str, Quality]:
    found = {run.reference.model.sha256: Quality(0.0, 1.0, 1.0, True, is_reference=True)}
    for result in run.variants:
        found[result.model.sha256] = Quality(
            mean_kld=result.divergence.kld_mean.value if result.divergence else None,
            same_top=result.same_top.value if result.same_top else None,
            ppl_ratio=result.ppl_ratio.value if result.ppl_ratio else None,
            passes_gate=judge(result, limits).passed,
        )
    return found


@dataclass(frozen=True, slots=True)
class Measured:
    """The repeats of one subject under one load."""

    run: RunRecord
    subject: Subject
    cells: tuple[CellData, ...]


def measured(folders: Sequence[Path]) -> list[Measured]:
    """Read once; `options` judges it by any goal. Failed repeats are left out."""
    out = []
    for folder in folders:
        store = Store(folder)
        run = store.run()
        subjects = {subject.name: subject for subject in run.subjects}
        grouped: dict[tuple[str, str], list[CellData]] = {}
        for cell in judged(store):
            if cell.record.error is None and cell.good:
                grouped.setdefault((cell.record.spec.subject, cell.record.spec.group), []).append(cell)
        out += [Measured(run, subjects[name], tuple(cells)) for (name, _), cells in grouped.items()]
    return out


def options(
    found: Sequence[Measured], quality: Mapping[str, Quality], goal: Mapping[str, float], price: float | None
) -> list[Option]:
    """Every measured load of every subject, judged by ``goal`` (limits in ms)."""
    return [_option(one, quality, goal, price) for one in found]


def _option(
    one: Measured, quality: Mapping[str, Quality], goal: Mapping[str, float], price: float | None
) -> Option:
    repeats = [summarize(cell, {_GOAL: goal}) for cell in one.cells]
    spec, run = one.cells[0].record.spec, one.run
    memory = _over_repeats(repeats, "gpu_memory_peak_mb")
    names = {"ttft": "ttft_p95_ms", "tpot": "tpot_p95_ms", "e2el": "e2e_p95_ms"}
    return Option(
        subject=one.subject.name,
        engine=one.subject.engine,
        variant=one.subject.variant,
        workload=f"{spec.workload.kind}, {spec.workload.prompt_tokens} in, {spec.workload.output_tokens} out",
        load=spec.load.label,
        users=spec.load.concurrency or round(spec.load.rate or 0),
        slots=run.settings.slots,
        output_tps=_over_repeats(repeats, "output_tps") or 0.0,
        goodput_rps=_over_repeats(repeats, f"goodput_{_GOAL}_rps") or 0.0,
        attained=_over_repeats(repeats, f"attained_{_GOAL}") or 0.0,
        p95_ms={
            limit: value for limit in goal if (value := _over_repeats(repeats, names[limit])) is not None
        },
        memory_mb=memory if memory is not None else _over_repeats(repeats, "rss_peak_mb"),
        price_per_hour=price if price is not None else run.price_per_hour,
        quality=quality.get(one.subject.model_sha256 or ""),
    )


def _over_repeats(repeats: Sequence[Mapping[str, float]], name: str) -> float | None:
    values = [repeat[name] for repeat in repeats if name in repeat]
    return over_repeats(values) if values else None
