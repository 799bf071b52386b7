"""What a report is rendered from: runs, ceilings and quality results, read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rllm_bench.ceiling import file as ceiling_file
from rllm_bench.ceiling.file import Ceiling
from rllm_bench.figures.summary import Summary, summarize
from rllm_bench.records import archive
from rllm_bench.records.runs import RunRecord, Subject
from rllm_bench.records.store import Store
from rllm_bench.report.quality_file import Judged, judged


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

    def kld(self, subject: Subject) -> float | None:
        """Of a subject's model file, where a quality run judged it."""
        found = self.quality.get(subject.model_sha256 or "")
        return found.kld if found else None

    def file_type(self, subject: Subject) -> str | None:
        """How the model file is quantized: as its maker recorded, or as a quality run found."""
        found = self.quality.get(subject.model_sha256 or "")
        return subject.model_type or (found.file_type if found else None)

    def type_shares(self, subject: Subject) -> Mapping[str, float]:
        """Of its weights by type, from the run or from a quality run; empty where nobody has looked."""
        found = self.quality.get(subject.model_sha256 or "")
        return subject.type_shares or (found.type_shares if found else {})


def read(folders: Sequence[Path], extra: Sequence[Path] = ()) -> Sources:
    """``extra``: ceiling.json or quality result files from elsewhere."""
    stores = [Store(folder) for folder in folders]
    places = [*folders, *extra]
    return Sources(stores, summarize(stores), ceilings_in(places), judged(places), extra)


def ceilings_in(places: Sequence[Path]) -> list[Ceiling]:
    return [one for file in archive.named("ceiling.json", places) for one in ceiling_file.load(file)]
