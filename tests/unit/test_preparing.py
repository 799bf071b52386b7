"""A request with a constraint joins the line when that is compiled, and keeps nobody waiting meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from rllm.backends.fake import FakeBackend
from rllm.backends.options import FakeOptions
from rllm.engine.build import build_scheduler
from rllm.engine.constraint import Constraint, Kind
from rllm.engine.engine import Engine
from rllm.engine.types import EngineRequest, Event, FinishReason, SamplingParams
from rllm.errors import ConstraintRefused
from rllm.workers.frames import Cancel, Command, Message, StepFrame, Stop, Submit
from rllm.workers.worker import serve
from rllm.workers.worker_log import WorkerLog

YES = Constraint(Kind.CHOICE, '["yes, indeed"]')


class Backend(FakeBackend):
    """Compiles when it is told to."""

    def __init__(self) -> None:
        super().__init__(FakeOptions())
        self.compiling: list[Future[None]] = []

    def prepare(self, constraint: Constraint) -> Future[None]:
        self.compiling.append(Future())
        return self.compiling[-1]


class Script:
    """Hands out commands, and does what it is told in between."""

    def __init__(self, backend: Backend, *acts: Command | str) -> None:
        self._backend = backend
        self._acts = list(acts)
        self.events: list[Event] = []
        self.num_idle = 0

    def commands(self, *, wait: bool) -> Iterator[Command]:
        self.num_idle += wait
        if not self._acts:
            if wait:
                yield Stop()
            return
        match self._acts.pop(0):
            case "compiled":
                self._backend.compiling[0].set_result(None)
            case "refused":
                self._backend.compiling[0].set_exception(ConstraintRefused("#/a", "no"))
            case "nothing":
                pass
            case str(other):
                raise AssertionError(other)
            case command:
                yield command

    def send(self, message: Message) -> None:
        if isinstance(message, StepFrame):
            self.events += message.events

    def finish_of(self, name: str) -> tuple[FinishReason | None, str]:
        events = [event for event in self.events if event.request_id == name]
        return events[-1].finish, "".join(event.text for event in events)


def run(*acts: Command | str) -> Script:
    backend = Backend()
    script = Script(backend, *acts)
    engine = Engine(build_scheduler(backend.info, backend.vocabulary), backend, lambda: 0.0)
    assert serve(engine, script, WorkerLog(script.send, "warning")) == 0
    return script


def asked(name: str, constraint: Constraint | None = None, num: int = 40) -> Submit:
    greedy = SamplingParams(temperature=0.0)
    request = EngineRequest(id=name, prompt=(65,), max_tokens=num, sampling=greedy, constraint=constraint)
    return Submit(requests=[request], sent_at=0.0)


def test_others_are_served_while_it_compiles() -> None:
    script = run(asked("it", YES), asked("other", num=2), *["nothing"] * 5, "compiled")
    order = [event.request_id for event in script.events if event.finish]
    assert order == ["other", "it"]
    assert script.finish_of("it") == (FinishReason.STOP, "yes, indeed")


def test_forced_tokens_come_together() -> None:
    script = run(asked("it", YES), "compiled")
    sizes = [len(event.tokens) for event in script.events if event.request_id == "it"]
    assert sum(sizes) == len("yes, indeed") + 1
    assert len(sizes) <= 2


def test_an_idle_worker_notices_that_it_is_compiled() -> None:
    assert run(asked("it", YES), *["nothing"] * 3, "compiled").finish_of("it")[0] is FinishReason.STOP


def test_what_is_refused_after_all_is_an_error() -> None:
    script = run(asked("it", YES), "refused")
    assert script.finish_of("it")[0] is FinishReason.ERROR
    assert script.events[-1].error == "#/a: no"


@pytest.mark.parametrize("last", [Cancel(request_id="it"), Stop()])
def test_it_is_cancelled_while_it_compiles(last: Command) -> None:
    assert run(asked("it", YES), last).finish_of("it")[0] is FinishReason.CANCELLED


def test_the_fake_keeps_to_a_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 22]}}, "required": ["a"]}
    constraint = Constraint(Kind.JSON_SCHEMA, json.dumps({**schema, "additionalProperties": False}))
    finish, text = run(asked("it", constraint), "compiled").finish_of("it")
    assert finish is FinishReason.STOP
    assert json.loads(text)["a"] in (1, 22)
