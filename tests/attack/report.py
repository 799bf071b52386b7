"""The report: one table of all attacks, before and after, made from the records in a folder."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from tests.attack.case import Case, Outcome, all_cases
from tests.attack.record import Record, load

_HEAD = """# Attacks: what a stranger or a fault can do

**{kept} of {total} attacks met what was promised.** Each is played against a running server, or a command of the
package, by `scripts/attack`; the quick ones are part of the everyday tests. "Before" is version 1c41d18, played
by the same program where it says so, else from the list of faults that these attacks came from.
"""
_BESIDE = """## Who was beside it

An ordinary stream and somebody who asks for /health/live every 50 ms, both in a process of their own, from before
the attack until after it. Promised: no gap between two tokens over 0.5 s, no answer of /health/live later than
0.2 s; median over the runs of the worst of each run.
"""


def write(folder: Path) -> Path:
    """report.md, from the records that are there."""
    path = folder / "report.md"
    path.write_text("\n".join(_lines(folder)) + "\n")
    return path


def _lines(folder: Path) -> list[str]:
    cases = all_cases()
    after, before = load(folder, before=False), load(folder, before=True)
    played = [after[case.name] for case in cases if case.name in after]
    kept = sum(record.outcome.kept for record in played)
    rows = [_row(case, before.get(case.name), after.get(case.name)) for case in cases]
    table = tabulate(rows, ["", "attack", "promised", "before", "after", "kept"], tablefmt="github")
    lines = [_HEAD.format(kept=kept, total=len(cases)), table]
    beside = [
        _beside(case, record)
        for case in cases
        if (record := after.get(case.name)) is not None and _gaps(record)
    ]
    if beside:
        columns = ["", "attack", "worst gap", "/health/live", "runs", "model", "others used"]
        lines += ["", _BESIDE, tabulate(beside, columns, tablefmt="github")]
    return [*lines, "", *_circumstances(played), "", "Every run: [records.json](records.json)."]


def _row(case: Case, before: Record | None, after: Record | None) -> list[object]:
    was = f"{case.before} *Played again:* {_cell(before.outcome)}" if before else case.before
    now = _cell(after.outcome) if after else "not played"
    verdict = ("yes" if after.outcome.kept else "**NO**") if after else "–"
    return [case.entry, f"{case.played} (`{case.name}`)", case.promise, was, now, verdict]


def _cell(outcome: Outcome) -> str:
    return outcome.found.replace("|", "\\|").replace("\n", " ")


def _gaps(record: Record) -> bool:
    return "worst_gap_s" in record.outcome.figures


def _beside(case: Case, record: Record) -> list[object]:
    figures = record.outcome.figures
    others = f"{record.circumstances.others_percent:g} %"
    gap, health = f"{figures['worst_gap_s']:.3f} s", f"{figures['worst_health_s']:.3f} s"
    return [case.entry, f"`{case.name}`", gap, health, len(record.runs), record.model, others]


def _circumstances(played: list[Record]) -> list[str]:
    machines = dict.fromkeys(f"- {record.circumstances.machine}" for record in played)
    commits = sorted({record.circumstances.commit for record in played})
    days = sorted({record.circumstances.started[:10] for record in played})
    return [*machines, f"- commits {', '.join(commits)}; {', '.join(days)}"] if played else []
