"""What a run must say on the console: who could not be measured, and where nothing was answered."""

from __future__ import annotations

from collections.abc import Iterator

from rllm_bench.figures.metrics import CellData, errors
from rllm_bench.figures.summary import judged
from rllm_bench.figures.words import plural
from rllm_bench.records.runs import RunRecord
from rllm_bench.records.store import Store


def missing(run: RunRecord) -> Iterator[str]:
    """A line for each target that cannot run here."""
    for subject in run.subjects:
        if subject.missing is not None:
            yield f"{subject.name} cannot be measured here: {subject.missing}"


def unanswered(store: Store) -> list[str]:
    """A line for each cell without a single good answer, and why."""
    return [f"{cell.record.spec.id}: {why}" for cell in judged(store) if (why := no_answer(cell)) is not None]


def no_answer(cell: CellData) -> str | None:
    """Why no request of a cell succeeded, in one line; None where one did."""
    if cell.good:
        return None
    if cell.record.error is not None:
        return cell.record.error.splitlines()[0]
    kinds = ", ".join(f"{count} {kind}" for kind, count in errors(cell).items()) or "none was sent"
    details = (request.error_detail for request in cell.requests)
    first = next((" ".join(detail.split()) for detail in details if detail), None)
    said = f"; the first: {first}" if first else ""
    return f"none of {plural(len(cell.requests), 'request')} succeeded ({kinds}{said})"
