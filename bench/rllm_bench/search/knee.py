"""The highest rate of requests that still meets a goal: doubling until it does not, then bisection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rllm_bench.figures import metrics
from rllm_bench.figures.summary import judged
from rllm_bench.records.store import Store
from rllm_bench.run import outcome
from rllm_bench.run.matrix import execute, prepare
from rllm_bench.run.plan import MatrixConfig, PlanError
from rllm_bench.run.runner import Observer
from rllm_bench.targets.catalog import Places

_FEWEST_REQUESTS = 20
"""Of a probe: a low rate is watched for longer."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One rate that was tried."""

    rate: float
    attained: float
    """Share of the requests that met the goal."""
    ttft_p99_ms: float | None = None
    tpot_p99_ms: float | None = None
    unanswered: str | None = None
    """Why not one request succeeded."""

    def meets(self, share: float) -> bool:
        return self.attained >= share


class Knee(msgspec.Struct, frozen=True, kw_only=True):
    subject: str
    slo: dict[str, float]
    share: float
    """Of requests that must meet the goal."""
    rate: float
    """The highest rate that was seen to meet it; 0 when none did."""
    fails_at: float | None
    """The lowest rate that was seen to miss it."""
    probes: list[Probe]

    @property
    def unanswered(self) -> str | None:
        """Why the server answered at no rate at all; None where it answered once."""
        return self.probes[0].unanswered if all(probe.unanswered for probe in self.probes) else None


@dataclass(frozen=True)
class Search:
    """How to look for it. Rates are requests per second."""

    start: float
    share: float = 0.99
    resolution: float = 0.1
    """Relative width of the bracket at which bisection stops."""
    most_probes: int = 14


def find(search: Search, probe: Callable[[float], Probe]) -> tuple[float, float | None, list[Probe]]:
    """The highest good rate, the lowest bad one above it, and everything tried. Assumes that a server
    that misses the goal at one rate misses it at any higher one; the probes show where it does not."""
    tried: list[Probe] = []
    good, bad = 0.0, None
    for rate in _rates(search, tried):
        one = probe(rate)
        tried.append(one)
    for one in tried:
        if one.meets(search.share):
            good = max(good, one.rate)
    failed = [one.rate for one in tried if not one.meets(search.share) and one.rate > good]
    bad = min(failed) if failed else None
    return good, bad, tried


def _rates(search: Search, tried: list[Probe]) -> Iterator[float]:
    """What to try next, given what was tried: the caller appends between two draws."""
    good, bad, rate = 0.0, None, search.start
    for _ in range(search.most_probes):
        yield rate
        if tried[-1].meets(search.share):
            good = rate
        else:
            bad = rate
        if bad is None:
            rate = good * 2
        elif good == 0.0 and bad > search.start / 8:
            rate = bad / 2
        elif good == 0.0 or (bad - good) <= search.resolution * good:
            return
        else:
            rate = round((good + bad) / 2, 6)


def search_knee(
    config: MatrixConfig, places: Places, folder: Path, search: Search, observer: Observer
) -> list[Knee]:
    """One knee per subject. Every probe is a run of its own below ``folder``, and can be reported on."""
    run = prepare(config, places, hash_models=False).run
    subjects = [s for s in run.subjects if s.missing is None]
    if not subjects:
        raise PlanError(f"nothing to measure. {'; '.join(outcome.missing(run))}")
    for line in outcome.missing(run):
        observer.note(line)
    goal = next(iter((config.slos or {"server": {"ttft": 2000.0, "tpot": 100.0}}).values()))
    knees = []
    for subject in subjects:
        only = msgspec.structs.replace(config, targets=[subject.name.replace("/", ":")])

        def probe(rate: float, only: MatrixConfig = only, name: str = subject.name) -> Probe:
            observer.note(f"{name}: {rate:g} requests a second")
            here = msgspec.structs.replace(
                only,
                name=f"{name.replace('/', '_')}-q{rate:g}",
                rates=[rate],
                repeats=1,
                open_duration_s=max(only.open_duration_s, _FEWEST_REQUESTS / rate),
            )
            return _probed(here, places, folder, observer, goal)

        rate, fails_at, probes = find(search, probe)
        knees.append(
            Knee(
                subject=subject.name,
                slo=goal,
                share=search.share,
                rate=rate,
                fails_at=fails_at,
                probes=probes,
            )
        )
    (folder / "knee.json").write_bytes(msgspec.json.format(msgspec.json.encode(knees), indent=1) + b"\n")
    return knees


def _probed(
    config: MatrixConfig, places: Places, folder: Path, observer: Observer, goal: dict[str, float]
) -> Probe:
    store: Store = execute(prepare(config, places), folder / config.name, observer, resume=True)
    (cell,) = judged(store)
    values = metrics.summarize(cell, {"goal": goal})
    return Probe(
        rate=config.rates[0],
        attained=values["attained_goal"],
        ttft_p99_ms=values.get("ttft_p99_ms"),
        tpot_p99_ms=values.get("tpot_p99_ms"),
        unanswered=outcome.no_answer(cell),
    )
