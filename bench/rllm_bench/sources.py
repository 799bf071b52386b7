"""What a report is rendered from: runs, ceilings and quality results, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rllm_bench import ceiling_file
from rllm_bench.ceiling_file import Ceiling
from rllm_bench.quality_file import Judged, judged
from rllm_bench.store import RunRecord, Store, Subject
from rllm_bench.summary import Summary, summarize


@dataclass(frozen=True)
class Sources:
    """Everything a report is rendered from."""

    stores: Sequence[Store]
    summary: Summary
    ceilings: Sequence[Ceiling]
    quality: Mapping[str, Judged]
    """By sha256 of the model file."""
    extra: Sequence[Path] = ()
    """What was read beside the runs."""

    @property
    def run(self) -> RunRecord:
        return self.summary.runs[0]

    def kld(self, subject: str) -> float | None:
        """Of a subject's model file, where a quality run judged it. The name may carry a run's."""
        hashes = {s.name: s.model_sha256 for run in self.summary.runs for s in run.subjects}
        found = self.quality.get(hashes.get(subject.partition(" (")[0]) or "")
        return found.kld if found else None

    def file_type(self, subject: Subject) -> str | None:
        """How the model file is quantized: as its maker recorded, or as a quality run found."""
        found = self.quality.get(subject.model_sha256 or "")
        return subject.model_type or (found.file_type if found else None)


def read(folders: Sequence[Path], extra: Sequence[Path] = ()) -> Sources:
    """``extra``: ceiling.json or quality result files from elsewhere."""
    stores = [Store(folder) for folder in folders]
    places = [*folders, *extra]
    return Sources(stores, summarize(stores), ceilings_in(places), judged(places), extra)


def ceilings_in(places: Sequence[Path]) -> list[Ceiling]:
    files = [place / "ceiling.json" if place.is_dir() else place for place in places]
    return [
        one
        for file in files
        if file.name == "ceiling.json" and file.exists()
        for one in ceiling_file.load(file)
    ]
