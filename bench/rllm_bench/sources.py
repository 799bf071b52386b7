"""What a report is rendered from: runs, ceilings and quality results, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rllm_bench import ceiling_file
from rllm_bench.ceiling_file import Ceiling
from rllm_bench.quality_file import kld_by_model
from rllm_bench.store import RunRecord, Store
from rllm_bench.summary import Summary, summarize


@dataclass(frozen=True)
class Sources:
    """Everything a report is rendered from."""

    stores: Sequence[Store]
    summary: Summary
    ceilings: Sequence[Ceiling]
    quality: Mapping[str, float]
    """Mean KL divergence by sha256 of the model file."""

    @property
    def run(self) -> RunRecord:
        return self.summary.runs[0]

    def kld(self, subject: str) -> float | None:
        """Of a subject's model file, where a quality run judged it. The name may carry a run's."""
        hashes = {s.name: s.model_sha256 for run in self.summary.runs for s in run.subjects}
        sha = hashes.get(subject.partition(" (")[0])
        return self.quality.get(sha) if sha else None


def read(folders: Sequence[Path], extra: Sequence[Path] = ()) -> Sources:
    """``extra``: ceiling.json or quality result files from elsewhere."""
    stores = [Store(folder) for folder in folders]
    places = [*folders, *extra]
    return Sources(stores, summarize(stores), ceilings_in(places), kld_by_model(places))


def ceilings_in(places: Sequence[Path]) -> list[Ceiling]:
    files = [place / "ceiling.json" if place.is_dir() else place for place in places]
    return [
        one
        for file in files
        if file.name == "ceiling.json" and file.exists()
        for one in ceiling_file.load(file)
    ]
