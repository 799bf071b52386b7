"""A frame leaves while the next step is computed, and never later than anything that follows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from rllm.backends.fake import FakeBackend
from rllm.backends.options import FakeOptions
from rllm.engine.engine import Engine
from rllm.engine.port import Plan, StepResult, nothing
from rllm.engine.scheduler import Scheduler
from rllm.engine.types import EngineRequest, SamplingParams
from rllm.workers.frames import Command, Inspect, Inspected, Message, StepFrame, Stop, Submit
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
    engine = Engine(Scheduler(backend.info, backend.vocabulary), backend, lambda: 0.0)
    assert serve(engine, script, WorkerLog(script.send, "warning")) == 0
    return script, backend


def ask(text: str = "[[say hello]]") -> Submit:
    return Submit(
        EngineRequest(
            id="a", prompt=tuple(text.encode()), max_tokens=20, sampling=SamplingParams(temperature=0.0)
        ),
        0.0,
    )


def test_frames_are_sent_during_the_next_step_in_order_and_all_of_them() -> None:
    script, backend = run([ask()])
    frames = [message for message in script.sent if isinstance(message, StepFrame)]
    assert "".join(event.text for frame in frames for event in frame.events) == "hello"
    assert [event.finish is not None for frame in frames for event in frame.events][-1]
    # when step i begins, the frame of the step before it has not left yet
    assert backend.sent_at[1:4] == [0, 1, 2]


def test_who_looks_sees_the_frames_of_what_is_told() -> None:
    script, _ = run([ask()], [], [Inspect()])
    at = next(i for i, message in enumerate(script.sent) if isinstance(message, Inspected))
    assert sum(isinstance(message, StepFrame) for message in script.sent[:at]) == 2
