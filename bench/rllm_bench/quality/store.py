"""Records of a quality run on disk.

    variants/NAME/divergence-KEY.scores   five numbers of every scored token, appended chunk by chunk
    variants/NAME/TASK-KEY.json           answers of the other tasks, item by item
    records.tar.zst                       takes the place of variants/ once a run is kept (`rllm-bench pack`)
    quality.json                          the results computed from them

A key digests everything that a record depends on; a record with another key is never read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from rllm_bench.quality.results import QualityRun
from rllm_bench.quality.scorefile import ScoreFile
from rllm_bench.records import archive
from rllm_bench.records.store import write_whole

T = TypeVar("T")


class QualityStore:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def scores(self, name: str, key: str, rows_per_chunk: int) -> ScoreFile:
        return ScoreFile(self._record(name, f"divergence-{key}.scores"), rows_per_chunk)

    def answers(self, name: str, task: str, key: str, kind: type[T], compute: Callable[[], T]) -> T:
        """The stored answers of a task, or newly computed and stored ones."""
        path = self._record(name, f"{task}-{key}.json")
        if path.exists():
            return msgspec.json.decode(path.read_bytes(), type=kind)
        value = compute()
        write_whole(path, msgspec.json.encode(value))
        return value

    def save(self, run: QualityRun) -> None:
        """Each variant also has its hash and mean divergence at the top, where speed reports look."""
        plain = msgspec.to_builtins(run)
        for variant, raw in zip(run.variants, plain["variants"], strict=True):
            raw["model_sha256"] = variant.model.sha256
            if variant.divergence is not None:
                raw["mean_kld"] = variant.divergence.kld_mean.value
        text = msgspec.json.format(msgspec.json.encode(plain), indent=1)
        write_whole(self.folder / "quality.json", text + b"\n")

    def earlier_peak_bytes(self) -> int:
        """Of the runs that measured what is here; 0 if there was none."""
        try:
            return load_run(self.folder).peak_memory_bytes
        except (FileNotFoundError, ValueError):
            return 0

    def _record(self, name: str, file: str) -> Path:
        archive.extract(self.folder)
        folder = self.folder / "variants" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / file


def load_run(folder: Path) -> QualityRun:
    """Raises FileNotFoundError, or ValueError if the file is not a quality run."""
    try:
        return msgspec.json.decode(archive.read_bytes(folder / "quality.json"), type=QualityRun)
    except msgspec.DecodeError as exc:
        raise ValueError(f"{folder / 'quality.json'}: {exc}") from exc
