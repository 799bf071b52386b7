"""What a scenario is, and the stage that it is played on."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from rllm_bench.load import arrivals
from rllm_bench.load.client import Endpoint
from rllm_bench.load.loops import Sender, Sink, closed_loop, open_loop
from rllm_bench.load.prompts import Unit, Words, digest
from rllm_bench.records.cells import CellSpec, RequestRecord, WorkloadSpec
from rllm_bench.records.vocabulary import Vocabulary

Figures = dict[str, float]
LATENCIES = ("output_tps", "ttft_p50_ms", "itl_p50_ms", "itl_p99_ms")


def share(total: int, process: int, num_processes: int) -> int:
    """How many of ``total`` belong to this process."""
    return total // num_processes + (process < total % num_processes)


@dataclass(frozen=True)
class Stage:
    """One cell, or a generator process's part of it."""

    client: Sender
    sink: Sink
    spec: CellSpec
    workload: Workload
    start: float
    """On the monotonic clock."""
    process: int = 0
    num_processes: int = 1

    @property
    def users(self) -> int:
        return share(self.spec.load.concurrency or 1, self.process, self.num_processes)

    @property
    def own(self) -> range:
        """The planned units that this process sends."""
        return range(self.process, self.spec.num_requests, self.num_processes)

    def units(self) -> Iterator[tuple[int, Unit]]:
        """Units of this process until there were enough of them and enough time has passed."""
        spec = self.spec
        for index in itertools.count(self.process, self.num_processes):
            passed = time.monotonic() - self.start
            if index >= spec.num_requests and passed >= spec.min_duration_s:
                return
            if spec.max_duration_s is not None and passed >= spec.max_duration_s and index > self.process:
                return
            yield index, self.workload.unit(index)


async def by_load(stage: Stage) -> None:
    """Closed or open loop over the units, as the load says."""
    spec, load = stage.spec, stage.spec.load
    if load.mode == "closed":
        await closed_loop(
            stage.client, stage.sink, stage.units(), users=stage.users, start=stage.start,
            timeout_s=spec.timeout_s,
        )  # fmt: skip
        return
    times = arrival_times(spec, stage.workload)
    plan = [(times[index], index, stage.workload.unit(index)) for index in stage.own]
    limit = stage.users if load.concurrency else None
    await open_loop(stage.client, stage.sink, plan, start=stage.start, limit=limit, timeout_s=spec.timeout_s)


def arrival_times(spec: CellSpec, workload: Workload) -> list[float]:
    """Seconds after the start at which each unit is due."""
    if spec.load.arrival == "trace":
        return [workload.unit(index)[0].at_s or 0.0 for index in range(spec.num_requests)]
    times: list[float] = arrivals.schedule(spec.load, spec.num_requests, spec.workload.seed).tolist()
    return times


def one_request(spec: WorkloadSpec) -> int:
    """Most tokens that a request takes, prompt and output together."""
    return spec.prompt_tokens + spec.output_tokens


def nothing(_spec: WorkloadSpec, _words: Words) -> list[Unit]:
    return []


def no_figures(_requests: Sequence[RequestRecord]) -> Figures:
    return {}


def no_problem(_spec: WorkloadSpec) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Scenario:
    name: str
    question: str
    """What it finds out, in a line."""
    unit: Callable[[WorkloadSpec, Words, int], Unit]
    play: Callable[[Stage], Awaitable[None]] = by_load
    before: Callable[[WorkloadSpec, Words], list[Unit]] = nothing
    """Asked one after the other before the cell, and not recorded."""
    longest: Callable[[WorkloadSpec], int] = one_request
    problem: Callable[[WorkloadSpec], str | None] = no_problem
    """What is wrong with a spec."""
    usual: dict[str, Any] = field(default_factory=dict)
    """Its loads and lengths where nobody says otherwise, as a plan has them."""
    cells_share: float | None = None
    """Of the tokens that all users together want: the size of the cache. None: room for all."""
    chat: bool = False
    """Asks in chat messages, and lets the model end where it ends."""
    headline: tuple[str, ...] = LATENCIES
    figures: Callable[[Sequence[RequestRecord]], Figures] = no_figures

    def asks(self, endpoint: Endpoint) -> Endpoint:
        """How it asks a server."""
        if not self.chat:
            return endpoint
        body = {
            name: value for name, value in endpoint.body.items() if name not in ("ignore_eos", "logit_bias")
        }
        return msgspec.structs.replace(endpoint, body=body, prompt_format="chat")


class Workload:
    """What one spec asks. Unit i does not depend on how many there are or on who sends it, so that a run
    that lasts longer only asks more, and every target is asked the same."""

    def __init__(self, scenario: Scenario, spec: WorkloadSpec, vocabulary: Vocabulary) -> None:
        self.scenario, self.spec = scenario, spec
        self._words = Words(vocabulary)
        self._drawn: dict[int, Unit] = {}

    def draw(self, indices: Iterable[int]) -> None:
        """These units now: drawing a long prompt takes milliseconds that would count as the server's."""
        self._drawn = {index: self.unit(index) for index in indices}

    def unit(self, index: int) -> Unit:
        return self._drawn.pop(index, None) or self.scenario.unit(self.spec, self._words, index)

    def units(self, count: int) -> list[Unit]:
        return [self.unit(index) for index in range(count)]

    def before(self) -> list[Unit]:
        return self.scenario.before(self.spec, self._words)

    def digest(self, count: int) -> str:
        return digest(self.units(count))
