"""A whole quality run: collect, store, compute, render."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from rllm_bench.quality.cache import ReferenceCache
from rllm_bench.quality.collect import Collector, Subject
from rllm_bench.quality.datasets import EvaluationData
from rllm_bench.quality.engine import engine_version, subject
from rllm_bench.quality.gate import Limits
from rllm_bench.quality.importance import MatrixGain, gains
from rllm_bench.quality.plot import quality_against_size
from rllm_bench.quality.report import render
from rllm_bench.quality.results import QualityRun, Settings
from rllm_bench.quality.served import score_served
from rllm_bench.quality.store import QualityStore
from rllm_bench.records import environment


def measure(
    reference: Path,
    variants: Sequence[Path],
    urls: Sequence[str],
    settings: Settings,
    data: EvaluationData,
    store: QualityStore,
    cache: ReferenceCache,
    notes: Sequence[str] = (),
) -> QualityRun:
    """Measures what the store does not have yet, and saves the results."""
    threads = settings.threads or os.cpu_count() or 1
    with ThreadPoolExecutor(threads, thread_name_prefix="score") as pool:
        base = subject(reference, reference.stem, settings)
        collector = Collector(base, settings, data, store, cache, engine_version(), pool)
        subjects = [
            subject(path, name, settings) for path, name in zip(variants, _names(variants), strict=True)
        ]
        results = [collector.variant(one) for one in subjects]
        run = QualityRun(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            settings=settings,
            data={"text": data.name("text"), "pairs": data.name("pairs"), "problems": data.name("problems")},
            environment=environment.describe(),
            reference=collector.reference_result(),
            floor=collector.floor(),
            variants=results,
            served=[score_served(url, collector.tokens, collector.begin, collector.base) for url in urls],
            peak_memory_bytes=max(
                store.earlier_peak_bytes(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            ),
            matrices=_matrices(collector, subjects),
            notes=list(notes),
        )
    store.save(run)
    return run


def _matrices(collector: Collector, subjects: Sequence[Subject]) -> list[MatrixGain]:
    if not collector.wants("divergence"):
        return []
    return gains([one.file for one in subjects], lambda place: collector.scores(subjects[place])[0])


def write_report(run: QualityRun, limits: Sequence[Limits], folder: Path) -> Path:
    has_plot = quality_against_size(run, folder / "quality.png")
    path = folder / "report.md"
    path.write_text(render(run, limits, "quality.png" if has_plot else None), encoding="utf-8")
    return path


def _names(paths: Sequence[Path]) -> list[str]:
    """File names without the ending; with the folder, where that is not enough to tell them apart."""
    stems = [path.stem for path in paths]
    return [
        stem if stems.count(stem) == 1 else f"{path.parent.name}-{stem}"
        for path, stem in zip(paths, stems, strict=True)
    ]
