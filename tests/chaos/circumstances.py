"""When and where a scenario ran, and how much of the machine others used meanwhile."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]


@dataclass
class Circumstances:
    command: str = ""
    started: str = ""
    elapsed_s: float = 0.0
    load_before: float = 0.0
    """Load average over one minute."""
    load_after: float = 0.0
    """The same; the scenario's own load is in it."""
    others_percent: float = 0.0
    """Of all cores' time: what other processes of this machine used, and what its host took away."""
    commit: str = ""
    machine: str = ""
    errors: list[str] = field(default_factory=list)
    """Last lines of the log of a server that did not behave."""

    @property
    def was_quiet(self) -> bool:
        return self.others_percent < 10


@contextmanager
def observed(command: str, checkout: Path = ROOT) -> Iterator[Circumstances]:
    """Filled when the body has ended. ``checkout``: whose server runs."""
    facts = Circumstances(
        command=command,
        started=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        load_before=round(os.getloadavg()[0], 2),
        commit=_commit(checkout),
        machine=f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    )
    began, before = time.monotonic(), _busy_s() - _own_s()
    yield facts
    elapsed_s = time.monotonic() - began
    facts.elapsed_s = round(elapsed_s, 1)
    facts.load_after = round(os.getloadavg()[0], 2)
    others_s = _busy_s() - _own_s() - before
    facts.others_percent = round(
        min(100.0, max(0.0, 100 * others_s / (elapsed_s * (os.cpu_count() or 1)))), 1
    )


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def _own_s() -> float:
    """Of this process and of its children that have ended, with theirs; servers are waited for."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


def _commit(checkout: Path) -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", checkout, *words], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    dirty = git("status", "--porcelain", "--untracked-files=no", "--", "app", "tests")
    return git("rev-parse", "--short", "HEAD") + ("+" if dirty else "")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
