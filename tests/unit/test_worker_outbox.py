"""A frame leaves while the next step is computed, and never later than anything that follows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest

from rllm.backends.fake import FakeBackend
from rllm.backends.options import FakeOptions
from rllm.engine.build import build_scheduler
from rllm.engine.engine import Engine
from rllm.engine.port import Plan, StepResult, nothing
from rllm.engine.types import EngineRequest, SamplingParams
from rllm.workers.frames import Command, Failed, Inspect, Inspected, Message, StepFrame, Stop, Submit
from rllm.workers.worker import serve
from rllm.workers.worker_log import WorkerLog


class Script:
    """Both ends: hands out commands, keeps what was sent, and when."""

    def __init__(self, *commands: list[Command]) -> None:
        self.commands_left = list(commands)
        self.sent: list[Message] = []

    def commands(self, *, wait: bool) -> Iterator[Command]:
        if wait:
            assert not self.commands_left or self.commands_left[0]
        yield from self.commands_left.pop(0) if self.commands_left else [Stop()] if wait else []

    def send(self, message: Message) -> None:
        self.sent.append(message)


class Slow(FakeBackend):
    """Lets things be done meanwhile; notes how many frames had been sent when a step had been computed."""

    def __init__(self, script: Script) -> None:
        super().__init__(FakeOptions())
        self._info = msgspec.structs.replace(self._info, overlaps=True)
        self.wire = script
        self.sent_at: list[int] = []

    def execute(self, plan: Plan, meanwhile: Callable[[], None] = nothing) -> StepResult:
        began = len(self.wire.sent)
        result = super().execute(plan, meanwhile)
        self.sent_at.append(began)
        return result


def run(*commands: list[Command]) -> tuple[Script, Slow]:
    script = Script(*commands)
    backend = Slow(script)
    engine = Engine(build_scheduler(backend.info, backend.vocabulary), backend, lambda: 0.0)
    assert serve(engine, script, WorkerLog(script.send, "warning")) == 0
    return script, backend


def ask(text: str = "[[say hello]]", names: str = "a") -> Submit:
    greedy, prompt = SamplingParams(temperature=0.0), tuple(text.encode())
    requests = (EngineRequest(id=name, prompt=prompt, max_tokens=20, sampling=greedy) for name in names)
    return Submit(tuple(requests), 0.0)


def test_frames_are_sent_during_the_next_step_in_order_and_all_of_them() -> None:
    script, backend = run([ask()])
    frames = [message for message in script.sent if isinstance(message, StepFrame)]
    assert "".join(event.text for frame in frames for event in frame.events) == "hello"
    assert [event.finish is not None for frame in frames for event in frame.events][-1]
    # when step i begins, the frame of the step before it has not left yet
    assert backend.sent_at[1:4] == [0, 1, 2]


def test_the_sequences_of_one_request_arrive_together() -> None:
    script, _ = run([ask(names="ab")])
    first = next(message for message in script.sent if isinstance(message, StepFrame) and message.step)
    assert first.step is not None
    assert first.step.running + first.step.waiting == 2


def test_who_looks_sees_the_frames_of_what_is_told() -> None:
    script, _ = run([ask()], [], [Inspect()])
    at = next(i for i, message in enumerate(script.sent) if isinstance(message, Inspected))
    assert sum(isinstance(message, StepFrame) for message in script.sent[:at]) == 2


@pytest.mark.parametrize(("level", "notices"), [("debug", True), ("info", False)])
def test_in_a_debug_run_an_idle_engine_checks_its_accounts(level: str, notices: bool) -> None:
    """A cell that nobody holds is found when there is nothing to do, and ends the worker."""
    script = Script([ask()])
    scheduler = build_scheduler((backend := FakeBackend(FakeOptions())).info, backend.vocabulary)
    engine, log = Engine(scheduler, backend, lambda: 0.0), WorkerLog(script.send, level)
    scheduler.inspect().kv.grew(3, 1)
    if notices:
        with pytest.raises(AssertionError):
            serve(engine, script, log)
        assert isinstance(script.sent[-1], Failed)
    else:
        assert serve(engine, script, log) == 0
