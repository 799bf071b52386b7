"""What to know before quoting a figure: what the files really hold, and what the servers are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from rllm_bench.figures.words import listed, plural
from rllm_bench.records.runs import RunRecord, Subject
from rllm_bench.report.sources import Sources

_MOSTLY = 0.5
"""A file of whose weights less than this share are of the type that it is called by is told so."""


def to_know(sources: Sources) -> Iterator[str]:
    run, subjects = sources.run, sources.run.subjects
    yield "Before quoting it:"
    yield ""
    for known in {s.model_sha256 or s.name: s for s in subjects if s.missing is None}.values():
        yield from (f"- {text}." for text in _misnamed(sources, known))
    notes = dict(_notes(sources))
    yield from (f"- {one.name}: {note}." for one in subjects for note in notes.get(one.name, []))
    yield f"- Engines as they were installed on {run.created_at[:10]}: {_engines(run)}."


def _engines(run: RunRecord) -> str:
    """Every engine with its age, where the run recorded that of any."""
    engines = list(dict.fromkeys(f"{s.engine} {s.version}" for s in run.subjects if s.version))
    version = run.environment.get("packages", {}).get("llama-cpp-python")
    binding = f"llama-cpp-python {version}" if version else None
    released = run.environment.get("released")
    if released is None:
        under = f", {binding} under rllm" if binding else ""
        return (
            f"{listed(engines)}{under}. They tell their version, not their age: look for newer ones before "
            "you choose"
        )
    measured = date.fromisoformat(run.created_at[:10])
    aged = {name: _aged(name, released.get(name), measured) for name in (*engines, binding) if name}
    under = f"; under rllm {aged[binding]}" if binding else ""
    return f"{listed([aged[name] for name in engines])}{under}. Look for newer ones before you choose"


def _aged(name: str, day: str | None, measured: date) -> str:
    if day is None:
        return f"{name} (of unknown age)"
    return f"{name} of {day} ({plural((measured - date.fromisoformat(day)).days, 'day')} old)"


def _misnamed(sources: Sources, known: Subject) -> Iterator[str]:
    """A mixture is called by the type that most of it should have: `Q4_K_M` by Q4_K."""
    called, shares = sources.file_type(known), sources.type_shares(known)
    if not called or not shares:
        return
    base = re.sub(r"_[SML]$", "", called)
    own = shares.get(base, 0.0)
    if own >= _MOSTLY:
        return
    others = [f"{100 * share:.0f} % {name}" for name, share in shares.items() if name != base]
    file = Path(known.model or known.name).name
    yield (
        f"`{file}` calls itself {called}, and {100 * own:.0f} % of its weights are {base}: "
        f"{listed(others)}; its speed and quality are those of the mixture"
    )


def _notes(sources: Sources) -> Iterator[tuple[str, list[str]]]:
    for cell in sources.summary.cells:
        notes = cell.record.target.get("notes")
        if isinstance(notes, list) and notes:
            yield cell.record.spec.subject, [str(note) for note in notes]
