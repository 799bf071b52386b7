"""Progress of one long step: a bar on a terminal, a few lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rllm.printable import printable

Advance = Callable[[int], None]
"""Called with how much is done so far, in bytes or in tensors."""

_LINE_EVERY_S = 10.0


@contextmanager
def progress(label: str, total: int | None, *, in_bytes: bool = True) -> Iterator[Advance]:
    """Show ``label`` and how far it is; ``total`` may be unknown. Everything goes to standard error."""
    bar = _bar if sys.stderr.isatty() else _lines
    with bar(printable(label), total, in_bytes) as advance:
        yield advance


@contextmanager
def _bar(label: str, total: int | None, in_bytes: bool) -> Iterator[Advance]:
    from rich.console import Console  # here: start-up of the instant second run
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counts: list[ProgressColumn] = (
        [DownloadColumn(binary_units=True), TransferSpeedColumn()] if in_bytes else [MofNCompleteColumn()]
    )
    columns = [TextColumn("{task.description}", markup=False), BarColumn(), *counts, TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task(label, total=total)
        yield lambda done: display.update(task, completed=done)


@contextmanager
def _lines(label: str, total: int | None, in_bytes: bool) -> Iterator[Advance]:
    """One line at the start, one at the end, and one every ten seconds between."""
    started = last = time.monotonic()
    print(f"{label} …", file=sys.stderr, flush=True)

    def advance(done: int) -> None:
        nonlocal last
        if time.monotonic() - last < _LINE_EVERY_S:
            return
        last = time.monotonic()
        amount = f"{done / 2**20:,.0f} MiB" if in_bytes else f"{done:,}"
        share = f" ({100 * done // total} %)" if total else ""
        print(f"  {amount}{share}", file=sys.stderr, flush=True)

    yield advance
    print(f"  done in {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
