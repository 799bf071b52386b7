"""From a model to the options to keep: candidates of this machine, a race between them, and its table."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from rllm.backends.llama import lib
from rllm.backends.llama.context import default_threads
from rllm.backends.options import LlamaOptions
from rllm.startup.preflight import available_bytes
from rllm.startup.profiles import Profile, ProfileStore, Tuned
from rllm.tuning.candidates import RULE, Candidate, full_candidates, quick_candidates
from rllm.tuning.points import Point, Use, full_points, quick_points, weights_of
from rllm.tuning.race import medians
from rllm.tuning.rigs import ProcessRig
from rllm.tuning.tuner import Outcome, Say, Tuner

How = Literal["quick", "full"]
BUDGET_S: dict[How, float] = {"quick": 5.0, "full": 300.0}
_QUICK_BYTES = 2**30
"""Larger files are not tried in a few seconds."""


_SHARE = 0.5
"""Of the free memory that all candidates together may take."""


class Busy(Exception):
    """Another process is tuning on this machine."""


@dataclass(frozen=True)
class Result:
    tuned: Tuned | None
    """What to keep. Without a complete round that is the rule. None: there was nothing to compare."""
    outcome: Outcome
    table: list[list[str]]
    """Tokens per second: a row for each candidate, a column for each point."""
    columns: list[str]


def tune(model: Path, options: LlamaOptions, use: Use, how: How, say: Say = lambda _text: None) -> Result:
    """Run the race. Options that are not left open in ``options`` are not varied."""
    on_gpu = bool(lib.is_cuda_build() and options.gpu_layers != 0)
    candidates = _candidates(options, how, on_gpu)
    if len(candidates) * model.stat().st_size > available_bytes() * _SHARE:
        candidates = _candidates(
            options, "quick", on_gpu
        )  # each is a process, and repacked weights are copies
    weights = quick_points(use) if how == "quick" else weights_of(use)
    tuner = Tuner(
        candidates,
        weights,
        lambda candidate: ProcessRig(model, candidate.apply(options)),
        BUDGET_S[how],
        more=[] if how == "quick" else full_points(),
        say=say,
    )
    if len(candidates) == 1:
        return Result(None, _nothing(tuner, "every option was chosen"), [], [])
    if how == "quick" and model.stat().st_size > _QUICK_BYTES:
        return Result(None, _nothing(tuner, "the model is too large for a few seconds"), [], [])
    outcome = tuner.run()
    columns, table = _table(outcome)
    # Too little time is an answer too: the next start would find no more.
    tuned = Tuned(options=dict(outcome.winner.changes), use=use, how=how, rounds=outcome.rounds)
    return Result(tuned, outcome, table, columns)


def tune_and_keep(
    store: ProfileStore, model: Path, options: LlamaOptions, use: Use, how: How, say: Say = lambda _text: None
) -> Result:
    """The same, alone on this machine; what it says becomes part of the model's profile.

    Raises:
        Busy: another process is tuning.
        OSError: the profile cannot be written.
    """
    with alone(store.folder):
        result = tune(model, options, use, how, say)
        known = store.load(model)
        is_known = known is not None and known.tuned is not None
        if result.tuned is not None and (result.tuned.rounds or not is_known):
            store.update(model, tuned=result.tuned)
        return result


def is_tuned(profile: Profile | None, use: Use, how: How) -> bool:
    """Whether the profile says at least what such a race would say."""
    tuned = profile.tuned if profile is not None else None
    return tuned is not None and tuned.use == use and (tuned.how == "full" or how == "quick")


def _nothing(tuner: Tuner, note: str) -> Outcome:
    outcome = tuner.outcome()
    outcome.note = note
    return outcome


def _candidates(options: LlamaOptions, how: How, on_gpu: bool) -> Sequence[Candidate]:
    make = quick_candidates if how == "quick" else full_candidates
    logical = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    return make(options, physical=default_threads(), logical=logical, on_gpu=on_gpu)


def _table(outcome: Outcome) -> tuple[list[str], list[list[str]]]:
    """The fastest first, and what became of the others."""
    race = outcome.race
    timed = {
        candidate: medians(rounds) | outcome.beside.get(candidate, {})
        for candidate, rounds in race.times.items()
        if rounds
    }
    points = sorted({point for times in timed.values() for point in times})
    rows = [
        [str(candidate), *(_rate(point, times) for point in points), _verdict(outcome, candidate)]
        for candidate, times in timed.items()
    ]
    rows += [
        [str(candidate), *("" for _ in points), why]
        for candidate, why in race.out.items()
        if candidate not in timed
    ]
    return ["options", *map(str, points), ""], rows


def _rate(point: Point, times: dict[Point, float]) -> str:
    return f"{point.tokens / times[point]:,.0f}" if point in times else ""


def _verdict(outcome: Outcome, candidate: Candidate) -> str:
    race = outcome.race
    if candidate == outcome.winner:
        return "kept"
    if candidate in race.out:
        return race.out[candidate]
    if RULE in race.times and candidate != RULE:
        ratio = race.ratio(candidate, RULE)
        return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] of the rule's speed"
    return ""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One tuner per machine: figures taken beside another's mean nothing.

    Raises:
        Busy: there is another.
        OSError: the folder cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "tuning.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy("another process is tuning on this machine") from None
    else:
        yield
    finally:
        os.close(handle)
