"""The messages between the API process and a worker, and the specification a worker is started with.

Commands go down, one message each. Messages come up: one `Ready` or `Failed` first, then exactly one
`StepFrame` per engine step, and one `Inspected` per `Inspect`. Both directions are msgpack over one pair of
sockets, so order is kept and the end of a stream can never overtake its last token.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from rllm.backends.options import FakeOptions, Fallback, LlamaOptions, with_slots
from rllm.engine.snapshot import Snapshot
from rllm.engine.types import EngineRequest, Event, ModelInfo, Started, StepRecord

LEVELS = ("debug", "info", "warning", "error")
"""Log levels, least important first."""


OUT_OF_MEMORY = 77
"""Exit status of a worker that could send nothing any more: a GPU had no memory while it computed."""
STUCK = 78
"""Exit status of a worker whose first computation did not end."""


class SchedulerOptions(msgspec.Struct, frozen=True, kw_only=True):
    max_step_tokens: int = 0
    """Most tokens of one step, prefill and decode together. 0: the batch size."""
    prefix_cache: bool = True
    itl_target_s: float = 0.1
    """While somebody decodes, prefill is cut so that a step takes about this long."""
    max_pause_s: float | None = None
    """When many requests come at once, those who decode wait so long for a step; 0: they take turns.
    None: what is best for the device."""
    speculative_tokens: int = 0
    """Most tokens drafted for one sequence in one step, where that pays. 0: none."""


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All a worker process needs to know. Travels on its standard input."""

    name: str
    fd: int = -1
    """Its end of the socket to the API process. Each start of a worker has its own."""
    model_path: str = ""
    llama: LlamaOptions | None = None
    fake: FakeOptions | None = None
    scheduler: SchedulerOptions = SchedulerOptions()
    env: dict[str, str] = {}
    """Added to the process's environment, e.g. CUDA_VISIBLE_DEVICES."""
    log_level: str = "warning"
    fallbacks: tuple[dict[str, str], ...] = ()
    """Options of the backend to try in turn where it does not compute with its own."""
    fallback: Fallback | None = None
    """The one that is among its options already, known from an earlier start."""
    tuned: dict[str, str | int] = {}
    """Of its options those that were measured to be fastest here."""

    @property
    def slots(self) -> int:
        """That the worker is asked for."""
        options = self.llama or self.fake
        return options.slots if options is not None else 0

    def with_slots(self, slots: int) -> WorkerSpec:
        if self.llama is not None:
            return msgspec.structs.replace(self, llama=with_slots(self.llama, slots))
        fake = self.fake and msgspec.structs.replace(self.fake, slots=slots)
        return msgspec.structs.replace(self, fake=fake)

    def with_options(self, changes: Mapping[str, str]) -> WorkerSpec:
        """The same with other options of its backend."""
        if self.llama is not None:
            return msgspec.structs.replace(self, llama=msgspec.structs.replace(self.llama, **changes))
        fake = self.fake and msgspec.structs.replace(self.fake, **changes)
        return msgspec.structs.replace(self, fake=fake)


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """The sequences of one request: they arrive between the same two steps."""

    requests: tuple[EngineRequest, ...]
    sent_at: float
    """time.monotonic() when they were accepted: their place in line and the start of their queue time."""


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    request_id: str


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Finish the current step, answer everything that is left with CANCELLED, and exit 0."""


class Inspect(msgspec.Struct, frozen=True, tag="inspect"):
    """Somebody is looking: tell what every sequence is doing."""


Command = Submit | Cancel | Stop | Inspect


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    info: ModelInfo
    pid: int


class StepFrame(msgspec.Struct, frozen=True, array_like=True, tag="step"):
    """Everything one engine step brought. Also sent without ``step`` when commands alone ended requests."""

    events: tuple[Event, ...] = ()
    step: StepRecord | None = None
    started: tuple[Started, ...] = ()


class Inspected(msgspec.Struct, frozen=True, array_like=True, tag="inspected"):
    snapshot: Snapshot


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """The worker cannot go on. ``reason`` is one line for the operator; the process exits after it."""

    reason: str
    at_start: bool = False
    out_of_memory: bool = False
    """With fewer slots it may work."""
    miscomputed: bool = False
    """With other kernels it may work."""


class LogLine(msgspec.Struct, frozen=True, array_like=True, tag="log"):
    level: str
    text: str
    sequences: tuple[str, ...] = ()
    """Ids of the requests that it is about; of llama.cpp's own lines those that were being computed."""


Message = Ready | StepFrame | Inspected | Failed | LogLine

_encoder = msgspec.msgpack.Encoder()
_command_decoder = msgspec.msgpack.Decoder(Command)
_message_decoder = msgspec.msgpack.Decoder(Message)
_spec_decoder = msgspec.json.Decoder(WorkerSpec)


def encode(item: Command | Message) -> bytes:
    return _encoder.encode(item)


def decode_command(data: bytes) -> Command:
    command: Command = _command_decoder.decode(data)
    return command


def decode_message(data: bytes) -> Message:
    message: Message = _message_decoder.decode(data)
    return message


def encode_spec(spec: WorkerSpec) -> bytes:
    return msgspec.json.encode(spec)


def decode_spec(data: bytes) -> WorkerSpec:
    return _spec_decoder.decode(data)
